"""Do probabilities mean what they say? Reliability tables, expected calibration error, the temperature that fits."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.statistics.metrics import check_finite

Bins = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class Bin:
    """Samples whose confidence lies in low..high: how many, their mean confidence, and the share that is right.

    confidence and accuracy are 0 for an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """error: expected calibration error, in 0..1; negative_log_likelihood: nats a sample; brier: in 0..2."""

    error: float
    negative_log_likelihood: float
    brier: float
    bins: tuple[Bin, ...]


def reliability(confidence: Tensor, correct: Tensor, *, bins: int = 15, kind: Bins = "width") -> tuple[Bin, ...]:
    """The reliability table: confidence [N] in 0..1 against correct [N] (0 or 1).

    kind "width": bins of equal width, half open on the left, (low, high], 0 in the first. "mass": as many samples in
    each as possible (they differ by one at most, samples of equal confidence in the order given), at most N bins.
    Raises ShapeError, ConfigError or DataError for wrong shapes, numbers of bins, confidences.
    """
    _check(confidence, correct, bins)
    confidence, correct = confidence.double(), correct.double()
    if kind == "width":
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        place = torch.bucketize(confidence, edges[1:-1])  # [N], (low, high]
        count = torch.bincount(place, minlength=bins)
        sums = torch.bincount(place, weights=confidence, minlength=bins)
        hits = torch.bincount(place, weights=correct, minlength=bins)
        return tuple(
            Bin(float(edges[i]), float(edges[i + 1]), int(n), *_means(float(sums[i]), float(hits[i]), int(n)))
            for i, n in enumerate(count)
        )
    if kind != "mass":
        raise ConfigError(f"kind: expected width or mass, got {kind!r}")
    order = confidence.argsort(stable=True)
    parts = torch.tensor_split(order, min(bins, len(order)))
    return tuple(
        Bin(
            float(confidence[part[0]]),
            float(confidence[part[-1]]),
            len(part),
            *_means(float(confidence[part].sum()), float(correct[part].sum()), len(part)),
        )
        for part in parts
    )


def expected_calibration_error(table: tuple[Bin, ...]) -> float:
    """Mean over samples of |accuracy - confidence| of their bin. Source: Naeini et al. 2015; Guo et al. 2017."""
    total = sum(one.count for one in table)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in table) / total


def calibration(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0, bins: int = 15, kind: Bins = "width"
) -> Calibration:
    """How well softmax(logits / temperature) is calibrated: logits [N, K], targets [N] int64.

    For a zero-shot model give the logits at its own scale (exp(logit_scale) times the cosines): the constant 100 of
    the published evaluations says nothing about probabilities. Equal highest classes: the lowest index is the guess.
    """
    _check_logits(logits, targets)
    log_probs = (logits.double() / temperature).log_softmax(1)
    probabilities = log_probs.exp()
    confidence, guess = probabilities.max(1)[0], (log_probs == log_probs.max(1, keepdim=True)[0]).int().argmax(1)
    table = reliability(confidence.clamp(max=1), (guess == targets).double(), bins=bins, kind=kind)
    own = probabilities.gather(1, targets[:, None]).squeeze(1)
    return Calibration(
        error=expected_calibration_error(table),
        negative_log_likelihood=float(-log_probs.gather(1, targets[:, None]).mean()),
        brier=float((probabilities.square().sum(1) - 2 * own + 1).mean()),
        bins=table,
    )


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature T > 0 at which softmax(logits / T) has the lowest negative log-likelihood.

    logits [N, K] and targets [N] of samples that are NOT those whose calibration is reported. The loss is convex in
    1/T, so its slope has one root. Raises DataError where none exists: every sample right
    (T would fall to 0), or guesses no better than chance (T would grow without end).
    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """
    from scipy.optimize import brentq

    _check_logits(logits, targets)
    rows = logits.double()
    rows = rows - rows.mean(1, keepdim=True)
    size = float(rows.square().mean().sqrt())
    rows = rows / max(size, 1e-300)  # of size 1, so that 1/T = 1 is a good start for any logits
    own = rows.gather(1, targets[:, None]).squeeze(1)  # [N]
    if size == 0 or bool((own == rows.max(1)[0]).all()):
        raise DataError("fit_temperature: every sample is right (or all logits are equal), so no temperature fits best")
    if float(own.mean()) <= 0:
        raise DataError("fit_temperature: the right classes score no better than the others; no temperature helps")

    def slope(inverse: float) -> float:
        return float((((rows * inverse).softmax(1) * rows).sum(1) - own).mean())

    high = 1.0
    while slope(high) <= 0:  # some sample is wrong, so it turns
        high *= 4
    root: Any = brentq(slope, 0.0, high, xtol=1e-15, rtol=cast(Any, 1e-14))
    return size / float(root)


def _check(confidence: Tensor, correct: Tensor, bins: int) -> None:
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ShapeError(f"reliability: expected two [N], got {list(confidence.shape)} and {list(correct.shape)}")
    if bins < 1:
        raise ConfigError(f"bins: expected at least 1, got {bins}")
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise DataError("reliability: a confidence lies outside 0..1 (or is NaN); give probabilities, not logits")


def _check_logits(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not logits.numel():
        raise ShapeError(f"expected logits [N, K] and targets [N], got {list(logits.shape)} and {list(targets.shape)}")
    if not (int(targets.min()) >= 0 and int(targets.max()) < logits.shape[1]):
        raise ShapeError(f"a target lies outside 0..{logits.shape[1] - 1}")
    check_finite(logits)


def _means(confidence: float, hits: float, count: int) -> tuple[float, float]:
    return (confidence / count, hits / count) if count else (0.0, 0.0)
