"""Which box learns from which: by overlap, sampled by a draw of its own, or as the best assignment of all."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eyesmith.dense.boxes import inside, iou
from eyesmith.errors import ConfigError, DataError
from eyesmith.train.rng import fractions

NOTHING = -1  # matched with no truth: it shows background
IGNORED = -2  # neither one nor the other: learns nothing
_PAIRS = 1 << 23  # overlaps that are held at a time


def match(
    boxes: Tensor,
    truths: Tensor,
    *,
    positive: float,
    negative: float,
    forced_from: float | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """The truth that each box belongs to: int64 [N], its place among the M, NOTHING or IGNORED.

    boxes: [N, 4]; truths: [M, 4], M may be 0. A box whose best IoU is at least `positive` belongs to that truth, below
    `negative` to nothing. forced_from: each truth also takes the boxes that overlap it most, where that is at least so
    much, and a later truth takes them from an earlier one (mmdet's low-quality matches); None: it does not.
    ignored: [I, 4] regions whose content nobody named (crowds); what lies in them by more than half is IGNORED unless
    it belongs to a truth.
    """
    found = torch.full((len(boxes),), NOTHING, dtype=torch.int64, device=boxes.device)
    if len(truths) and len(boxes):
        best = boxes.new_full((len(boxes),), -1.0)
        whose, forced = torch.zeros_like(found), torch.full_like(found, -1)
        rows = max(1, _PAIRS // len(boxes))
        for start in range(0, len(truths), rows):  # so that thousands of objects fit
            overlaps = iou(truths[start : start + rows], boxes)  # [m, N]
            value, place = overlaps.max(0)
            is_better = value > best
            best, whose = torch.where(is_better, value, best), torch.where(is_better, place + start, whose)
            if forced_from is not None:
                most = overlaps.amax(1)  # [m]
                takes = (overlaps == most[:, None]) & (most >= max(forced_from, 1e-9))[:, None]
                order = torch.arange(1, len(overlaps) + 1, device=boxes.device)
                last = (takes * order[:, None]).amax(0) - 1
                forced = torch.where(last >= 0, last + start, forced)
        found[best >= negative] = IGNORED
        found = torch.where(best >= positive, whose, found)
        found = torch.where(forced >= 0, forced, found)
    if ignored is not None and len(ignored):
        is_in = (inside(boxes, ignored) > 0.5).any(1)
        found[is_in & (found == NOTHING)] = IGNORED
    return found


class Sample(NamedTuple):
    """positives, negatives: int64, places among the boxes."""

    positives: Tensor
    negatives: Tensor


def sample(matched: Tensor, count: int, positive_frac: float, *, seed: int, row: int, layer: int = 0) -> Sample:
    """At most `count` boxes that learn, at most a share of them with a truth; the rest are filled with background.

    matched: what `match` gave. The draw is a function of the step's seed, the picture's row in the global batch and the
    layer (which of a step's draws this is) alone, whoever computes it.
    """
    if count < 1 or not 0 <= positive_frac <= 1:
        raise ConfigError(f"sampling: expected a positive number and a share in 0..1, got {count}, {positive_frac}")
    key = seed ^ ((row + 1) << 20) ^ (layer << 52)
    draws = fractions(key & ((1 << 62) - 1), 1, torch.arange(len(matched), device=matched.device))[0]
    positives = _smallest(draws, matched >= 0, int(count * positive_frac))
    return Sample(positives, _smallest(draws, matched == NOTHING, count - len(positives)))


def assignment(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the cheapest assignment of a cost matrix [N, M]: int64 [min(N, M)] each, rows ascending.

    Raises DataError where a cost is not finite.
    """
    from scipy.optimize import linear_sum_assignment

    values = cost.detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise DataError("assignment: a cost is not finite; a loss or a weight is damaged")
    rows, columns = linear_sum_assignment(values)
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def _smallest(draws: Tensor, allowed: Tensor, count: int) -> Tensor:
    places = allowed.nonzero()[:, 0]
    if len(places) <= count:
        return places
    return places[draws[places].argsort(stable=True)[:count]].sort().values
