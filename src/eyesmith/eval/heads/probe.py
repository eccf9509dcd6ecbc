"""Probes: how good frozen features are when a little labelled data may be used."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads.choose import (
    ALPHA_GRID,
    SHRINKAGE_GRID,
    choose_c,
    choose_mixture,
    draw_shots,
    mixed_logits,
    validation_split,
)
from eyesmith.eval.heads.gaussian import GaussianStatistics
from eyesmith.eval.heads.logistic import check_labelled, fit_logistic
from eyesmith.eval.statistics.bootstrap import (
    Interval,
    Metric,
    bounded,
    evaluate_metric,
    group_mean,
    mean,
    percentiles,
    resampled,
)
from eyesmith.eval.statistics.metrics import similarity, target_ranks, wilson_interval

HeadName = Literal["linear", "gaussian"]
_DEFAULT_C, _DEFAULT_SHRINKAGE, _DEFAULT_ALPHA = 10.0, 0.5, 0.1  # where no sample is left to choose them on


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """features: [N, D] unit rows on the CPU; labels: [N] int64 into names; keys: [N]; name: of the data, for people;
    samples: their fingerprint, "" where nobody says."""

    features: Tensor
    labels: Tensor
    keys: tuple[str, ...]
    names: tuple[str, ...]
    name: str
    samples: str = ""


@dataclass(frozen=True, kw_only=True)
class ZeroShotHead:
    """weights: [K, D] fp32, one unit row a class in the order of the training names; scale: of the model."""

    weights: Tensor
    scale: float

    def __call__(self, features: Tensor) -> Tensor:
        """Logits [N, K] at the model's own scale."""
        return self.scale * similarity(features, self.weights)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One fit. settings: what was chosen (or given), validation: accuracy it was chosen by (None: given, or no sample
    was left for a choice), logits: [N, K] of the test samples."""

    seed: int
    settings: dict[str, float]
    validation: float | None
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """One head at one number of shots (0: all of the training set). values, low, high: by metric, the mean over seeds
    with a 95 % interval over test samples and seeds; n: test samples."""

    head: str
    shots: int
    fits: tuple[Fitted, ...]
    metrics: dict[str, tuple[float, float, float]]
    n: int

    @property
    def label(self) -> str:
        """ "linear", "linear, 4 shots" and so on."""
        return self.head if not self.shots else f"{self.head}, {self.shots} shot{'s' if self.shots > 1 else ''}"


def align(test: Labelled, train: Labelled) -> Labelled:
    """`test` with the labels of `train`: by position where the names are equal, else by name.

    Raises DataError for a class of test images that was not trained, or when names come twice and differ.
    """
    if test.names == train.names:
        return test
    if len(set(train.names)) != len(train.names):
        raise DataError(f"{train.name}: two classes have one name, so those of {test.name} cannot be matched by name")
    place = {name: index for index, name in enumerate(train.names)}
    used = sorted(set(test.labels.tolist()))
    if unknown := [test.names[label] for label in used if test.names[label] not in place]:
        raise DataError(
            f"{test.name}: class {unknown[0]!r} is not among the {len(place)} classes of {train.name} "
            f"({len(unknown)} such classes); the folders must have the same class names"
        )
    mapped = torch.tensor([place.get(name, -1) for name in test.names])
    return replace(test, labels=mapped[test.labels], names=train.names)


def shared_samples(train: Labelled, test: Labelled, *, distance: float = 1e-5) -> list[tuple[str, str]]:
    """Pairs of keys (train, test) of images with equal features: most likely the same picture in both sets.

    distance: that still counts as equal; the bits of a feature depend on the batch it was computed in.
    """
    generator = torch.Generator().manual_seed(0)
    direction = F.normalize(torch.randn(train.features.shape[1], generator=generator, dtype=torch.float64), dim=0)
    one, other = train.features.double(), test.features.double()
    places, order = (one @ direction).sort()  # rows that are near each other are near on any line
    along = other @ direction
    first, last = torch.searchsorted(places, along - distance), torch.searchsorted(places, along + distance)
    found = []
    for row in (last > first).nonzero().flatten().tolist():
        near = order[first[row] : last[row]]
        gaps = (one[near] - other[row]).norm(dim=1)
        if float(gaps.min()) < distance:
            found.append((train.keys[int(near[int(gaps.argmin())])], test.keys[row]))
    return found


def probe(
    train: Labelled,
    test: Labelled,
    *,
    head: HeadName = "linear",
    shots: int = 0,
    seeds: Sequence[int] = (0,),
    zero_shot: ZeroShotHead | None = None,
    c: float | None = None,
    shrinkage: float | None = None,
    alpha: float | None = None,
    device: torch.device | None = None,
    advance: Callable[[int], None] | None = None,
) -> ProbeResult:
    """Fit a head on (a few shots of) `train` for each seed, and measure it on `test`.

    linear: logistic regression; c is chosen on a fifth of the training samples held out by class, then all of them are
    used. gaussian: class means and one shared covariance, mixed with `zero_shot` where given; shrinkage and alpha are
    chosen alike. With shots k, k samples a class are drawn by each seed, and the choice is made on up to min(k, 4)
    others of the training set a class; where none are left, fixed values are used. c, shrinkage, alpha: given instead
    of chosen. seeds: of the draws and the held-out part. device: that fits the
    linear head; where the features are when None. The test samples take part in nothing but the last line.
    Raises DataError for a class without (enough) training samples or a test class that was not trained.
    """
    if head not in get_args(HeadName):
        raise ConfigError(f"head: expected one of {', '.join(get_args(HeadName))}, got {head!r}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds: expected at least one, all different, got {list(seeds)}")
    test, num_classes = align(test, train), len(train.names)
    check_labelled(train.features, train.labels, num_classes, names=train.names)
    check_labelled(test.features, test.labels, num_classes, every_class=False)
    fits: list[Fitted] = []
    for number, seed in enumerate(seeds):
        if head == "linear":
            fits.append(_fit_linear(train, test, shots, seed, c, device))
        else:
            fits.append(_fit_gaussian(train, test, shots, seed, zero_shot, shrinkage, alpha))
        if advance is not None:
            advance(number + 1)
    hits = torch.stack([(target_ranks(fit.logits, test.labels) == 0) for fit in fits], dim=1).double()  # [N, S]
    metrics: dict[str, Metric] = {"acc1": mean, "mean_per_class_recall": group_mean}
    return ProbeResult(
        head=head,
        shots=shots,
        fits=tuple(fits),
        metrics={name: _over_seeds(hits, test.labels, metric) for name, metric in metrics.items()},
        n=len(test.labels),
    )


def _fit_linear(
    train: Labelled, test: Labelled, shots: int, seed: int, c: float | None, device: torch.device | None
) -> Fitted:
    num_classes, validation = len(train.names), None
    part, held = _parts(train, shots, seed)
    if c is None:
        c = _DEFAULT_C
        if len(held):
            chosen = choose_c(_rows(train, _without(part, held)), _rows(train, held), num_classes, device=device)
            c, validation = chosen.value, chosen.accuracy
    fitted = fit_logistic(*_rows(train, part), num_classes, c=c, max_steps=5000, device=device)
    return Fitted(seed=seed, settings={"c": c}, validation=validation, logits=fitted(test.features))


def _fit_gaussian(
    train: Labelled,
    test: Labelled,
    shots: int,
    seed: int,
    zero_shot: ZeroShotHead | None,
    shrinkage: float | None,
    alpha: float | None,
) -> Fitted:
    num_classes, validation = len(train.names), None
    part, held = _parts(train, shots, seed)
    alphas = ALPHA_GRID if alpha is None else (alpha,)
    if zero_shot is None:
        alphas = (math.inf,)
    shrinkages = SHRINKAGE_GRID if shrinkage is None else (shrinkage,)
    if len(held) and len(alphas) * len(shrinkages) > 1:
        statistics = GaussianStatistics(*_rows(train, _without(part, held)), num_classes, uniform_priors=True)
        logits = None if zero_shot is None else zero_shot(train.features[held])
        shrinkage, chosen = choose_mixture(statistics, _rows(train, held), logits, shrinkages=shrinkages, alphas=alphas)
        alpha, validation = chosen.value, chosen.accuracy
    else:
        shrinkage = shrinkages[0] if len(shrinkages) == 1 else _DEFAULT_SHRINKAGE
        alpha = alphas[0] if len(alphas) == 1 else _DEFAULT_ALPHA
    fitted = GaussianStatistics(*_rows(train, part), num_classes, uniform_priors=True).head(shrinkage)
    logits = mixed_logits(fitted, test.features, None if zero_shot is None else zero_shot(test.features), alpha)
    return Fitted(seed=seed, settings={"shrinkage": shrinkage, "alpha": alpha}, validation=validation, logits=logits)


def _parts(train: Labelled, shots: int, seed: int) -> tuple[Tensor, Tensor]:
    """The samples of the final fit, and those settings are chosen on (which are among the former without shots)."""
    if shots:
        return draw_shots(train.labels, len(train.names), shots, seed=seed, names=train.names)
    everything = torch.arange(len(train.labels))
    try:
        return everything, validation_split(train.labels, seed=seed)[1]
    except DataError:  # one sample a class
        return everything, everything[:0]


def _without(part: Tensor, held: Tensor) -> Tensor:
    return part[~torch.isin(part, held)]


def _rows(data: Labelled, rows: Tensor) -> tuple[Tensor, Tensor]:
    return data.features[rows], data.labels[rows]


def _over_seeds(hits: Tensor, labels: Tensor, metric: Metric, replicates: int = 2000) -> tuple[float, float, float]:
    """Mean over seeds and its interval, resampling test samples and seeds: hits [N, S]."""
    value = float(evaluate_metric(hits, metric, labels).mean())
    if metric is mean and bool((hits == hits[:, :1]).all()):  # one seed, or as good as one
        return value, *wilson_interval(float(hits[:, 0].sum()), len(hits))
    drawn = resampled(hits, metric=metric, groups=labels, replicates=replicates)  # [R, S]
    seeds = np.random.default_rng(1).integers(0, drawn.shape[1], drawn.shape)
    low, high = percentiles(np.take_along_axis(drawn, seeds, axis=1).mean(1))
    return value, *bounded(Interval(value, low, high), metric, len(hits), labels)
