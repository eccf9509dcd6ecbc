"""Balancing by entries: frequent entries are thinned out, rare ones are kept whole.

count[e] is the number of texts that entry e matches, p[e] = t / max(count[e], t), and a text stays if any of its
entries passes a draw of its own with probability p. The draw of a text and an entry is a hash of (seed, sample id,
text number, entry), so it is the same in any order, on any number of machines, and for more data at the same p.
Source: MetaCLIP (arXiv 2309.16671), sec. 3, and its published code; the draw by image is MetaCLIP 2's.
"""

import math

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import ConfigError

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def keep_probabilities(counts: NDArray[np.int64], threshold: float) -> NDArray[np.float64]:
    """p of each entry: threshold / max(count, threshold); all 1 for an infinite threshold."""
    if not threshold > 0:
        raise ConfigError(f"threshold: expected more than 0 (20000 for 400 M pairs), got {threshold}")
    if math.isinf(threshold):
        return np.ones(len(counts))
    return threshold / np.maximum(counts, threshold)


def tail_share(counts: NDArray[np.int64], threshold: float) -> float:
    """Share of all matches that belong to entries with fewer than `threshold`."""
    total = int(counts.sum())
    return int(counts[counts < threshold].sum()) / total if total else 0.0


def threshold_of_share(counts: NDArray[np.int64], share: float) -> int:
    """The count at which the running sum of the sorted counts is nearest to `share` of all matches.

    So another language gets the tail that English has at its threshold. Raises ConfigError when nothing matched.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"tail share: expected 0 to 1, got {share}")
    ordered = np.sort(counts)
    total = int(ordered.sum())
    if not total:
        raise ConfigError(
            "tail share: no entry matched any text, so there is no threshold; are these the right entries?"
        )
    return int(ordered[np.abs(np.cumsum(ordered) / total - share).argmin()])


def draws(
    seed: int,
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    texts: NDArray[np.int64],
    entries: NDArray[np.uint64],
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 [N], one a row of (sample id, text number, hash of the entry)."""
    start = _mix(np.full(1, seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64) + _STEP)
    value = _mix((high ^ start) + _STEP)
    value = _mix((value ^ low) + _STEP)
    value = _mix((value ^ texts.astype(np.uint64)) + _STEP)
    value = _mix((value ^ entries) + _STEP)
    return (value >> np.uint64(11)).astype(np.float64) * 2.0**-53


def chosen_texts(
    seed: int, high: NDArray[np.uint64], low: NDArray[np.uint64], samples: NDArray[np.int64], texts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """One of each sample's texts, drawn evenly: bool [N] over rows of (sample, text), each pair once.

    high, low: [samples], their ids; samples: rising. A text's own draw decides, so the choice is the same in any order.
    """
    value = draws(seed, high[samples], low[samples], texts, np.zeros(len(texts), dtype=np.uint64))
    order = np.lexsort((texts, value, samples))
    is_first = np.append(True, samples[order][1:] != samples[order][:-1]) if len(samples) else np.zeros(0, dtype=bool)
    chosen = np.zeros(len(samples), dtype=bool)
    chosen[order[is_first]] = True
    return chosen


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # the finaliser of splitmix64; sums and products are meant to wrap
    value = (value ^ (value >> np.uint64(30))) * _MIX[0]
    value = (value ^ (value >> np.uint64(27))) * _MIX[1]
    return value ^ (value >> np.uint64(31))
