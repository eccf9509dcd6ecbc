"""What repeated training and a finite test set leave unsure: every number of the lab as a value with random draws.

Two things vary, and are drawn apart.
- The seed: residuals of the seeds about their mean, divided by sqrt(p (1 - p)) so that easy and hard settings are
  comparable and multiplied by sqrt(k / (k - 1)) for the mean that was taken off, are pooled over all settings (two
  seeds a setting say little, forty together much) and drawn with replacement, k for a mean of k. A setting with one
  seed borrows the others' residuals. Source: Efron and Tibshirani 1993, ch. 9, for drawing residuals.
- The test set: where the cells left the rank of every query (lab.queries), queries are drawn with replacement, the same
  for all encoders, so that differences hold what two encoders have in common. Without them a binomial draw of the n
  queries, independent between settings in a difference and in step in a mean over settings: both err on the wide side.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyesmith.lab.queries import read_ranks
from eyesmith.lab.result import CellResult

NUM_DRAWS = 2000
Floats = NDArray[np.float64]


class Setting(NamedTuple):
    """What is trained with several seeds."""

    encoder: str
    size: str
    level: int
    recipe: str
    data: str


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Which number of a cell is looked at, as result files name it."""

    split: str
    metric: str = "acc1"
    task: str = "zero_shot"


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """A value with random deviations from it [NUM_DRAWS], by seeds and by the test set.

    is_joint: whether the test set's deviations belong to the same queries in every `Spread`.
    """

    value: float
    by_training: Floats
    by_test: Floats
    is_joint: bool = False

    @property
    def draws(self) -> Floats:
        """The value as it might have come out."""
        return self.value + self.by_training + self.by_test

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval, which holds the value."""
        return min(_quantile(self.draws, 0.025), self.value)

    @property
    def high(self) -> float:
        """The upper end."""
        return max(_quantile(self.draws, 0.975), self.value)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below zero, 0 where it holds zero."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def minus(self, other: "Spread") -> "Spread":
        """The difference, trained independently of each other."""
        return Spread(
            value=self.value - other.value,
            by_training=self.by_training - other.by_training,
            by_test=self.by_test - other.by_test,
            is_joint=self.is_joint and other.is_joint,
        )


def _quantile(draws: Floats, share: float) -> float:
    """Of the draws that are numbers; NaN where none is (a rank correlation of equal values)."""
    known = draws[np.isfinite(draws)]
    return float(np.quantile(known, share)) if len(known) else math.nan


def mean_spread(spreads: Sequence[Spread]) -> Spread:
    """The mean of values trained independently; needs one at least."""
    tests = np.stack([one.by_test for one in spreads])
    is_joint = all(one.is_joint for one in spreads)
    if not is_joint:  # the same queries, but not known how: as far from their mean as they can go together
        tests = random("in step", len(spreads)).permuted(np.sort(tests, axis=1).mean(0)[None], axis=1)
    return Spread(
        value=_mean(one.value for one in spreads),
        by_training=np.mean([one.by_training for one in spreads], axis=0),
        by_test=tests.mean(0),
        is_joint=is_joint,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Point(Spread):
    """One setting: the mean over its seeds. n: queries of the test set; chance: where the metric has one."""

    setting: Setting
    family: str
    paper: str
    samples: int
    parameters: int
    gmacs: float
    train_s: float
    by_seed: Mapping[int, float]
    n: int
    chance: float | None
    hits: Floats | None
    """[n], the share of seeds that answer each query rightly; None where that is not known."""

    @property
    def low(self) -> float:
        """As any value's, not below 0."""
        return max(super().low, 0.0)

    @property
    def high(self) -> float:
        """As any value's, not above 1."""
        return min(super().high, 1.0)


def points_of(cells: Iterable[CellResult], metric: Metric) -> dict[Setting, Point]:
    """All settings of the cells that have the metric, in the order of the cells."""
    groups: dict[Setting, list[CellResult]] = {}
    for cell in cells:
        if has(cell, metric):
            setting = Setting(cell.encoder, cell.size, cell.level, cell.recipe, cell.data)
            groups.setdefault(setting, []).append(cell)
    by_seed = {
        setting: {cell.seed: cell.value(metric.split, metric.metric, metric.task) for cell in members}
        for setting, members in groups.items()
    }
    numbers = {
        setting: members[0].row(metric.split, metric.metric, metric.task).n for setting, members in groups.items()
    }
    pool = pooled_residuals(
        [(list(values.values()), _mean(values.values())) for setting, values in by_seed.items()],
        [numbers[setting] for setting in by_seed],
    )
    found = {}
    for setting, members in groups.items():
        row = members[0].row(metric.split, metric.metric, metric.task)
        value = _mean(by_seed[setting].values())
        hits = _hits(members, metric, value)
        found[setting] = Point(
            value=value,
            by_training=seed_draws(value, len(by_seed[setting]), row.n, pool, random(setting, metric)),
            by_test=test_draws(value, row.n, hits, random("test", setting, metric)),
            is_joint=hits is not None,
            setting=setting,
            family=members[0].family,
            paper=members[0].paper,
            samples=round(_mean(cell.samples for cell in members)),
            parameters=members[0].parameters,
            gmacs=members[0].gmacs,
            train_s=_mean(cell.train_s for cell in members),
            by_seed=by_seed[setting],
            n=row.n,
            chance=row.chance,
            hits=hits,
        )
    return found


def _hits(members: Sequence[CellResult], metric: Metric, value: float) -> Floats | None:
    """Mean over seeds of who was answered rightly; None where a cell kept no ranks or they do not give its value."""
    if metric.task != "zero_shot" or not metric.metric.startswith("acc"):
        return None
    found = [read_ranks(cell.folder, metric.split) for cell in members]
    known = [ranks for ranks in found if ranks is not None]
    if len(known) < len(found) or len({len(ranks) for ranks in known}) != 1:
        return None
    hits = np.mean([ranks < int(metric.metric[3:]) for ranks in known], axis=0)
    return hits if abs(float(hits.mean()) - value) < 1e-6 else None


def has(cell: CellResult, metric: Metric) -> bool:
    """Whether the cell was measured by the metric."""
    return any((row.task, row.split, row.metric) == (metric.task, metric.split, metric.metric) for row in cell.rows)


def metrics_of(cells: Iterable[CellResult]) -> list[Metric]:
    """Every metric that some cell has, in the order of their result rows."""
    keys = dict.fromkeys((row.split, row.metric, row.task) for cell in cells for row in cell.rows)
    return [Metric(split=split, metric=metric, task=task) for split, metric, task in keys]


def pooled_residuals(groups: Sequence[tuple[Sequence[float], float]], numbers: Sequence[int]) -> Floats:
    """Residuals of (values by seed, scale's share p) in units of sqrt(p (1 - p)); groups of one value have none."""
    pool: list[float] = []
    for (values, share), n in zip(groups, numbers, strict=True):
        if len(values) > 1:
            centre, factor = _mean(values), math.sqrt(len(values) / (len(values) - 1))
            pool += [factor * (value - centre) / deviation(share, n) for value in values]
    return np.array(pool)


def deviation(share: float, n: int) -> float:
    """sqrt(p (1 - p)), with p kept half a query away from 0 and 1."""
    edge = 0.5 / max(n, 1)
    share = min(max(share, edge), 1 - edge)
    return math.sqrt(share * (1 - share))


def seed_draws(share: float, num_seeds: int, n: int, pool: Floats, generator: np.random.Generator) -> Floats:
    """[NUM_DRAWS] deviations of a mean over `num_seeds` seeds; zeros where no setting has two seeds."""
    if not len(pool):
        return np.zeros(NUM_DRAWS)
    picked = pool[generator.integers(len(pool), size=(NUM_DRAWS, num_seeds))]
    return deviation(share, n) * picked.mean(1)


def test_draws(share: float, n: int, hits: Floats | None, generator: np.random.Generator) -> Floats:
    """[NUM_DRAWS] deviations of a share by which n queries happened to be asked.

    Where all are right, or all wrong, drawing them anew says nothing: then the shares that n more queries leave open,
    whose 97.5 % point is Clopper and Pearson's bound (1934), of each setting for itself.
    """
    if hits is not None:
        n, share = len(hits), float(hits.mean())
    if n >= 1 and not 0 < share < 1:
        left_open = generator.beta(1, n, NUM_DRAWS)
        return left_open if share <= 0 else -left_open
    if hits is not None:
        return _query_counts(len(hits)) @ (hits - hits.mean()) / len(hits)
    if n < 1:
        return np.zeros(NUM_DRAWS)
    return generator.binomial(n, share, NUM_DRAWS) / n - share


@lru_cache(maxsize=4)
def _query_counts(n: int) -> Floats:
    """[NUM_DRAWS, n], how often each query is drawn; the same for all that answer n queries."""
    return random("queries", n).multinomial(n, np.full(n, 1 / n), size=NUM_DRAWS).astype(float)


def random(*names: object) -> np.random.Generator:
    """Random numbers that depend on the names alone, so that no answer depends on what else is looked at."""
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
