import itertools

import numpy as np
import pytest
from scipy import stats

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.eval.statistics import compare_paired, f1_macro, group_mean, holm, mcnemar_exact, permutation_test

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (12, 12), (40, 71), (900, 1100)])
def test_mcnemar_is_the_two_sided_binomial_test(b, c):
    left = np.r_[np.ones(b), np.zeros(c), np.ones(50), np.zeros(20)]
    right = np.r_[np.zeros(b), np.ones(c), np.ones(50), np.zeros(20)]
    found = mcnemar_exact(left, right)
    assert (found.only_left, found.only_right) == (b, c)
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_permutation_of_a_mean_equals_all_swaps():
    left, right = RNG.random(9), RNG.random(9) + 0.2
    gap = abs((right - left).mean())
    signs = np.array(list(itertools.product([1, -1], repeat=9)))
    exact = np.mean(np.abs((signs * (right - left)).mean(1)) >= gap - 1e-12)
    assert permutation_test(left, right, rounds=20_000) == pytest.approx(exact, abs=0.01)


def test_permutation_of_other_metrics_equals_a_slow_loop():
    labels = RNG.integers(0, 4, 60)
    guesses = [np.where(RNG.random(60) < share, labels, RNG.integers(0, 4, 60)) for share in (0.4, 0.7)]
    hits = [(guess == labels).astype(float) for guess in guesses]

    def recall(values):
        return np.mean([values[labels == k].mean() for k in range(4)])

    def macro(values):
        scores = []
        for k in range(4):
            both = ((values == k) & (labels == k)).sum()
            scores.append(2 * both / ((values == k).sum() + (labels == k).sum()))
        return np.mean(scores)

    for metric, slow, pair in ((group_mean, recall, hits), (f1_macro, macro, guesses)):
        observed, rng = abs(slow(pair[1]) - slow(pair[0])), np.random.default_rng(1)
        extreme = 0
        for _ in range(1000):
            swap = rng.random(60) < 0.5
            one, other = np.where(swap, pair[1], pair[0]), np.where(swap, pair[0], pair[1])
            extreme += abs(slow(other) - slow(one)) >= observed - 1e-12
        p = permutation_test(pair[0], pair[1], metric=metric, groups=labels, rounds=4000)
        assert p == pytest.approx(extreme / 1000, abs=0.04)


def test_comparison_is_right_minus_left_and_pairs_narrow_the_interval():
    hard = RNG.random(2000)
    left, right = (hard < 0.60).astype(float), (hard < 0.63).astype(float)  # right solves what left solves, and more
    found = compare_paired(left, right)
    assert found.difference.value == pytest.approx(right.mean() - left.mean())
    assert found.left == pytest.approx(left.mean())
    assert found.test == "mcnemar"
    assert found.p < 1e-6
    assert 0 < found.difference.low < found.difference.high
    assert found.difference.high - found.difference.low < 0.02  # two separate intervals would give about 0.06
    reverse = compare_paired(right, left)
    assert reverse.p == found.p
    assert reverse.difference.value == -found.difference.value


def test_equal_models_are_not_told_apart():
    values = RNG.random(100)
    found = compare_paired(values, values)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.p, found.test) == (1, "permutation")


def test_holm_keeps_the_order_and_is_monotone():
    # worked by hand: sorted 0.01 0.02 0.03 0.04, times 4 3 2 1 = 0.04 0.06 0.06 0.04 -> 0.04 0.06 0.06 0.06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    with pytest.raises(ConfigError):
        holm([1.2])


def test_wrong_pairs_are_named():
    with pytest.raises(ShapeError, match=r"\[2\] and \[3\]"):
        compare_paired([0, 1], [0, 1, 1])
    with pytest.raises(ShapeError, match="right-or-wrong"):
        mcnemar_exact([0.5, 1], [0, 1])
    with pytest.raises(ConfigError, match="rounds"):
        permutation_test([0, 1], [1, 1], rounds=0)
