import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models import cpu_ops
from eyesmith.models.cpu_ops import (
    PRODUCT_TOKENS,
    SHORT_SEQUENCE_LEN,
    Conv,
    DepthwiseConv,
    _StridedDepthwise,
    attend,
    depthwise,
    replace_convolutions,
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


@pytest.mark.parametrize("tokens", [PRODUCT_TOKENS - 1, PRODUCT_TOKENS, 70])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_attention_by_products_is_as_near_the_truth_as_torchs_own_layer(
    tokens: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_ops, "_are_products_faster", lambda q: True)
    monkeypatch.setattr(cpu_ops, "SCORE_BYTES", 2 * 4 * 70 * 70 * 2)  # of two images
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    with torch.no_grad():
        layer.in_proj_weight.mul_(3)
        layer.out_proj.weight.copy_(torch.eye(32))
    layer, x = layer.bfloat16(), torch.randn(batch, tokens, 32).bfloat16()
    with torch.inference_mode():
        theirs = layer(x, x, x, need_weights=False)[0].unflatten(2, (4, 8)).transpose(1, 2)
        qkv = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).view(batch, tokens, 3, 4, 8)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
        ours = attend(q, k, v)
        fused = F.scaled_dot_product_attention(q, k, v)
    assert ours.shape == q.shape
    bound = ((fused if tokens < PRODUCT_TOKENS else theirs).double() - exact).abs().max()
    assert (ours.double() - exact).abs().max() <= 1.5 * bound


def test_products_serve_inference_in_bfloat16_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    q = torch.randn(1, 2, 64, 8).bfloat16()
    assert not cpu_ops._are_products_faster(q)  # a gradient may be asked of k and v
    with torch.no_grad():
        assert cpu_ops._are_products_faster(q)
        assert not cpu_ops._are_products_faster(q.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert not cpu_ops._are_products_faster(q)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
        assert not cpu_ops._are_products_faster(q)


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
    replace_convolutions(layers)
    assert [type(layer) is DepthwiseConv for layer in layers] == [True, True, False, False, False, False]
    assert all(value is before[name] for name, value in layers.named_parameters())


@pytest.mark.parametrize("is_autocast", [False, True])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize(("side", "stride", "size"), [(3, 3, (4, 1)), (2, 2, (6, 2)), (3, 2, (8, 1)), (7, 1, (5, 1))])
def test_a_bfloat16_convolution_is_right_where_its_output_is_one_cell_wide(
    side: int, stride: int, size: tuple[int, int], groups: int, is_autocast: bool
) -> None:
    """torch's own weight gradient there is 1e20 or NaN, one run in a few: it reads memory that nobody wrote."""
    kind = DepthwiseConv if groups > 1 and side != 2 else Conv
    for seed in range(8):
        torch.manual_seed(seed)
        conv = kind(8, 8 if groups > 1 else 64, side, stride, padding=side // 2, groups=groups)
        x = torch.randn(2, 8, *size).contiguous(memory_format=torch.channels_last).bfloat16()
        conv = conv if is_autocast else conv.bfloat16()
        exact = nn.Conv2d(8, conv.out_channels, side, stride, padding=side // 2, groups=groups).double()
        exact.load_state_dict({name: value.bfloat16().double() for name, value in conv.state_dict().items()})
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            y = conv(x.float() if is_autocast else x)
        wanted = exact(x.double())
        assert y.dtype is torch.bfloat16
        grad = torch.randn(y.shape).bfloat16()
        y.backward(grad)
        wanted.backward(grad.double())
        for found, true in ((y, wanted), (conv.weight.grad, exact.weight.grad), (conv.bias.grad, exact.bias.grad)):
            torch.testing.assert_close(found.double(), true, rtol=0.02, atol=0.05)


def test_every_plain_convolution_of_an_encoder_is_replaced() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 4, 1))
    weights = module.state_dict()
    random = torch.get_rng_state()
    x = torch.randn(2, 3, 16, 16)
    torch.set_rng_state(random)
    wanted = module(x)
    replace_convolutions(module)
    assert [type(part) for part in module] == [Conv, DepthwiseConv, Conv]
    assert all(value.equal(weights[name]) for name, value in module.state_dict().items())
    assert torch.get_rng_state().equal(random)
    assert module(x).equal(wanted)
