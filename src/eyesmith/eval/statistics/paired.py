"""Is model B better than model A on the same samples? Paired intervals, exact and permutation tests, many tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.eval.statistics.bootstrap import (
    Floats,
    Interval,
    Metric,
    Over,
    as_columns,
    as_groups,
    evaluate_metric,
    mean,
    percentiles,
    resampled,
)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Samples that one model alone gets right, and the two-sided p-value of the difference being chance."""

    only_left: int
    only_right: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Paired:
    """right - left of one metric. p: McNemar's exact test for means of 0 and 1, else a permutation test (`test`)."""

    left: float
    right: float
    difference: Interval
    p: float
    test: str
    n: int


def mcnemar_exact(left: Tensor | ArrayLike, right: Tensor | ArrayLike) -> McNemar:
    """Exact two-sided McNemar test of two models' right-or-wrong answers, [N] each, to the same samples.

    Only the samples on which they differ say anything; if the models were equally good, each of these would be a fair
    coin, so p is the binomial probability of a split at least as uneven; 1 when they never differ.
    Source: McNemar 1947, in its exact binomial form.
    """
    from scipy.stats import binomtest

    pair = _pair(left, right)
    if not np.isin(pair, (0, 1)).all():
        raise ShapeError("mcnemar_exact: expected right-or-wrong answers (0 or 1); permutation_test takes any values")
    only_left = int(((pair[:, 0] == 1) & (pair[:, 1] == 0)).sum())
    only_right = int(((pair[:, 0] == 0) & (pair[:, 1] == 1)).sum())
    split = only_left + only_right
    return McNemar(only_left, only_right, float(binomtest(only_left, split).pvalue) if split else 1.0)


def permutation_test(
    left: Tensor | ArrayLike,
    right: Tensor | ArrayLike,
    *,
    metric: Metric = mean,
    groups: Tensor | ArrayLike | None = None,
    rounds: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of the difference of any metric, under the names of the two models swapped at random.

    left, right: values [N] of the same samples; metric, groups: as `bootstrap_interval` takes them. Each round swaps
    each sample's two answers with probability 1/2; p = (1 + rounds at least as far from 0) / (1 + rounds), so it is
    never 0. Equal seeds give equal numbers. Not scipy.stats.permutation_test: it draws each sample of each round, where
    equal answers of one group need one number together.
    """
    if rounds < 1:
        raise ConfigError(f"rounds: expected at least 1, got {rounds}")
    pair, codes = _pair(left, right), as_groups(groups, len(left))  # type: ignore[arg-type]
    rows, counts = np.unique(np.column_stack([codes, pair]), axis=0, return_counts=True)  # [U, 3]
    # a unit's answers stand twice, as those of the left and of the right model; swapping moves weight between them
    order = np.argsort(np.r_[rows[:, 0], rows[:, 0]], kind="stable")
    values, place = np.r_[rows[:, 1], rows[:, 2]][order], np.r_[rows[:, 0], rows[:, 0]].astype(np.int64)[order]

    def difference(swapped: Floats) -> Floats:
        kept = counts - swapped
        one = np.concatenate([kept, swapped], axis=1)[:, order]
        other = np.concatenate([swapped, kept], axis=1)[:, order]
        return metric(other, values, place, None) - metric(one, values, place, None)

    observed = abs(float(difference(np.zeros((1, len(rows))))[0]))
    rng, extreme = np.random.default_rng(seed), 0
    step = max(1, (1 << 21) // len(rows))
    for start in range(0, rounds, step):
        swapped = rng.binomial(counts, 0.5, (min(step, rounds - start), len(rows))).astype(np.float64)
        extreme += int((np.abs(difference(swapped)) >= observed - 1e-12).sum())  # equal but for rounding counts
    return (1 + extreme) / (1 + rounds)


def compare_paired(
    left: Tensor | ArrayLike,
    right: Tensor | ArrayLike,
    *,
    metric: Metric = mean,
    groups: Tensor | ArrayLike | None = None,
    over: Over = "samples",
    replicates: int = 2000,
    rounds: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Paired:
    """right - left with its paired bootstrap interval and p-value; both [N], the same samples in the same order.

    The interval resamples pairs: what is hard for both models cancels, so it is far narrower than two separate ones.
    Arguments as of `bootstrap_interval` and `permutation_test`.
    """
    pair = _pair(left, right)
    before, after = evaluate_metric(pair, metric, groups)
    drawn = resampled(pair, metric=metric, groups=groups, over=over, replicates=replicates, seed=seed)
    low, high = percentiles(drawn[:, 1] - drawn[:, 0], level)
    if metric is mean and np.isin(pair, (0, 1)).all():
        p, test = mcnemar_exact(left, right).p, "mcnemar"
    else:
        p, test = permutation_test(left, right, metric=metric, groups=groups, rounds=rounds, seed=seed), "permutation"
    return Paired(
        left=float(before),
        right=float(after),
        difference=Interval(float(after - before), low, high),
        p=p,
        test=test,
        n=len(pair),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that the chance of any false alarm stays below the level; same order.

    Source: Holm 1979: the i-th smallest of m (from 0) times m - i, made monotone, at most 1.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ConfigError(f"holm: expected p-values from 0 to 1, got {list(p_values)}")
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def _pair(left: Tensor | ArrayLike, right: Tensor | ArrayLike) -> Floats:
    one, other = as_columns(left, "left"), as_columns(right, "right")
    if one.shape != other.shape or one.shape[1] != 1:
        raise ShapeError(
            f"paired comparison: expected two [N] of the same samples, got {list(one.shape[:1])} and "
            f"{list(other.shape[:1])}"
        )
    return np.concatenate([one, other], axis=1)
