"""Batches of one size each: what every step has is a function of seed and step, within the budget, and all are seen."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eyesmith.data.buckets import MULTIPLE, BucketConfig, BucketPlan, buckets_of, grid_of
from eyesmith.errors import ConfigError, DataError

CONFIG = BucketConfig(cells=(9, 16), ratios=(0.5, 1.0, 2.0))


def made(ratios: np.ndarray, config: BucketConfig = CONFIG, *, batch_size: int = 32, seed: int = 3) -> BucketPlan:
    return BucketPlan(ratios, config, buckets_of(config, batch_size=batch_size, native_cells=9), seed=seed)


@pytest.mark.parametrize(
    ("cells", "ratio", "grid"),
    [(9, 1, (3, 3)), (16, 1, (4, 4)), (9, 2, (2, 4)), (9, 0.5, (4, 2)), (10, 1, (3, 3)), (1, 9, (1, 1))],
)
def test_grids(cells: int, ratio: float, grid: tuple[int, int]) -> None:
    assert grid_of(cells, ratio) == grid


@pytest.mark.parametrize("cells", [4, 9, 49, 196])
def test_a_grid_is_near_its_ratio_and_within_its_cells(cells: int) -> None:
    for ratio in (0.5, 0.75, 1.0, 4 / 3, 2.0):
        rows, columns = grid_of(cells, ratio)
        assert rows * columns <= cells
        others = [(r, cells // r) for r in range(1, cells + 1)]
        assert all(abs(math.log(columns / rows / ratio)) <= abs(math.log(c / r / ratio)) + 1e-12 for r, c in others)


def test_no_batch_passes_its_budget() -> None:
    for tokens in (0, 280):
        config = BucketConfig(cells=(9, 16, 30), ratios=(0.5, 1.0, 2.0), tokens=tokens)
        for row in buckets_of(config, batch_size=32, native_cells=9):
            for (rows, columns), count in row:
                assert 0 < count <= 32
                assert count % MULTIPLE == 0
                assert count * rows * columns <= (tokens or 32 * 9)
    with pytest.raises(ConfigError, match="no room for 8 pictures of 10 x 10"):
        buckets_of(BucketConfig(cells=(100,), ratios=(1.0,)), batch_size=32, native_cells=9)


def test_each_sample_is_seen_once_an_epoch_at_its_own_shape() -> None:
    draws = np.random.default_rng(0)
    ratios = np.exp(draws.uniform(math.log(0.4), math.log(2.5), 500))
    plan = made(ratios)
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        batches = [plan.batch(step) for step in steps]
        seen = np.concatenate(batches)
        assert len(set(seen.tolist())) == len(seen)
        assert len(seen) > 500 - 3 * 32  # of each shape less than a batch is left out
        for step, batch in zip(steps, batches, strict=True):
            (rows, columns), count = plan.bucket(step)
            assert len(batch) == count
            wanted = 0.5 if rows > columns else 2.0 if columns > rows else 1.0
            nearest = np.abs(np.log(ratios[batch])[:, None] - np.log([0.5, 1.0, 2.0])).argmin(1)
            assert {(0.5, 1.0, 2.0)[place] for place in nearest} == {wanted}
    sizes = {plan.bucket(step).grid for step in range(plan.steps_per_epoch)}
    assert {(3, 3), (4, 4), (2, 4), (4, 2)} <= sizes
    both = [plan.batch(step) for step in (1, plan.steps_per_epoch + 1)]
    assert len(both[0]) != len(both[1]) or not np.array_equal(both[0], both[1])


def test_a_step_is_a_function_of_its_number() -> None:
    ratios = np.exp(np.random.default_rng(1).normal(0, 0.4, 300))
    one, other = made(ratios), made(ratios)
    steps = [0, 5, 2 * one.steps_per_epoch + 1, 3, one.steps_per_epoch]
    found = {step: one.batch(step) for step in steps}
    for step in reversed(steps):
        assert np.array_equal(other.batch(step), found[step])
        assert other.bucket(step) == one.bucket(step)
    counts = [len(one.batch(step)) for step in range(2 * one.steps_per_epoch + 3)]
    assert [one.samples(step) for step in range(len(counts) + 1)] == np.cumsum([0, *counts]).tolist()
    assert any(not np.array_equal(made(ratios, seed=4).batch(step), one.batch(step)) for step in range(3))


def test_threads_may_ask_for_any_step_at_once() -> None:
    ratios = np.exp(np.random.default_rng(1).normal(0, 0.4, 300))
    plan, other = made(ratios), made(ratios)
    steps = list(range(3 * plan.steps_per_epoch)) * 20
    np.random.default_rng(0).shuffle(steps)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda step: (plan.batch(step), plan.bucket(step), plan.samples(step)), steps))
    for step, (batch, bucket, samples) in zip(steps, found, strict=True):
        assert len(batch) == bucket.pictures
        assert np.array_equal(batch, other.batch(step))
        assert samples == other.samples(step)
    with pytest.raises(ConfigError, match="0 or more"):
        plan.batch(-1)


def test_a_rare_shape_goes_with_the_nearest() -> None:
    ratios = np.array([1.0] * 64 + [2.0] * 3)
    plan = made(ratios)
    seen = np.concatenate([plan.batch(step) for step in range(20 * plan.steps_per_epoch)])
    assert set(seen.tolist()) == set(range(67))
    with pytest.raises(DataError, match="less than one batch of 32"):
        made(np.ones(20))
    assert made(np.array([0.5, 1.0, 2.0] * 12)).steps_per_epoch == 1  # each too rare: all go to one


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cells": (0,)}, "positive cells"),
        ({"cells": (9, 9)}, "stands twice"),
        ({"ratios": ()}, "widths over heights"),
        ({"ratios": (0.0,)}, "widths over heights"),
        ({"tokens": -1}, "positive cells"),
    ],
)
def test_what_cannot_be_is_said(wrong: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BucketConfig(**wrong)
