"""Which detection found which object, at one IoU: what intervals are drawn from and pages show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import Annotations, Objects
from eyesmith.data.annotations.masks import encoded, rle_masks
from eyesmith.errors import DataError
from eyesmith.eval.located.found import Found
from eyesmith.eval.located.precision import Region, check_found, has_lvis_rules, lvis_places

RECALLS = np.linspace(0, 1, 101)  # COCO's points of a precision curve
_BLOCK = 1 << 22  # numbers held at once


@dataclass(frozen=True, kw_only=True)
class Matches:
    """All detections that count, picture by picture, best first, and the objects.

    picture, label, score: [N]; place: [N], of the detection in its picture; right: bool [N], whether it found an object
    of its class that no better one had found; ignored: bool [N], found a crowd, counts for nothing. objects: int64
    [P, K], how many there are to find. truth_of: [N], the object's place in its picture, -1 where none was found.
    region, iou: what had to overlap, and by how much.
    """

    picture: NDArray[np.int64]
    place: NDArray[np.int64]
    label: NDArray[np.int64]
    score: NDArray[np.float64]
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth_of: NDArray[np.int64]
    objects: NDArray[np.int64]
    region: Region
    iou: float

    def average_precision(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Average precision of each class [K], NaN for one without objects.

        weights: how often each picture counts, [R, P]; then [R, K]. Equal to `average_precision(...).ap50` at IoU 0.5.
        """
        rows = np.ones((1, len(self.objects))) if weights is None else np.asarray(weights, np.float64)
        totals = rows @ self.objects  # [R, K]
        scores = np.full(totals.shape, np.nan)
        for label in range(self.objects.shape[1]):
            chosen = np.flatnonzero((self.label == label) & ~self.ignored)
            if not totals[:, label].any():
                continue
            chosen = chosen[np.argsort(-self.score[chosen], kind="stable")]
            step = max(1, _BLOCK // max(len(chosen), 1))
            for first in range(0, len(rows), step):
                part = slice(first, first + step)
                value = _average_precision(rows[part][:, self.picture[chosen]], self.right[chosen], totals[part, label])
                scores[part, label] = value
        return scores[0] if weights is None else scores


def match(
    truth: Annotations, found: Sequence[Found], *, region: Region = "box", iou: float = 0.5, per_image: int = 100
) -> Matches:
    """Match detections and objects of each class by COCO's rules: best scores first, each object once.

    A set with LVIS's frequencies gets LVIS's rules, as in `average_precision`. per_image: how many of a picture's best
    detections of a class count, of LVIS of all classes together. Errors: as of `average_precision`.
    """
    if region == "boundary":
        raise DataError("matches are of boxes or masks; boundaries are scored by average_precision")
    check_found(truth, found, masks=region == "mask")
    rows: list[tuple[NDArray[np.int64], ...]] = []
    totals = np.zeros((len(truth), len(truth.categories)), np.int64)
    is_lvis = has_lvis_rules(truth)
    for picture, (objects, one) in enumerate(zip(truth, found, strict=True)):
        np.add.at(totals[picture], objects.labels[~objects.crowd], 1)
        facts = truth.pictures[picture]
        counted = lvis_places(one, facts, objects, per_image) if is_lvis else np.arange(len(one))
        for label in np.unique(one.labels[counted]).tolist():
            places = counted[one.labels[counted] == label]
            places = places[np.argsort(-one.scores[places], kind="stable")][:per_image]
            wanted = np.flatnonzero(objects.labels == label)
            wanted = wanted[np.argsort(objects.crowd[wanted], kind="stable")]
            overlaps = overlap(one.only(places), objects.only(wanted), region)  # [n, g]
            taken = _assign(overlaps, objects.crowd[wanted], iou)  # [n]
            truth_of = np.where(taken < 0, -1, wanted[taken] if len(wanted) else -1)
            ignored = (truth_of >= 0) & (objects.crowd[truth_of] if len(objects) else False)
            if is_lvis and label in facts.not_exhaustive:  # it may have found an object that nobody marked
                ignored |= truth_of < 0
            count = len(places)
            rows.append((np.full(count, picture), places, np.full(count, label), truth_of, ignored.astype(np.int64)))
    if rows:
        picture_of, places, labels, truth_of, ignored = (np.concatenate(column) for column in zip(*rows, strict=True))
        scores = np.array([found[p].scores[i] for p, i in zip(picture_of.tolist(), places.tolist(), strict=True)])
    else:
        picture_of = places = labels = truth_of = ignored = np.zeros(0, np.int64)
        scores = np.zeros(0)
    return Matches(
        picture=picture_of,
        place=places,
        label=labels,
        score=scores,
        right=(truth_of >= 0) & (ignored == 0),
        ignored=ignored > 0,
        truth_of=truth_of,
        objects=totals,
        region=region,
        iou=iou,
    )


def overlap(found: Found, objects: Objects, region: Region) -> NDArray[np.float64]:
    """IoU of each detection with each object, [N, G]; with a crowd, the share of the detection that it covers."""
    if not len(found) or not len(objects):
        return np.zeros((len(found), len(objects)))
    crowd = objects.crowd.astype(np.int64).tolist()
    masks = rle_masks()
    if region == "box":
        corners = found.boxes.copy()
        corners[:, 2:] -= corners[:, :2]
        return np.asarray(masks.iou(corners, objects.xywh, crowd)).reshape(len(found), len(objects))
    assert found.masks is not None
    wanted = [encoded(shape, objects.height, objects.width) for shape in objects.shapes if shape is not None]
    if len(wanted) < len(objects):
        raise DataError("objects without masks; compare boxes")
    return np.asarray(masks.iou(list(found.masks), wanted, crowd)).reshape(len(found), len(objects))


def _assign(overlaps: NDArray[np.float64], crowd: NDArray[np.bool_], iou: float) -> NDArray[np.int64]:
    """Of each detection, in order, the object that it takes; -1: none. Crowds stand last, and may be taken often."""
    number, wanted = overlaps.shape
    taken = np.full(number, -1)
    is_free = np.ones(wanted, np.bool_)
    counted = int((~crowd).sum())
    least = min(iou, 1 - 1e-10)
    for row in range(number):
        values = np.where(is_free[:counted], overlaps[row, :counted], -1.0)
        for first, part in ((0, values), (counted, overlaps[row, counted:])):
            if len(part) and part.max() >= least:
                taken[row] = first + len(part) - 1 - int(np.argmax(part[::-1]))  # of equal ones the last, as COCO takes
                break
        if 0 <= taken[row] < counted:
            is_free[taken[row]] = False
    return taken


def _average_precision(
    weights: NDArray[np.float64], right: NDArray[np.bool_], totals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of detections best first: weights [R, N], totals [R] -> [R]."""
    hits = np.cumsum(weights * right, 1)  # [R, N]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / totals[:, None]
        precision = np.nan_to_num(hits / np.cumsum(weights, 1))
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # of this or a later point
    reached = np.searchsorted(RECALLS, np.nan_to_num(recall), side="right")  # points up to this recall
    new = np.diff(reached, axis=1, prepend=0) * (recall > 0)  # a point of recall 0 has the best precision of all
    if recall.shape[1]:
        first = recall[:, 0] == 0
        new[first, 0] = 1
        later = np.argmax(recall > 0, 1)
        has_hit = (recall > 0).any(1) & first
        new[has_hit, later[has_hit]] = reached[has_hit, later[has_hit]] - 1
    return np.where(totals > 0, (new * best).sum(1) / len(RECALLS), np.nan)
