"""FC-CLIP's decoder beside Mask2FormerModel with the same weights, at any taps."""

from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.dense.segment.fcclip import FcClipConfig, Mask2FormerDecoder
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Tap
from eyesmith.models.foreign.torchvision import ensure_torchvision

pytest.importorskip("scipy")
ensure_torchvision()
pytest.importorskip("transformers")

CONVOLUTIONAL = {"a": Tap(4, 6), "b": Tap(8, 8), "c": Tap(16, 10), "d": Tap(32, 12)}
HYBRID = {"stage1": Tap(4, 6), "stage2": Tap(8, 10), "stage3_half": Tap(16, 12), "stage3": Tap(16, 12)}
PLAIN = {"half": Tap(14, 12), "last": Tap(14, 12)}
SMALL = FcClipConfig(width=32, num_heads=2, num_queries=4, num_layers=3, pixel_layers=1, pixel_hidden=16, hidden=24)


def maps_of(taps: dict[str, Tap], side: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(2, tap.channels, side // tap.stride, side // tap.stride, generator=draws)
        for name, tap in taps.items()
    }


def test_it_is_mask2formers_model_without_the_backbone() -> None:
    from transformers import AutoBackbone, Mask2FormerConfig, Mask2FormerModel, ResNetConfig

    made: Any = ResNetConfig
    backbone = made(
        embedding_size=4,
        hidden_sizes=[6, 8, 10, 12],
        depths=[1, 1, 1, 1],
        out_indices=[1, 2, 3, 4],
        layer_type="basic",  # pyright: ignore
    )
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, num_attention_heads=2,
        num_queries=4, decoder_layers=4, encoder_layers=1, encoder_feedforward_dim=16, dim_feedforward=24,
    )  # fmt: skip
    theirs = Mask2FormerModel(config).eval()
    ours = Mask2FormerDecoder(SMALL, CONVOLUTIONAL).eval()
    pairs: Any = (
        (ours.decoder.pixel, theirs.pixel_level_module.decoder),
        (ours.decoder.transformer, theirs.transformer_module),
    )
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted: Any = theirs(pixels, output_hidden_states=True)
        maps: Any = theirs.pixel_level_module.encoder(pixels).feature_maps
        found = ours(dict(zip(CONVOLUTIONAL, maps, strict=True)))
    assert AutoBackbone is not None
    assert len(found.masks) == len(wanted.masks_queries_logits) == 4
    for one, other in zip(found.masks, wanted.masks_queries_logits, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(found.queries, wanted.transformer_decoder_intermediate_states, strict=True):
        torch.testing.assert_close(one, other.transpose(0, 1))
    torch.testing.assert_close(found.features[-1], wanted.pixel_decoder_last_hidden_state)


@pytest.mark.parametrize(("taps", "side"), [(HYBRID, 64), (PLAIN, 56), (CONVOLUTIONAL, 96)])
def test_any_encoder_fits(taps: dict[str, Tap], side: int) -> None:
    torch.manual_seed(0)
    decoder = SMALL.build(taps)
    found = decoder(maps_of(taps, side))
    cells = side // 4
    assert [tuple(one.shape) for one in found.masks] == [(2, 4, cells, cells)] * 4
    torch.stack([one.square().sum() for one in (*found.masks, *found.queries)]).sum().backward()
    unused = [
        name for name, value in decoder.named_parameters() if value.grad is None and "reference_points" not in name
    ]
    assert unused == []


def test_a_hybrid_encoder_gives_the_published_levels() -> None:
    """res4 is what comes out of all blocks, res5 every second cell of it."""
    decoder = SMALL.build(HYBRID)
    assert decoder.levels == ("stage1", "stage2", "stage3", "stage3")
    maps = maps_of(HYBRID, 64)
    maps["stage3"][:, :, 1::2] = torch.nan  # never looked at by res5, but by res4
    assert torch.isnan(decoder(maps).masks[0]).all()
    half = SMALL.build(HYBRID).eval()
    other = maps_of(HYBRID, 64)
    other["stage3_half"] = other["stage3_half"] + 1
    torch.testing.assert_close(half(other).masks[-1], half(maps_of(HYBRID, 64)).masks[-1])


def test_position_maps_have_the_published_size_start_at_nothing_and_bend() -> None:
    large = {"stage1": Tap(4, 160), "stage2": Tap(8, 320), "stage3": Tap(16, 1024)}
    with torch.device("meta"):
        decoder = FcClipConfig(position_grid=336).build(large)
    assert sum(value.numel() for value in decoder.positions) == (
        160 * 336**2 + 320 * 168**2 + 1024 * 84**2 + 1024 * 42**2
    )
    assert round(sum(value.numel() for value in decoder.positions) / 1e6, 1) == 36.1
    torch.manual_seed(0)
    plain = SMALL.build(HYBRID).eval()
    placed = FcClipConfig(
        width=32, num_heads=2, num_queries=4, num_layers=3, pixel_layers=1, pixel_hidden=16, hidden=24, position_grid=8
    ).build(HYBRID).eval()  # fmt: skip
    placed.load_state_dict(plain.state_dict(), strict=False)
    maps = maps_of(HYBRID, 64)
    torch.testing.assert_close(placed(maps).masks[-1], plain(maps).masks[-1])
    with torch.no_grad():
        placed.positions[2].normal_()
    assert not torch.allclose(placed(maps).masks[-1], plain(maps).masks[-1])


@pytest.mark.parametrize("layers", [3, 5])
def test_multiply_adds_counted_by_hand_are_those_that_run(layers: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    decoder = FcClipConfig(
        width=32, num_heads=2, num_queries=4, num_layers=layers, pixel_layers=2, pixel_hidden=16, hidden=24
    ).build(HYBRID)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder({name: one[:1] for name, one in maps_of(HYBRID, 64).items()})
    assert decoder.macs(64) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


def test_published_numbers_of_the_head() -> None:
    config = FcClipConfig()
    assert (config.num_queries, config.num_layers, config.pixel_layers, config.width) == (250, 9, 6, 256)


def test_what_cannot_be_built_is_told() -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        FcClipConfig(width=48)
    with pytest.raises(ConfigError, match="expected 4, for strides"):
        FcClipConfig(taps=("a",))
    with pytest.raises(ConfigError, match="no z; the encoder has"):
        FcClipConfig(taps=("a", "b", "c", "z")).build(CONVOLUTIONAL)
    with pytest.raises(ConfigError, match="position_grid"):
        FcClipConfig(position_grid=7)
