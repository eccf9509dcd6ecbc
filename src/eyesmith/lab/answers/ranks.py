"""Rank correlation of two lists: Spearman's rho and Kendall's tau-b, each with a permutation test.

The coefficients are computed for a whole block of draws at once; scipy.stats.kendalltau takes one list at a time.
"""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from eyesmith.lab.answers.spread import Floats, Spread, random

MOST_EXACT = 7  # 5,040 orders; above, so many random ones:
NUM_RANDOM = 10_000


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """n: pairs. p: the share of all re-orderings that agree at least as well; is_exact: whether all were tried.

    Undefined coefficients (a constant list) are NaN.
    """

    n: int
    spearman: Spread
    kendall: Spread
    spearman_p: float
    kendall_p: float
    is_exact: bool


def average_ranks(values: Floats) -> Floats:
    """Ranks from 1 along the last axis [..., N], ties share their mean rank."""
    from scipy.stats import rankdata

    return rankdata(values, axis=-1)


def spearman(one: Floats, two: Floats) -> Floats:
    """Pearson's correlation of the average ranks, over the last axis; NaN where a list is constant."""
    return _pearson(average_ranks(one), average_ranks(two))


def _pearson(x: Floats, y: Floats) -> Floats:
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    return _ratio((x * y).sum(-1), np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def kendall(one: Floats, two: Floats) -> Floats:
    """tau-b (Kendall 1945, ties taken off the number of pairs), over the last axis."""
    a, b = np.triu_indices(one.shape[-1], 1)
    x, y = np.sign(one[..., a] - one[..., b]), np.sign(two[..., a] - two[..., b])
    return _ratio((x * y).sum(-1), np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def spearman_two_sided(one: Floats, two: Floats) -> tuple[float, float]:
    """rho of two lists [N] and the share of re-orderings at least as far from 0; (NaN, 1) for a constant list."""
    rho = float(spearman(one, two))
    return rho, _share(np.abs(_shuffled("spearman", one, two, _orders(len(one))[0])), abs(rho))


def correlate(ours: Floats, theirs: Floats, draws: Floats) -> Correlation:
    """ours, theirs: [N], N >= 2; draws: [R, N] of ours, for the intervals. p is one-sided: as well or better."""
    n = len(ours)
    orders, is_exact = _orders(n)
    values = {name: coefficient(ours, theirs) for name, coefficient in _COEFFICIENTS.items()}
    p = {name: _share(_shuffled(name, ours, theirs, orders), values[name]) for name in _COEFFICIENTS}
    spreads = {
        name: _spread(float(values[name]), coefficient(draws, theirs)) for name, coefficient in _COEFFICIENTS.items()
    }
    return Correlation(
        n=n,
        spearman=spreads["spearman"],
        kendall=spreads["kendall"],
        spearman_p=p["spearman"],
        kendall_p=p["kendall"],
        is_exact=is_exact,
    )


def correlate_within(blocks: list[tuple[Floats, Floats, Floats]], *, is_aligned: bool) -> Correlation:
    """The mean of the coefficients of blocks (ours, theirs, draws), each of two pairs or more.

    is_aligned: whether column i is the same family in all blocks. Then p re-orders the columns of all blocks together
    (a family's results in several blocks are no independent trials), else those of each block for itself at random.
    """
    coefficients = {}
    orders, is_exact = _orders(len(blocks[0][0])) if is_aligned else (None, False)
    for name, coefficient in _COEFFICIENTS.items():
        value = float(np.mean([coefficient(ours, theirs) for ours, theirs, _ in blocks]))
        draws = np.mean([coefficient(drawn, theirs) for _, theirs, drawn in blocks], axis=0)
        shuffled = [
            _shuffled(name, ours, theirs, orders if orders is not None else _random_orders(len(ours), place))
            for place, (ours, theirs, _) in enumerate(blocks)
        ]
        coefficients[name] = (_spread(value, draws), _share(np.mean(shuffled, axis=0), value))
    return Correlation(
        n=sum(len(ours) for ours, _, _ in blocks),
        spearman=coefficients["spearman"][0],
        kendall=coefficients["kendall"][0],
        spearman_p=coefficients["spearman"][1],
        kendall_p=coefficients["kendall"][1],
        is_exact=is_exact,
    )


_COEFFICIENTS = {"spearman": spearman, "kendall": kendall}


def _shuffled(name: str, ours: Floats, theirs: Floats, orders: NDArray[np.intp]) -> Floats:
    """The coefficient of every re-ordering [M]; ranks are taken once, as they move with their values."""
    x, y = average_ranks(ours), average_ranks(theirs)
    return _pearson(x[orders], y) if name == "spearman" else kendall(x[orders], y)


def _spread(value: float, draws: Floats) -> Spread:
    return Spread(value=value, by_training=draws - value, by_test=np.zeros(len(draws)))


def _orders(n: int) -> tuple[NDArray[np.intp], bool]:
    """[M, n] re-orderings, the given order among them; whether these are all."""
    if n <= MOST_EXACT:
        return np.array(list(permutations(range(n)))), True
    return _random_orders(n, 0), False


def _random_orders(n: int, place: int) -> NDArray[np.intp]:
    shuffled = random("orders", n, place).permuted(np.tile(np.arange(n), (NUM_RANDOM, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], shuffled])


def _share(shuffled: Floats, value: Floats | float) -> float:
    """Of the re-orderings that reach the value; 1 where there is none."""
    if math.isnan(float(value)):
        return 1.0
    return float(np.mean(np.nan_to_num(shuffled, nan=-1.0) >= float(value) - 1e-12))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) > 0)
