"""Panoptic quality: segments matched one to one, with COCO's rules for void and crowds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eyesmith.data.annotations import VOID, Annotations
from eyesmith.errors import DataError, ShapeError
from eyesmith.eval.located.precision import mean_of


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Of each class, [K], NaN where it is absent: pq = sq x rq, sq the mean IoU of matched segments, rq their F1."""

    pq: NDArray[np.float64]
    sq: NDArray[np.float64]
    rq: NDArray[np.float64]

    def mean(self, column: str = "pq", classes: NDArray[np.bool_] | None = None) -> float:
        """Mean over classes that are there, of all or of those in `classes` [K]."""
        return mean_of(getattr(self, column), classes)


class PanopticQuality:
    """Counts picture by picture.

    A found segment matches an object of its class when their IoU is above 0.5 (so no other can); what the segment has
    of void is taken out of the union. A segment that matches nothing is wrong, unless more than half of it is void or
    crowd of its class. A crowd is never missed.
    Source: Kirillov et al. 2019, and COCO's rules for crowds. Departs: all crowds of a class count, not one.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: list[NDArray[np.float64]] = []  # of each picture [K, 4]: sum of IoU, matched, wrong, missed

    def add(
        self,
        truth: NDArray[np.integer],
        labels: ArrayLike,
        found: NDArray[np.integer],
        found_labels: ArrayLike,
        *,
        crowd: ArrayLike | None = None,
        void: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add a picture. truth, found: [H, W], of each pixel the place of its segment in the labels, or VOID.

        labels: [S], of the true segments; crowd: [S] bool. void: bool [H, W], pixels that do not count; by default
        those of no true segment. Where `void` is given, the other pixels of no segment are background: a segment
        found there is wrong. Raises ShapeError for maps of different sizes, DataError for places without a label.
        """
        if truth.shape != found.shape or truth.ndim != 2:
            raise ShapeError(f"expected two maps [H, W], got {list(truth.shape)} and {list(found.shape)}")
        true_labels = _labels(labels, truth, self.num_classes, "truth")
        seen_labels = _labels(found_labels, found, self.num_classes, "found")
        is_crowd = np.zeros(len(true_labels), np.bool_) if crowd is None else np.asarray(crowd, np.bool_)
        nothing = truth == VOID if void is None else void
        true_map = np.where(nothing, VOID, truth).astype(np.int64)
        num_true, num_seen = len(true_labels), len(seen_labels)
        # rows: true segments, then background, then void; columns: found segments, then nothing
        row = np.where(true_map == VOID, num_true, true_map)
        row = np.where(nothing, num_true + 1, row)
        column = np.where(found == VOID, num_seen, found).astype(np.int64)
        shared = np.bincount((row * (num_seen + 1) + column).ravel(), minlength=(num_true + 2) * (num_seen + 1))
        shared = shared.reshape(num_true + 2, num_seen + 1)
        true_area, seen_area = shared[:num_true].sum(1), shared[:, :num_seen].sum(0)
        both, of_void = shared[:num_true, :num_seen], shared[num_true + 1, :num_seen]
        union = true_area[:, None] + seen_area - both - of_void
        same = true_labels[:, None] == seen_labels
        iou = np.where(same & ~is_crowd[:, None] & (both > 0), both / np.maximum(union, 1), 0.0)
        hit_true, hit_seen = np.nonzero(iou > 0.5)
        counts = np.zeros((self.num_classes, 4))
        np.add.at(counts[:, 0], true_labels[hit_true], iou[hit_true, hit_seen])
        np.add.at(counts[:, 1], true_labels[hit_true], 1)
        free_seen = np.ones(num_seen, np.bool_)
        free_seen[hit_seen] = False
        excused = of_void + (both * (same & is_crowd[:, None])).sum(0)
        wrong = free_seen & (seen_area > 0) & ~(excused > 0.5 * seen_area)
        np.add.at(counts[:, 2], seen_labels[wrong], 1)
        missed = ~is_crowd & (true_area > 0)
        missed[hit_true] = False
        np.add.at(counts[:, 3], true_labels[missed], 1)
        self.counts.append(counts)

    def add_picture(self, truth: Annotations, index: int, found: NDArray[np.integer], found_labels: ArrayLike) -> None:
        """Add a picture of a set; its own void counts for nothing, other pixels without an object are background."""
        objects = truth.objects(index)
        void = truth.void(index)
        if void is None:
            void = np.zeros((objects.height, objects.width), np.bool_)
        segments = truth.segments(index)
        self.add(segments, objects.labels, found, found_labels, crowd=objects.crowd, void=void)

    def by_class(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """PQ of each class [R, K] when picture p counts weights[r, p] times; for `picture_intervals`."""
        return _quality(np.tensordot(weights, self._stacked(), 1))[0]

    def quality(self) -> Quality:
        """Of all pictures so far."""
        pq, sq, rq = _quality(self._stacked().sum(0))
        return Quality(pq=pq, sq=sq, rq=rq)

    def _stacked(self) -> NDArray[np.float64]:
        if not self.counts:
            raise DataError("panoptic quality of no pictures; add some first")
        return np.stack(self.counts)  # [P, K, 4]


def _quality(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    total, matched, wrong, missed = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = matched + wrong / 2 + missed / 2
        pq, rq = total / weight, matched / weight
        sq = np.where(weight > 0, total / np.maximum(matched, 1e-300), np.nan)
    return np.where(weight > 0, pq, np.nan), np.where(matched > 0, sq, np.where(weight > 0, 0, np.nan)), rq


def _labels(labels: ArrayLike, segments: NDArray[np.integer], num_classes: int, name: str) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ShapeError(f"{name}: expected labels [S], integers, got {list(array.shape)} {array.dtype}")
    array = array.astype(np.int64)
    if array.size and not (array.min() >= 0 and array.max() < num_classes):
        raise DataError(f"{name}: labels reach from {array.min()} to {array.max()}, there are {num_classes} classes")
    low, high = (int(segments.min()), int(segments.max())) if segments.size else (VOID, VOID)
    if low < VOID or high >= len(array):
        raise DataError(f"{name}: a pixel belongs to segment {high if high >= len(array) else low} of {len(array)}")
    return array
