"""ViTamin's own promises: sizes, initialisation, stochastic depth, any image size, the encoder contract."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from eyesmith.errors import ShapeError
from eyesmith.models.conformance import check_encoder
from eyesmith.models.encoder import Tap
from eyesmith.models.position import resize_position_table
from eyesmith.models.vitamin.model import VITAMIN, ViTamin, ViTaminConfig

TINY = ViTaminConfig(image_size=(48, 32), widths=(8, 16, 24), depths=(2, 4, 3), num_heads=2, embed_dim=20)


@pytest.mark.parametrize("config", [TINY, replace(TINY, has_position=False), replace(TINY, embed_dim=0)])
def test_it_keeps_the_encoder_contract(config: ViTaminConfig) -> None:
    encoder = config.build()
    check_encoder(encoder, other_size=(32, 80))
    assert encoder.embed_dim == (config.embed_dim or 24)


def test_the_contract_holds_at_the_declared_taps() -> None:
    encoder = TINY.build()
    taps = {"stage1": Tap(4, 8), "stage2": Tap(8, 16), "stage3_half": Tap(16, 24), "stage3": Tap(16, 24)}
    assert (dict(encoder.taps), encoder.half_tap) == (taps, "stage3_half")


@torch.no_grad()
def test_the_tap_in_the_middle_comes_after_half_of_the_blocks_and_runs_no_more() -> None:
    encoder = replace(TINY, depths=(2, 4, 5)).build().eval()
    pixels = torch.randn(2, 3, 48, 32)
    ran: list[int] = []
    for index, block in enumerate(encoder.stage3):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    middle = encoder.pyramid(pixels, ["stage3_half"])["stage3_half"]
    assert ran == [0, 1]
    assert torch.equal(middle.flatten(2).mT, encoder.tokens(pixels, 1))
    assert encoder.pyramid(pixels, ["stage1"]).keys() == {"stage1"}


@torch.no_grad()
@pytest.mark.parametrize("has_position", [True, False])
def test_views_at_other_sizes_share_the_weights_and_resample_the_native_table(has_position: bool) -> None:
    torch.manual_seed(0)
    encoder = replace(TINY, has_position=has_position).build().eval()
    native = {name: value.clone() for name, value in encoder.state_dict().items()}
    small = encoder.at_size(16, 16)
    large = small.at_size(64, 80)  # from the native table, not from the single cell of `small`
    by_hand = replace(encoder.config, image_size=(64, 80)).build().eval()
    state = dict(native)
    if has_position:
        state["position"] = resize_position_table(native["position"], (3, 2), (4, 5))
    by_hand.load_state_dict(state)
    pixels = torch.randn(1, 3, 64, 80)
    assert torch.equal(large(pixels), by_hand(pixels))
    assert (small.image_size, large.image_size, encoder.image_size) == ((16, 16), (64, 80), (48, 32))
    assert (encoder.config, large.config.image_size) == (TINY if has_position else encoder.config, (64, 80))
    assert all(torch.equal(value, native[name]) for name, value in encoder.state_dict().items())
    assert large.stage1[0].expand.weight is encoder.stage1[0].expand.weight
    encoder.head.weight.mul_(2)  # as a later training step would
    torch.testing.assert_close(large(pixels), 2 * by_hand(pixels))
    assert encoder.at_size(48, 32).position is encoder.position
    assert "_native" not in dict(large.named_modules())
    with pytest.raises(ShapeError, match="16"):
        encoder.at_size(40, 32)


def test_a_mean_pooled_map_projects_to_the_feature() -> None:
    encoder = TINY.build().eval()
    pixels = torch.randn(2, 3, 48, 32)
    torch.testing.assert_close(encoder.project(encoder.dense(pixels).mean((2, 3))), encoder(pixels))


def test_the_table_is_resampled_to_a_grid_that_is_not_square() -> None:
    encoder = TINY.build()
    assert encoder.position is not None
    with torch.no_grad():
        encoder.position.copy_(torch.arange(6.0).view(1, 6, 1).expand(1, 6, 24) // 2)  # the value is the row of 3 x 2
    encoder.set_image_size(48, 96)
    assert encoder.position.shape == (1, 18, 24)
    torch.testing.assert_close(encoder.position[0, :, 0], torch.arange(3.0).repeat_interleave(6))
    assert encoder.config.image_size == encoder.image_size == (48, 96)


def test_without_a_table_any_size_needs_no_change_of_weights() -> None:
    encoder = replace(TINY, has_position=False).build()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.set_image_size(96, 64)
    assert encoder(torch.randn(1, 3, 96, 64)).shape == (1, 20)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected \[B, 3, 48, 32\], got \[1, 3, 48, 48\]"):
        TINY.build()(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("size", "trunk"),
    [("small", 21_877_696), ("base", 87_132_032), ("large", 332_531_616), ("xlarge", 434_726_976)],
)
def test_trunks_have_the_published_number_of_parameters(size: str, trunk: int) -> None:
    with torch.device("meta"):
        encoder = replace(VITAMIN[size], embed_dim=0).build()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == trunk


def test_initialisation_is_the_references() -> None:
    torch.manual_seed(0)
    encoder = VITAMIN["small"].build()
    modules = dict(encoder.named_modules())

    def std(name: str) -> float:
        return float(cast(Tensor, modules[name].weight).detach().std(correction=0))

    # convolutions: normal, variance 2 / fan_out with fan_out = kernel area x channels out / groups
    expected = {
        "stem.conv1": (2 / (9 * 64)) ** 0.5,
        "stem.conv2": (2 / (9 * 64)) ** 0.5,
        "stage1.1.expand": (2 / 256) ** 0.5,
        "stage1.1.reduce": (2 / 64) ** 0.5,
        "stage1.1.depthwise": (2 / 9) ** 0.5,
        "stage2.0.shortcut": (2 / 128) ** 0.5,
        # PyTorch's default: uniform within 1/sqrt(fan_in), whose deviation is that bound / sqrt(3)
        "transition.conv": 1 / (3 * 9 * 128) ** 0.5,
        "head": 1 / (3 * 384) ** 0.5,
        "stage3.5.attention.qkv": 0.02,
        "stage3.5.attention.out": 0.02,
        "stage3.5.mlp.gate_value": 0.02,
        "stage3.5.mlp.out": 0.02,
    }
    for name, value in expected.items():
        assert std(name) == pytest.approx(value, rel=0.05), name
    assert float(cast(Tensor, encoder.position).detach().std()) == pytest.approx(0.02, rel=0.02)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6, name
            assert bool((module.weight == 1).all()), name
            assert bool((module.bias == 0).all()), name
    untouched = ("transition.conv.bias",)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias") and name not in untouched:
            assert bool((parameter == 0).all()), name
    assert float(encoder.transition.conv.bias.detach().abs().max()) > 0


def test_stochastic_depth_rises_linearly_to_the_last_block() -> None:
    encoder = replace(TINY, drop_path_prob=0.3).build()
    assert [block.drop1.prob for block in encoder.stage3] == pytest.approx([0, 0.15, 0.3])


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block: Any = replace(TINY, drop_path_prob=0.4).build().stage3[2]
    branch = torch.ones(4000, 3, 24)
    block.train()
    dropped = block.drop1(branch)
    values = dropped.unique()
    torch.testing.assert_close(values, torch.tensor([0, 1 / 0.6]))
    assert bool((dropped == dropped[:, :1, :1]).all())
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    block.eval()
    assert torch.equal(block.drop1(branch), branch)


def test_every_parameter_receives_a_gradient() -> None:
    encoder: ViTamin = replace(TINY, drop_path_prob=0.0).build()
    encoder(torch.randn(2, 3, 48, 32)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
