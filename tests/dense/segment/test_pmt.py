"""The plain decoder: any taps, any size, masked attention, gradients."""

import pytest
import torch
from torch import Tensor

from eyesmith.dense.segment.decoder import sine_positions
from eyesmith.dense.segment.losses import MaskLossConfig, Prediction, SeededPoints, mask_losses
from eyesmith.dense.segment.pmt import PlainMaskDecoder, PmtConfig
from eyesmith.dense.segment.targets import MaskTargets
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Tap

HYBRID = {"stage1": Tap(4, 6), "stage2": Tap(8, 10), "half": Tap(16, 12), "last": Tap(16, 12)}
PLAIN = {"half": Tap(14, 12), "last": Tap(14, 12)}
CONVOLUTIONAL = {"a": Tap(4, 6), "b": Tap(8, 8), "c": Tap(16, 10), "d": Tap(32, 12)}
SMALL = PmtConfig(width=16, num_heads=2, num_blocks=2, num_queries=5)


def maps_of(taps: dict[str, Tap], height: int, width: int, rows: int = 2) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(rows, tap.channels, height // tap.stride, width // tap.stride, generator=draws)
        for name, tap in taps.items()
    }


@pytest.mark.parametrize(
    ("taps", "size", "fine", "coarse"),
    [
        (HYBRID, (64, 96), (16, 24), (4, 6)),
        (PLAIN, (56, 42), (16, 12), (4, 3)),
        (CONVOLUTIONAL, (64, 64), (16, 16), (4, 4)),
    ],
)
@pytest.mark.parametrize("supervised", ["cells", "fine"])
def test_any_encoder_at_any_size(
    taps: dict[str, Tap], size: tuple[int, int], fine: tuple[int, int], coarse: tuple[int, int], supervised: str
) -> None:
    torch.manual_seed(0)
    decoder = PmtConfig(width=16, num_heads=2, num_blocks=2, num_queries=5, supervised=supervised).build(taps)  # pyright: ignore
    found = decoder(maps_of(taps, *size))
    before = fine if supervised == "fine" else coarse
    assert [tuple(one.shape) for one in found.masks] == [(2, 5, *before)] * 2 + [(2, 5, *fine)]
    assert [tuple(one.shape) for one in found.features] == [(2, 16, *before)] * 2 + [(2, 16, *fine)]
    assert {tuple(one.shape) for one in found.queries} == {(2, 5, 16)}
    sum(one.square().sum() for one in found.masks).backward()  # pyright: ignore
    lacking = [name for name, value in decoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert [name for name in lacking if "bias" not in name] == []


def test_rows_do_not_know_each_other() -> None:
    torch.manual_seed(0)
    decoder = SMALL.build(HYBRID).eval()
    maps = maps_of(HYBRID, 32, 32, rows=3)
    together = decoder(maps).masks[-1]
    alone = decoder({name: one[1:2] for name, one in maps.items()}).masks[-1]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_a_query_sees_the_cells_of_its_mask_alone() -> None:
    """Its first block's answer may not change with cells outside; where its mask is empty, it does with all of them."""
    torch.manual_seed(0)
    decoder = PlainMaskDecoder(SMALL, PLAIN)
    masks = torch.full((1, 5, 2, 2), -1.0)
    masks[0, 0, 0, 0] = 1.0
    seen = decoder._seen(masks, (2, 2))[0, 0]
    assert seen.shape == (9, 9)
    assert seen[0].tolist() == [True] * 6 + [False] * 3
    assert seen[1].all()
    assert seen[5:].all(), "cells see everything"
    x = torch.randn(1, 9, 16)
    other = x.clone()
    other[0, 8] = torch.randn(16)  # a shift of all channels would be normed away
    block = decoder.blocks[0]
    before, after = (block(one, seen[None, None])[0] for one in (x, other))
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_without_masked_attention_inference_needs_no_layer_but_the_last() -> None:
    torch.manual_seed(0)
    decoder = PmtConfig(width=16, num_heads=2, num_blocks=3, num_queries=4, masked=False).build(HYBRID)
    maps = maps_of(HYBRID, 32, 32)
    assert len(decoder.train()(maps).masks) == 4
    found = decoder.eval()(maps)
    assert len(found.masks) == 1
    torch.testing.assert_close(found.masks[-1], decoder.train()(maps).masks[-1])


def test_it_learns_two_squares() -> None:
    torch.manual_seed(0)
    decoder = SMALL.build(HYBRID)
    heads = torch.nn.Linear(16, 3)
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :16, :16], masks[1, 16:, 8:] = True, True
    targets = [MaskTargets(torch.tensor([0, 1]), masks)] * 2
    maps = maps_of(HYBRID, 32, 32)
    config = MaskLossConfig(num_points=64)
    optimiser = torch.optim.AdamW([*decoder.parameters(), *heads.parameters()], lr=3e-3)
    losses = []
    for step in range(60):
        found = decoder(maps)
        said = [Prediction(heads(query), mask) for query, mask in zip(found.queries, found.masks, strict=True)]
        loss = mask_losses(said, targets, SeededPoints(config, torch.arange(2), seed=step), config).total(config)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_multiply_adds_are_counted_without_numbers_too() -> None:
    real = SMALL.build(HYBRID).eval()
    with torch.device("meta"):
        shape = SMALL.build(HYBRID)
    assert real.macs(64) == shape.macs(64) > 16 * 16 * 6 * 16, "at least the finest map is projected"
    assert real.macs(128) > 3 * real.macs(64)
    assert not real.training


def test_positions_differ_and_are_of_the_place_alone() -> None:
    table = sine_positions(6, 8, 32)
    assert table.shape == (6, 8, 32)
    flat = table.flatten(0, 1)
    distances = torch.cdist(flat, flat) + torch.eye(48) * 9
    assert distances.min() > 0.1
    torch.testing.assert_close(sine_positions(12, 16, 32)[1::2, 1::2], table)


def test_what_cannot_be_built_is_told() -> None:
    with pytest.raises(ConfigError, match="no stage9; the encoder has half, last"):
        PmtConfig(taps=("stage9",)).build(PLAIN)
    for change in ({"width": 12}, {"num_heads": 3}, {"num_blocks": 0}, {"mlp_ratio": 0}, {"supervised": "none"}):
        with pytest.raises(ConfigError, match="decoder"):
            PmtConfig(**change)  # pyright: ignore
