"""Greedy non-maximum suppression without a loop over boxes.

A box stays unless a better one that stays overlaps it. That is an equation with one solution, which repeated
substitution reaches, in as many rounds as the longest chain of boxes that save one another; each round is one product.
"""

import torch
from torch import Tensor

from eyesmith.dense.boxes import check_boxes, iou
from eyesmith.errors import ShapeError

_BLOCK = 1024  # boxes that are compared with each other at a time
_PAIRS = 1 << 24  # overlaps, or overlaps times classes, that are held at a time


def nms(boxes: Tensor, scores: Tensor, threshold: float, *, labels: Tensor | None = None) -> Tensor:
    """The boxes that stay, best first: int64 [n], places among the N.

    boxes: [N, 4]; scores: [N]; of equal ones the earlier counts as better. A box goes where its IoU with a better one
    that stays is above the threshold. labels: int64 [N], where only boxes of one class compete. Memory grows with the
    number of boxes that stay, not with N squared. Raises ShapeError for boxes that are none, and scores that are not
    finite.
    """
    _check(boxes, scores)
    if labels is not None:  # each class by itself: boxes of two are never compared
        own = [(labels == one).nonzero()[:, 0] for one in labels.unique().tolist()]
        stays = torch.cat([labels.new_zeros(0), *(each[nms(boxes[each], scores[each], threshold)] for each in own)])
        stays = stays.sort().values
        return stays[scores[stays].argsort(descending=True, stable=True)]
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    stays = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    for start in range(0, len(boxes), _BLOCK):
        places = torch.arange(start, min(start + _BLOCK, len(boxes)), device=boxes.device)
        is_free = torch.ones(len(places), dtype=torch.bool, device=boxes.device)
        for better in stays.split(max(1, _PAIRS // _BLOCK)):
            is_free &= ~(iou(boxes[places], boxes[better]) > threshold).any(1)
        places = places[is_free]
        beaten_by = (iou(boxes[places], boxes[places]) > threshold).tril(-1)
        stays = torch.cat([stays, places[_solved(beaten_by.to(boxes.dtype))]])
    return order[stays]


def nms_table(boxes: Tensor, scores: Tensor, threshold: float, *, floor: float = 0.0) -> Tensor:
    """Where suppression class by class leaves boxes that all classes share: bool [N, K].

    boxes: [N, 4]; scores: [N, K]; those at or below the floor are out of it. Equals `nms` of each column. Only pairs of
    boxes that overlap are visited, so 1,000 boxes by 1,200 classes are cheap once alike proposals are gone.
    """
    _check(boxes, scores)
    stays = scores > floor
    worse, better = _pairs(boxes, threshold)
    for columns in torch.arange(scores.shape[1], device=scores.device).split(max(1, _PAIRS // max(1, len(worse)))):
        stays[:, columns] = _solved_table(stays[:, columns], scores[:, columns], worse, better)
    return stays


def _solved(beaten_by: Tensor) -> Tensor:
    """bool [n]: row j is 1 where box i < j would beat j."""
    stays = torch.ones(len(beaten_by), dtype=torch.bool, device=beaten_by.device)
    while True:
        found = beaten_by @ stays.to(beaten_by.dtype) == 0
        if torch.equal(found, stays):
            return stays
        stays = found


def _solved_table(valid: Tensor, scores: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """bool [N, K]; ours, theirs: [E] both ways of every pair of boxes that overlap."""
    loses = scores[theirs] > scores[ours]
    loses |= (scores[theirs] == scores[ours]) & (theirs < ours)[:, None]
    loses &= valid[theirs] & valid[ours]
    edges = loses.any(1)  # many pairs meet in no class
    loses, ours, theirs = loses[edges], ours[edges], theirs[edges]
    stays = valid
    while True:
        hits = torch.zeros(scores.shape, dtype=torch.int32, device=scores.device)
        hits.index_add_(0, ours, (loses & stays[theirs]).to(torch.int32))
        found = valid & (hits == 0)
        if torch.equal(found, stays):
            return stays
        stays = found


def _pairs(boxes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Places of every ordered pair of boxes whose IoU is above the threshold, int64 [E] each."""
    rows = max(1, _PAIRS // max(1, len(boxes)))
    found = [
        (iou(boxes[start : start + rows], boxes) > threshold).nonzero() + boxes.new_tensor([start, 0]).long()
        for start in range(0, len(boxes), rows)
    ]
    pairs = torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.int64, device=boxes.device)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return pairs[:, 0], pairs[:, 1]


def _check(boxes: Tensor, scores: Tensor) -> None:
    check_boxes(boxes)
    if len(scores) != len(boxes):
        raise ShapeError(f"scores: expected {len(boxes)}, one a box, got {list(scores.shape)}")
    if not bool(torch.isfinite(scores).all()):
        raise ShapeError("scores: expected finite numbers, got NaN or infinity; is a weight damaged?")
