"""Intervals of scores that are no means: pictures are drawn again, and what was counted in each is added up anew."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import ConfigError
from eyesmith.eval.statistics.bootstrap import Interval, bounded, mean, percentiles

Floats = NDArray[np.float64]


def picture_intervals(
    by_class: Callable[[Floats], Floats],
    groups: Mapping[str, NDArray[np.bool_]],
    num_pictures: int,
    *,
    replicates: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean over the classes of each group, with an interval over pictures.

    by_class: how often each picture counts [R, P] -> scores of classes [R, K] in 0..1, NaN where a class has nothing to
    score. groups: classes [K] by name. A group without any scored class is left out. Equal seeds give equal intervals.

    Percentiles of pictures drawn anew, less the bias of the draws: a class with few objects gains by a picture that
    comes twice, which moves all draws up by points. A score at 0 or 1 in every draw has Wilson's interval of as many
    answers as pictures.
    Source: Efron and Tibshirani 1993, chapters 10.2 (bias) and 13 (percentiles).
    """
    if replicates < 1 or num_pictures < 1:
        raise ConfigError(f"replicates and num_pictures: expected 1 or more, got {replicates} and {num_pictures}")
    values = by_class(np.ones((1, num_pictures)))[0]
    drawn = by_class(picture_draws(num_pictures, replicates, seed))  # [R, K]
    found: dict[str, Interval] = {}
    for name, classes in groups.items():
        value = _means(values[None, classes])[0]
        if np.isnan(value):
            continue
        means = _means(drawn[:, classes])
        means = means[~np.isnan(means)]
        means = means if len(means) else np.array([value])  # no draw has anything to score
        bias = means.mean() - value
        low, high = (min(max(float(bound - bias), 0.0), 1.0) for bound in percentiles(means, level))
        span = Interval(float(value), min(low, float(value)), max(high, float(value)))
        found[name] = Interval(span.value, *bounded(span, mean, num_pictures))
    return found


def picture_draws(num_pictures: int, replicates: int, seed: int) -> Floats:
    """How often each picture is drawn, [R, P]; every row adds up to P."""
    rng = np.random.default_rng(seed)
    shares = np.full(num_pictures, 1 / num_pictures)
    return rng.multinomial(num_pictures, shares, size=replicates).astype(np.float64)


def _means(scores: Floats) -> Floats:
    """Mean of each row over what is there; NaN where nothing is."""
    is_there = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        return np.where(is_there, scores, 0).sum(1) / is_there.sum(1)
