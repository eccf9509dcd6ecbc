import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from eyesmith.data.patch_masks import MaskConfig, alternating_mask, block_mask, kept_patches, masks_for, random_mask
from eyesmith.errors import ConfigError

GRID = (16, 16)
DRAWS = 1500


def slow_mask(rng: random.Random, *, target: int = 105, smallest: int = 16) -> set[tuple[int, int]]:
    """The same rule on sets of cells, with Python's own random numbers."""
    hidden: set[tuple[int, int]] = set()
    is_stuck = False
    while len(hidden) < target and not is_stuck:
        is_stuck = True
        room = target - len(hidden)
        for _ in range(10):
            area = rng.uniform(smallest, room)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < 16 and width < 16:
                top, left = rng.randint(0, 16 - height), rng.randint(0, 16 - width)
                cells = {(y, x) for y in range(top, top + height) for x in range(left, left + width)}
                if 0 < len(cells - hidden) <= room:
                    hidden |= cells
                    is_stuck = False
                    break
    return hidden


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return masks_for(torch.arange(DRAWS), GRID, MaskConfig(), seed=3, step=8).numpy()


def test_counts_are_those_of_the_release(drawn: np.ndarray) -> None:
    """20,000 draws of the reference: mean 104.44, 90 to 105, exactly 105 in 65.3 %, 103 or more in 94.9 %."""
    counts = drawn.sum(axis=1)
    assert counts.mean() == pytest.approx(104.44, abs=0.1)
    assert counts.min() >= 90
    assert counts.max() == 105
    assert (counts == 105).mean() == pytest.approx(0.653, abs=0.04)
    assert (counts >= 103).mean() == pytest.approx(0.949, abs=0.02)


def test_masks_are_distributed_as_those_of_a_slow_version(drawn: np.ndarray) -> None:
    rng = random.Random(0)
    slow = np.zeros((DRAWS, *GRID), dtype=bool)
    for mask in slow:
        for y, x in slow_mask(rng):
            mask[y, x] = True
    ours = drawn.reshape(-1, *GRID)
    assert ours.sum(axis=(1, 2)).mean() == pytest.approx(slow.sum(axis=(1, 2)).mean(), abs=0.15)
    # how often each patch is hidden: more in the middle, where more blocks reach
    np.testing.assert_allclose(ours.mean(axis=0), slow.mean(axis=0), atol=0.07)
    # how ragged masks are: neighbours that differ
    edges = [np.diff(masks.astype(int), axis=2).__abs__().sum(axis=(1, 2)).mean() for masks in (ours, slow)]
    assert edges[0] == pytest.approx(edges[1], rel=0.03)


def test_the_rule_scales_with_the_grid() -> None:
    assert MaskConfig().counts(GRID) == (105, 16)
    assert MaskConfig().counts((6, 6)) == (15, 2)
    assert MaskConfig(frac=0.4).counts(GRID) == (102, 16)
    counts = masks_for(torch.arange(300), (6, 6), MaskConfig(), seed=0, step=0).sum(dim=1)
    assert counts.max() == 15
    assert counts.float().mean() > 14
    assert masks_for(torch.arange(50), (2, 2), MaskConfig(), seed=0, step=0).any(dim=1).all()


def test_random_masks_hide_whole_cells() -> None:
    config = MaskConfig(kind="random", frac=0.6, cell_patches=2)
    mask = random_mask(GRID, config, np.random.default_rng(0))
    cells = mask.reshape(8, 2, 8, 2).mean(axis=(1, 3))
    assert {*cells.ravel()} == {0.0, 1.0}
    assert cells.sum() == math.ceil(0.6 * 64)
    assert random_mask((5, 3), config, np.random.default_rng(0)).shape == (5, 3)


def test_a_mask_depends_on_seed_step_and_row_alone() -> None:
    config = MaskConfig()
    whole = masks_for(torch.arange(6), GRID, config, seed=1, step=2)
    assert torch.equal(masks_for(torch.tensor([4, 1]), GRID, config, seed=1, step=2), whole[[4, 1]])
    assert not torch.equal(masks_for(torch.arange(6), GRID, config, seed=1, step=3), whole)
    assert not torch.equal(masks_for(torch.arange(6), GRID, config, seed=2, step=2), whole)


def test_validation_hides_every_even_patch() -> None:
    assert alternating_mask(2, (2, 3)).tolist() == [[True, False, True, False, True, False]] * 2


def test_dropping_keeps_distinct_patches() -> None:
    kept = kept_patches(torch.arange(4), (6, 6), 0.5, seed=0, step=1)
    assert kept.shape == (4, 18)
    assert all(row.tolist() == sorted({*row.tolist()}) for row in kept)
    assert kept_patches(torch.arange(4), (6, 6), 0.99, seed=0, step=1).shape == (4, 1)
    assert torch.equal(kept_patches(torch.tensor([2]), (6, 6), 0.5, seed=0, step=1)[0], kept[2])


def test_what_makes_no_mask_is_said() -> None:
    for wrong in ({"frac": 0.0}, {"frac": 1.0}, {"min_block_frac": 0.9}, {"aspect": 0.0}, {"cell_patches": 0}):
        with pytest.raises(ConfigError, match="mask: expected"):
            replace(MaskConfig(), **wrong)
    assert block_mask((3, 3), MaskConfig(), np.random.default_rng(0)).shape == (3, 3)
