"""What became of each object and each detection of a picture: found, taken for another class, missed, or invented."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import Annotations, Objects
from eyesmith.eval.located.found import Found
from eyesmith.eval.located.matching import Matches, overlap
from eyesmith.eval.located.precision import Region

Kind = Literal["right", "confused", "missed", "wrong"]
"""right: found under its name; confused: found under another; missed: not found; wrong: overlaps no object by half."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One object, one detection, or both. truth, guess: labels, -1 for none.

    object, detection: places in the picture's objects and detections, -1 for none; score: of the detection, else 0.
    """

    kind: Kind
    truth: int
    guess: int
    object: int
    detection: int
    score: float


def best_floor(matches: Matches) -> float:
    """The score from which detections are shown: the one with the highest F1 over all pictures; 0 without any."""
    counted = np.flatnonzero(~matches.ignored)
    if not len(counted) or not matches.right.any():
        return 0.0
    order = counted[np.argsort(-matches.score[counted], kind="stable")]
    hits = np.cumsum(matches.right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + matches.objects.sum())
    scores = matches.score[order]
    f1[np.append(scores[:-1] == scores[1:], False)] = -1  # detections of one score come together
    return float(scores[int(np.argmax(f1))])


def outcomes(
    objects: Objects, found: Found, *, floor: float = 0.0, region: Region = "box", iou: float = 0.5
) -> list[Outcome]:
    """The outcomes of a picture, detections of at least `floor` only, best first; then what was missed.

    A detection takes an object of its class that overlaps it by `iou`; one that finds none takes an object of another
    class that no other took. Crowds, and detections that lie in them, are left out.
    """
    chosen = np.flatnonzero(found.scores >= floor)
    chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")]
    overlaps = overlap(found.only(chosen), objects, region)  # [n, g]
    same = found.labels[chosen][:, None] == objects.labels
    taken = np.full(len(chosen), -1)
    is_free = ~objects.crowd
    for allowed in (same, ~same):
        for row in np.flatnonzero(taken < 0).tolist():
            values = np.where(allowed[row] & is_free, overlaps[row], 0.0)
            if len(values) and values.max() >= iou:
                taken[row] = int(values.argmax())
                is_free[taken[row]] = False
    listed: list[Outcome] = []
    for row, place in enumerate(chosen.tolist()):
        guess, one = int(found.labels[place]), int(taken[row])
        if one < 0 and (overlaps[row][objects.crowd] >= iou).any():
            continue
        truth = int(objects.labels[one]) if one >= 0 else -1
        kind: Kind = "wrong" if one < 0 else "right" if truth == guess else "confused"
        score = float(found.scores[place])
        listed.append(Outcome(kind=kind, truth=truth, guess=guess, object=one, detection=place, score=score))
    for place in np.flatnonzero(is_free).tolist():
        truth = int(objects.labels[place])
        listed.append(Outcome(kind="missed", truth=truth, guess=-1, object=place, detection=-1, score=0.0))
    return listed


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """One class. ap50: fraction; num_objects: counted ones; confused_with: labels it was taken for, and how often."""

    label: int
    ap50: float
    num_objects: int
    confused_with: tuple[tuple[int, int], ...] = ()


def worst_classes(
    truth: Annotations,
    found: Sequence[Found],
    matches: Matches,
    *,
    num: int = 12,
    least_objects: int = 1,
    classes: NDArray[np.bool_] | None = None,
    floor: float | None = None,
) -> list[ClassScore]:
    """The classes with the lowest AP50, those with more objects first among equals.

    least_objects: classes with fewer are passed over; classes: [K], those to choose from; floor: from which score a
    detection counts as a confusion, by default `best_floor`.
    """
    scores, totals = matches.average_precision(), matches.objects.sum(0)
    allowed = ~np.isnan(scores) & (totals >= least_objects)
    if classes is not None:
        allowed &= classes
    labels = sorted(np.flatnonzero(allowed).tolist(), key=lambda label: (scores[label], -totals[label], label))[:num]
    at = best_floor(matches) if floor is None else floor
    taken: dict[int, Counter[int]] = {label: Counter() for label in labels}
    for objects, one in zip(truth, found, strict=True):
        if np.isin(objects.labels, labels).any():
            for outcome in outcomes(objects, one, floor=at, region=matches.region, iou=matches.iou):
                if outcome.kind == "confused" and outcome.truth in taken:
                    taken[outcome.truth][outcome.guess] += 1
    return [
        ClassScore(
            label=label,
            ap50=float(scores[label]),
            num_objects=int(totals[label]),
            confused_with=tuple(taken[label].most_common(3)),
        )
        for label in labels
    ]
