"""Effective robustness: accuracy under a shift beyond what accuracy without it foretells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eyesmith.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class RobustnessLine:
    """logit(accuracy under the shift) = slope * logit(accuracy without) + intercept; r2: share of variance explained,
    n: models it was fitted to."""

    slope: float
    intercept: float
    r2: float
    n: int

    def expected(self, accuracy: float) -> float:
        """The accuracy under the shift that the line gives for one without it, in 0..1."""
        return _logistic(self.slope * _logit(accuracy) + self.intercept)

    def effective(self, accuracy: float, shifted: float) -> float:
        """Effective robustness: `shifted` minus what the line expects; positive is more robust than the baselines."""
        return shifted - self.expected(accuracy)


def fit_robustness_line(baselines: Sequence[tuple[float, float]]) -> RobustnessLine:
    """Least squares on logits through (accuracy without, accuracy under the shift) of baseline models, fractions.

    Raises DataError for fewer than two models or equal accuracies, ConfigError for one outside 0..1 (exclusive: 0 and
    1 have no finite logit). Take baselines of one kind (say, models trained on ImageNet alone) and not the models that
    are judged. Source: Taori et al. 2020 (arXiv 2007.00644), section 3, with its logit axes.
    """
    from scipy.stats import linregress

    if len(baselines) < 2:
        raise DataError(f"effective robustness needs at least 2 baseline models, got {len(baselines)}")
    xs = [_logit(accuracy) for accuracy, _ in baselines]
    ys = [_logit(shifted) for _, shifted in baselines]
    if max(xs) - min(xs) < 1e-9:
        raise DataError("effective robustness: all baseline models have the same accuracy, no line fits")
    line: Any = linregress(xs, ys)
    is_level = max(ys) == min(ys)  # nothing varies, and the line explains it
    return RobustnessLine(float(line.slope), float(line.intercept), 1.0 if is_level else float(line.rvalue**2), len(xs))


def _logit(share: float) -> float:
    if not 0 < share < 1:
        raise ConfigError(f"effective robustness: expected accuracies between 0 and 1 (fractions), got {share}")
    return math.log(share / (1 - share))


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
