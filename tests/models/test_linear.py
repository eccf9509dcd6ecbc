"""The fused layer beside nn.Linear and plain operations, wherever it may run."""

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.linear import Linear, can_fuse, pack
from eyesmith.models.lora import LoraConfig, add_adapters

DTYPES = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float64: 1e-12}
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
    "quick_gelu": lambda y: y / (1 + (-1.702 * y).exp()),
}


def plain(layer: nn.Linear, x: Tensor, **epilogue: Any) -> Tensor:
    y = F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
    if (act := epilogue.get("act")) is not None:
        y = ACTIVATIONS[act](y)
    if (times := epilogue.get("times")) is not None:
        y = y * times
    if (plus := epilogue.get("plus")) is not None:
        y = y + plus
    return y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
@torch.no_grad()
def test_epilogues_equal_the_plain_operations(dtype: torch.dtype, has_bias: bool, is_packed: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 16, bias=has_bias).to(dtype)
    if is_packed:
        layer.pack()
    x, other = torch.randn(2, 5, 24, dtype=dtype), torch.randn(2, 16, 5, dtype=dtype).mT  # a strided operand too
    for epilogue in ({}, *({"act": act} for act in ACTIVATIONS), {"times": other}, {"plus": other}):
        y = layer(x, **epilogue)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), plain(layer, x, **epilogue), rtol=0, atol=4 * DTYPES[dtype])


@torch.no_grad()
@pytest.mark.parametrize("is_packed", [True, False])
def test_parts_are_blocks_of_rows(is_packed: bool) -> None:
    layer = Linear(8, 12, num_parts=2)
    if is_packed:
        layer.pack()
    x = torch.randn(3, 8)
    both = torch.cat((layer(x, part=0), layer(x, part=1)), dim=-1)
    torch.testing.assert_close(both, layer(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(both, F.linear(x, layer.weight, layer.bias), rtol=0, atol=1e-6)


def test_with_gradient_it_is_nn_linear_to_the_bit() -> None:
    layer, reference = Linear(8, 6), nn.Linear(8, 6)
    reference.load_state_dict(layer.state_dict())
    x, rest = torch.randn(4, 8, requires_grad=True), torch.randn(4, 6)
    assert not can_fuse(x, layer.weight)
    ours = torch.autograd.grad(layer(x, plus=rest).square().sum(), [x, *layer.parameters()])
    theirs = torch.autograd.grad((rest + reference(x)).square().sum(), [x, *reference.parameters()])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_packed_weight_never_outlives_a_change() -> None:
    x = torch.randn(4, 8)

    def changes(layer: Linear) -> None:
        layer.weight.mul_(3)

    def loads(layer: Linear) -> None:
        layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})

    def assigns(layer: Linear) -> None:
        layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()}, assign=True)

    def casts(layer: Linear) -> None:
        layer.to(torch.float64).to(torch.float32)
        layer.weight.copy_(torch.randn_like(layer.weight))

    for change in (changes, loads, assigns, casts):
        layer = Linear(8, 6)
        layer.pack()
        change(layer)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_packed_before", [True, False])
def test_an_adapter_beside_a_packed_weight_is_heard(is_packed_before: bool) -> None:
    net, x = nn.Sequential(Linear(8, 6)), torch.randn(4, 8)
    if is_packed_before:
        pack(net)
    add_adapters(net, ["0.weight"], LoraConfig(rank=2))
    pack(net)
    for _ in range(2):
        nn.init.normal_(net[0].parametrizations.weight[0].lora_up)
        for mode in (torch.inference_mode, torch.no_grad):
            with mode():
                torch.testing.assert_close(net(x), F.linear(x, net[0].weight, net[0].bias), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_packed_module_can_be_copied_saved_and_trained() -> None:
    net = nn.Sequential(Linear(8, 8), nn.ReLU(), Linear(8, 4))
    pack(net)
    x = torch.randn(2, 8)
    y = net(x)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert torch.equal(copy.deepcopy(net)(x), net(x)) or torch.allclose(copy.deepcopy(net)(x), y, atol=1e-6)
    torch.save(net, io.BytesIO())
    with torch.enable_grad():
        net(x).sum().backward()
    assert net[0].weight.grad is not None


@torch.no_grad()
def test_no_fusing_where_it_would_be_wrong_or_traced() -> None:
    layer, x = Linear(8, 4), torch.randn(2, 8)
    assert can_fuse(x, layer.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not can_fuse(x, layer.weight)
        assert layer(x).dtype == torch.bfloat16
    assert not can_fuse(x.double(), layer.weight)
    assert not can_fuse(x.to("meta"), layer.weight)
    assert layer(torch.empty(0, 8)).shape == (0, 4)
    exported = torch.export.export(nn.Sequential(layer), (x,))
    assert "mkldnn" not in str(exported.graph)
