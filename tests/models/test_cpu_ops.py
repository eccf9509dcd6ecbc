import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.cpu_ops import (
    SHORT_SEQUENCE_LEN,
    DepthwiseConv,
    _StridedDepthwise,
    attend,
    depthwise,
    quicken_depthwise,
)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 9), (1, 1)])
def test_strided_depthwise_has_the_gradients_of_a_convolution(size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    ours, theirs = _StridedDepthwise.apply(x, weight), F.conv2d(x, weight, stride=2, padding=1, groups=4)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    grad = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), grad), torch.autograd.grad(theirs, (x, weight), grad), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_depthwise_in_bfloat16_equals_a_convolution_within_rounding() -> None:
    x = torch.randn(2, 16, 8, 8).bfloat16().requires_grad_()
    weight, bias = torch.randn(16, 1, 3, 3), torch.randn(16)
    ours = depthwise(x, weight, bias, 2)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), stride=2, padding=1, groups=16)
    torch.testing.assert_close(ours.double(), exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("tokens", [9, SHORT_SEQUENCE_LEN + 1])
def test_attention_equals_torchs_own(tokens: int) -> None:
    q, k, v = (torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours, theirs = attend(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # the softmax of short sequences is in fp32
    grad = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), grad), torch.autograd.grad(theirs, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def _pair(side: int, stride: int, *, bias: bool = True) -> tuple[nn.Conv2d, DepthwiseConv]:
    made = [cls(6, 6, side, stride, padding=side // 2, groups=6, bias=bias) for cls in (nn.Conv2d, DepthwiseConv)]
    made[1].load_state_dict(made[0].state_dict())
    theirs, ours = made
    assert isinstance(ours, DepthwiseConv)
    return theirs, ours


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 7), (8, 8), (9, 16)])  # the last is too large for pairs of cells
@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_result_and_gradients_equal_torchs(size: tuple[int, int], side: int, stride: int) -> None:
    torch.manual_seed(0)
    theirs, ours = (module.double() for module in _pair(side, stride))
    x = torch.randn(3, 6, *size, dtype=torch.float64)
    results: list[list[Tensor | None]] = []
    for module in (theirs, ours):
        pixels = x.clone().requires_grad_()
        y = module(pixels)
        (y * torch.arange(y.numel()).view(y.shape).sin()).sum().backward()
        results.append([y, pixels.grad, module.weight.grad, module.bias.grad if module.bias is not None else None])
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("side", "stride"), [(7, 1), (3, 2)])
def test_under_autocast_it_rounds_as_torchs_does(side: int, stride: int) -> None:
    torch.manual_seed(0)
    theirs, ours = _pair(side, stride, bias=False)
    x = torch.randn(16, 6, 8, 8)
    for module in (theirs, ours):
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x.requires_grad_())
        assert y.dtype is torch.bfloat16
        y.float().square().sum().backward()
    assert theirs.weight.grad is not None
    assert ours.weight.grad is not None
    assert ours.weight.grad.dtype is torch.float32
    torch.testing.assert_close(
        ours.weight.grad, theirs.weight.grad, rtol=2e-2, atol=2e-2 * float(theirs.weight.grad.abs().max())
    )


def test_only_what_gains_is_replaced_and_parameters_stay() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 7, padding=3, groups=4),
        nn.Conv2d(4, 4, 3, 2, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 7, padding=3),
        nn.Conv2d(4, 8, 3, 2, padding=1, groups=4),
        nn.Conv2d(4, 4, 7, padding=9, groups=4, dilation=3),
    )
    before = dict(layers.named_parameters())
    quicken_depthwise(layers)
    assert [type(layer) is DepthwiseConv for layer in layers] == [True, True, False, False, False, False]
    assert all(value is before[name] for name, value in layers.named_parameters())
