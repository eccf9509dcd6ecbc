import math
from itertools import permutations

import numpy as np
import pytest

from eyesmith.lab.answers.ranks import average_ranks, correlate, correlate_within, kendall, spearman


def slow_kendall(one, two):
    agree = disagree = ties_one = ties_two = 0
    for i in range(len(one)):
        for j in range(i):
            a, b = one[i] - one[j], two[i] - two[j]
            agree += a * b > 0
            disagree += a * b < 0
            ties_one += a == 0
            ties_two += b == 0
    pairs = len(one) * (len(one) - 1) / 2
    return (agree - disagree) / math.sqrt((pairs - ties_one) * (pairs - ties_two))


@pytest.mark.parametrize("seed", range(5))
def test_coefficients_are_scipys(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(seed)
    one, two = generator.integers(0, 6, 12).astype(float), generator.normal(size=12)
    assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic)
    assert kendall(one, two) == pytest.approx(stats.kendalltau(one, two).statistic)
    assert kendall(one, two) == pytest.approx(slow_kendall(one, two))
    np.testing.assert_array_equal(average_ranks(one), stats.rankdata(one))


def test_p_counts_every_order() -> None:
    one, two = np.array([1.0, 3.0, 2.0, 4.0, 5.0]), np.arange(5.0)
    found = correlate(one, two, one[None])
    values = [float(spearman(np.array(order), two)) for order in permutations(one)]
    assert found.spearman_p == sum(value >= found.spearman.value - 1e-9 for value in values) / 120
    assert found.is_exact
    assert correlate(two, two, two[None]).spearman_p == 1 / 120
    assert correlate(two, -two, two[None]).spearman_p == 1.0


def test_many_pairs_are_tried_at_random() -> None:
    values = np.arange(24.0)
    found = correlate(values, values, values[None])
    assert not found.is_exact
    assert found.spearman_p == pytest.approx(1 / 10_001)
    assert found.spearman.value == 1


def test_within_blocks_families_move_together() -> None:
    up, other = np.arange(4.0), np.array([0.0, 2.0, 1.0, 3.0])
    draws = np.stack([up, other])
    blocks = [(up, up, draws), (10 + up, up, draws)]
    found = correlate_within(blocks, is_aligned=True)
    assert found.spearman.value == pytest.approx(1)
    assert found.spearman_p == 1 / 24  # one order of four fits both blocks
    assert found.spearman.low == pytest.approx(0.8, abs=0.02)
    mixed = correlate_within(blocks, is_aligned=False)
    assert mixed.spearman_p == pytest.approx(1 / 24**2, abs=1e-3)


def test_equal_values_have_no_rank() -> None:
    flat = np.ones(4)
    found = correlate(flat, np.arange(4.0), flat[None])
    assert math.isnan(found.spearman.value)
    assert found.spearman_p == 1
    assert math.isnan(found.spearman.low)
