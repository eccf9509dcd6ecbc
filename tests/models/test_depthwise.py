"""Depthwise convolutions with gradients of our own equal nn.Conv2d's."""

import pytest
import torch
from torch import Tensor, nn

from eyesmith.models.depthwise import DepthwiseConv, quicken_depthwise


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
