"""The score above which a fraction of a pool lies, exactly, without holding all scores.

Rule of DataComp's baseline: the score at place int(N * fraction) of the scores in falling order, and every score that
is not below it stays; so at least int(N * fraction) + 1 samples do. One pass counts the scores by the leading bits of
an order-preserving number, a second one holds those of the one bucket that the place falls into.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import ConfigError, DataError

NUM_BUCKETS = 1 << 18
_SHIFT = np.uint64(64 - 18)
_SIGN = np.uint64(1 << 63)


def bucket_of(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Bucket of each score: higher scores never lie in lower buckets; a missing score (NaN) is below all others."""
    values = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64) + 0.0  # -0.0 is 0.0
    bits = values.view(np.uint64)
    return (np.where(bits & _SIGN, ~bits, bits | _SIGN) >> _SHIFT).astype(np.int64)


def bucket_counts(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many scores lie in each bucket: int64 [NUM_BUCKETS]; those of parts of a pool add up."""
    return np.bincount(bucket_of(scores), minlength=NUM_BUCKETS)


def place_of(counts: NDArray[np.int64], fraction: float) -> tuple[int, int]:
    """The bucket of the threshold, and its place in it in falling order. ConfigError unless 0 <= fraction < 1."""
    if not 0 <= fraction < 1:
        raise ConfigError(
            f"fraction: expected 0 or more and less than 1, got {fraction}; leave the rule out to keep all"
        )
    num = int(counts.sum())
    if not num:
        raise DataError("the pool has no rows, so no fraction of it can be kept")
    place = int(num * fraction)
    above = num - np.cumsum(counts)  # scores in higher buckets
    bucket = int(np.flatnonzero(above <= place)[0])
    return bucket, place - int(above[bucket])


def fraction_threshold(passes: Callable[[], Iterable[NDArray[np.floating]]], fraction: float) -> float:
    """The threshold of all scores that `passes()` goes through; called twice. -inf when so much has no score."""
    counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
    for scores in passes():
        counts += bucket_counts(scores)
    bucket, place = place_of(counts, fraction)
    held = [scores[bucket_of(scores) == bucket] for scores in passes()]
    return value_at(np.concatenate(held), place)


def value_at(scores: NDArray[np.floating], place: int) -> float:
    """The score at `place` in falling order; NaN counts as -inf."""
    values = np.where(np.isnan(scores), -np.inf, scores)
    return float(np.partition(values, len(values) - 1 - place)[len(values) - 1 - place])
