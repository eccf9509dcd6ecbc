"""Bootstrap intervals of any metric that is a function of weighted samples, over samples or over classes.

A resample is a vector of counts, how often each sample was drawn; a metric takes a whole block of such vectors. Samples
that no metric can tell apart (same class, same outcome) are one unit with a multiplicity, and the counts of units are a
multinomial draw: 2,000 resamples of 50,000 right-or-wrong answers cost milliseconds. scipy.stats.bootstrap draws every
sample of every resample (other numbers for a seed, seconds and gigabytes for these), and knows no whole classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.statistics.metrics import wilson_interval

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Over = Literal["samples", "classes"]

Metric = Callable[[Floats, Floats, Codes, Floats | None], Floats]
"""weights [R, U], values [U], groups [U] ascending, draws -> [R], one number a row of weights.

draws: [R, G], how often each group was drawn where whole groups were, so that a mean over groups counts it as often.
"""

_BLOCK = 1 << 22  # weights held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with a two-sided interval: percentiles of the resampled values."""

    value: float
    low: float
    high: float


def mean(weights: Floats, values: Floats, groups: Codes, draws: Floats | None = None) -> Floats:
    """Weighted mean of the values: accuracy where they are 0 or 1. Groups do not matter."""
    return weights @ values / weights.sum(1)


def group_mean(weights: Floats, values: Floats, groups: Codes, draws: Floats | None = None) -> Floats:
    """Mean over groups of the mean in each group; of classes: mean per-class recall. Groups not drawn do not count."""
    return _over_groups(_rates(weights, values, groups), draws)


def worst_group(weights: Floats, values: Floats, groups: Codes, draws: Floats | None = None) -> Floats:
    """The smallest mean of a group. Groups not drawn do not count."""
    return np.nanmin(_rates(weights, values, groups), axis=1)


def f1_macro(weights: Floats, values: Floats, groups: Codes, draws: Floats | None = None) -> Floats:
    """Mean over the classes present in the truth of the F1 score. values: predicted class, groups: true class."""
    starts = _starts(groups)
    present = groups[starts]
    support = np.add.reduceat(weights, starts, axis=1)  # [R, G]
    hits = np.add.reduceat(weights * (values == groups), starts, axis=1)
    order = np.argsort(values, kind="stable")
    firsts = _starts(values[order])
    predicted = np.zeros_like(support)
    sums = np.add.reduceat(weights[:, order], firsts, axis=1)
    guesses = values[order][firsts]
    _, of_class, of_guess = np.intersect1d(present, guesses, assume_unique=True, return_indices=True)
    predicted[:, of_class] = sums[:, of_guess]
    with np.errstate(invalid="ignore"):
        scores = np.where(support > 0, 2 * hits / (support + predicted), np.nan)
    return _over_groups(scores, draws)


def bootstrap_interval(
    values: Tensor | ArrayLike,
    *,
    metric: Metric = mean,
    groups: Tensor | ArrayLike | None = None,
    over: Over = "samples",
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The metric of `values` [N] with its percentile interval.

    groups: [N] integers, the class (or region, ...) of each sample; None: all samples are one group, or, with `over`
    "classes", an error. over: what another draw of the data would draw anew: "samples", or whole "classes" with all
    their samples (would the number hold for other classes of this kind?). level: of the interval, between 0 and 1.
    Equal seeds give equal intervals. A metric at its bound in every resample gives an interval of width 0, which
    `bounded` widens: for plain accuracy near 0 or 1 prefer `eyesmith.eval.wilson_interval`.
    Raises ShapeError or DataError for values that are empty, not finite, or of another shape than groups.
    Source: Efron and Tibshirani 1993, chapter 13 (percentile), chapter 8.3 (resampling whole groups).
    """
    columns = as_columns(values, "values")
    if columns.shape[1] != 1:
        raise ShapeError(f"bootstrap_interval: expected values [N], got {list(columns.shape)}")
    drawn = resampled(columns, metric=metric, groups=groups, over=over, replicates=replicates, seed=seed)
    low, high = percentiles(drawn[:, 0], level)
    return Interval(float(evaluate_metric(columns, metric, groups)[0]), low, high)


def bounded(
    found: Interval, metric: Metric, count: float, groups: Tensor | ArrayLike | None = None
) -> tuple[float, float]:
    """Low and high of a percentile interval; of one without width at 0 or 1 Wilson's instead, of as many independent
    answers as the statistic stands for, because drawing anew says nothing of how sure that is.

    count: samples, of a mean also what it stands for; groups: as `bootstrap_interval` takes them. A mean over G groups
    of n_1 .. n_G samples has the variance of G^2 / (1/n_1 + .. + 1/n_G) samples together; the worst group counts as the
    smallest.
    """
    if found.low != found.high or found.low != found.value or found.value not in (0, 1):
        return found.low, found.high
    trials = float(count)
    if groups is not None and metric is not mean:
        sizes = np.unique(as_groups(groups, int(count)), return_counts=True)[1]
        trials = float(sizes.min()) if metric is worst_group else len(sizes) ** 2 / float((1 / sizes).sum())
    return wilson_interval(found.value * trials, trials)


def evaluate_metric(values: Tensor | ArrayLike, metric: Metric, groups: Tensor | ArrayLike | None = None) -> Floats:
    """The metric of each column of values [N] or [N, M], on the samples as they are -> [M]."""
    columns = as_columns(values, "values")
    units = _Units(columns, as_groups(groups, len(columns)))
    return np.array(
        [metric(units.counts[None].astype(float), column, units.groups, None)[0] for column in units.values.T]
    )


def resampled(
    values: Tensor | ArrayLike,
    *,
    metric: Metric = mean,
    groups: Tensor | ArrayLike | None = None,
    over: Over = "samples",
    replicates: int = 2000,
    seed: int = 0,
) -> Floats:
    """The metric of each column of values [N, M] on `replicates` resamples -> [R, M]; all columns see the same ones.

    So the difference of two columns is a paired bootstrap. Other arguments and errors: `bootstrap_interval`.
    """
    columns = as_columns(values, "values")
    if replicates < 1:
        raise ConfigError(f"replicates: expected at least 1, got {replicates}")
    if over not in ("samples", "classes"):
        raise ConfigError(f"over: expected samples or classes, got {over!r}")
    if over == "classes" and groups is None:
        raise ConfigError("over='classes' needs groups: the class of each sample")
    units = _Units(columns, as_groups(groups, len(columns)))
    rng = np.random.default_rng(seed)
    parts = []
    for rows in _blocks(replicates, len(units.counts)):
        weights, draws = units.draw_samples(rng, rows) if over == "samples" else units.draw_groups(rng, rows)
        parts.append(np.stack([metric(weights, column, units.groups, draws) for column in units.values.T], axis=1))
    return np.concatenate(parts)  # [R, M]


def percentiles(drawn: Floats, level: float = 0.95) -> tuple[float, float]:
    """The central interval that holds `level` of the numbers `drawn` [R]; undefined ones (NaN) are left out."""
    if not 0 < level < 1:
        raise ConfigError(f"level: expected a number between 0 and 1, got {level}")
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def as_columns(values: Tensor | ArrayLike, name: str) -> Floats:
    """values [N] or [N, M] as float64 [N, M]. Raises ShapeError when empty or of another rank, DataError for NaN."""
    array = _numpy(values).astype(np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size:
        raise ShapeError(f"{name}: expected [N] or [N, M] with N above 0, got {list(array.shape)}")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(1)))
        raise DataError(f"{name}: row {row} is not finite (NaN or infinity)")
    return array


def as_groups(groups: Tensor | ArrayLike | None, count: int) -> Codes:
    """groups as int64 [N]; None: one group. Raises ShapeError for another shape or type."""
    if groups is None:
        return np.zeros(count, dtype=np.int64)
    array = _numpy(groups)
    if array.shape != (count,) or array.dtype.kind not in "iub":
        raise ShapeError(f"groups: expected [{count}] integers, got {list(array.shape)} {array.dtype}")
    return array.astype(np.int64)


class _Units:
    """Samples with one group and equal values, counted. values [U, M], groups [U] ascending, counts [U]."""

    def __init__(self, columns: Floats, groups: Codes) -> None:
        rows = np.column_stack([groups.astype(np.float64), columns])  # class numbers are exact in float64
        distinct, counts = np.unique(rows, axis=0, return_counts=True)
        self.groups = distinct[:, 0].astype(np.int64)
        self.values = distinct[:, 1:]
        self.counts = counts
        self.total = int(counts.sum())
        _, self._group_of_unit = np.unique(self.groups, return_inverse=True)

    def draw_samples(self, rng: np.random.Generator, rows: int) -> tuple[Floats, None]:
        """How often each unit comes among N samples drawn with replacement, [rows, U]."""
        if 4 * len(self.counts) < self.total:
            return rng.multinomial(self.total, self.counts / self.total, size=rows).astype(np.float64), None
        unit_of_sample = np.repeat(np.arange(len(self.counts)), self.counts)
        return self._counted(unit_of_sample[rng.integers(0, self.total, (rows, self.total))], len(self.counts)), None

    def draw_groups(self, rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
        """The same when whole groups are drawn, as many as there are; and how often each was, [rows, G]."""
        number = int(self._group_of_unit[-1]) + 1
        draws = self._counted(rng.integers(0, number, (rows, number)), number)
        return draws[:, self._group_of_unit] * self.counts, draws

    @staticmethod
    def _counted(codes: NDArray[Any], number: int) -> Floats:
        flat = codes + np.arange(len(codes))[:, None] * number
        return np.bincount(flat.reshape(-1), minlength=len(codes) * number).reshape(len(codes), number).astype(float)


def _rates(weights: Floats, values: Floats, groups: Codes) -> Floats:
    starts = _starts(groups)
    drawn = np.add.reduceat(weights, starts, axis=1)  # [R, G]
    sums = np.add.reduceat(weights * values, starts, axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(drawn > 0, sums / drawn, np.nan)


def _over_groups(rates: Floats, draws: Floats | None) -> Floats:
    if draws is None:
        return np.nanmean(rates, axis=1)
    return (np.nan_to_num(rates) * draws).sum(1) / draws.sum(1)


def _starts(ordered: NDArray[Any]) -> Codes:
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _blocks(total: int, width: int) -> Iterator[int]:
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, total, step):
        yield min(step, total - start)


def _numpy(values: Tensor | ArrayLike | Sequence[float]) -> NDArray[Any]:
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)
