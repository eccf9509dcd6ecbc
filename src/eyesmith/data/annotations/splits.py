"""Base and novel classes of the two usual open-vocabulary benchmarks, made from the plain COCO and LVIS files."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations.types import Annotations, Objects
from eyesmith.errors import DataError

OV_COCO_NOVEL = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup"),
    *("knife", "cake", "couch", "keyboard", "sink", "scissors"),
)
"""The 17 held-out classes of OV-COCO."""
OV_COCO_BASE = (
    *("person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear"),
    *("zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork"),
    *("spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed"),
    *("toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock"),
    *("vase", "toothbrush"),
)
"""Its 48 base classes; the other 15 of COCO's 80 are dropped."""


def only_categories(
    annotations: Annotations, keep: NDArray[np.bool_], *, listed: NDArray[np.bool_] | None = None
) -> Annotations:
    """A set without the objects of other categories, read lazily.

    keep: [K] which categories' objects stay. listed: [K] which categories stay listed (labels are renumbered), all
    unless given. Raises DataError when a category that is kept is not listed.
    """
    listed = np.ones_like(keep) if listed is None else listed
    if (keep & ~listed).any():
        raise DataError("objects of a category that is not listed cannot be kept")
    new_labels = np.cumsum(listed) - 1
    of = np.where(listed, new_labels, -1)
    return replace(
        annotations,
        categories=tuple(one for one, is_listed in zip(annotations.categories, listed, strict=True) if is_listed),
        pictures=tuple(
            replace(
                one,
                not_exhaustive=frozenset(int(of[label]) for label in one.not_exhaustive if listed[label]),
                absent=None
                if one.absent is None
                else frozenset(int(of[label]) for label in one.absent if listed[label]),
            )
            for one in annotations.pictures
        ),
        read=_Filtered(annotations, keep, of),
    )


def only_pictures(annotations: Annotations, keep: NDArray[np.bool_]) -> Annotations:
    """A set without the other pictures. keep: [P]."""
    places = np.flatnonzero(keep)
    return replace(
        annotations,
        pictures=tuple(annotations.pictures[place] for place in places.tolist()),
        read=_Chosen(annotations, places),
        void=_ChosenVoid(annotations, places),
    )


def mark_novel(annotations: Annotations, novel: NDArray[np.bool_]) -> Annotations:
    """A set whose categories say which are held out. novel: [K]."""
    marked = tuple(
        replace(one, is_novel=bool(is_novel)) for one, is_novel in zip(annotations.categories, novel, strict=True)
    )
    return replace(annotations, categories=marked)


def ov_coco(annotations: Annotations, *, train: bool) -> Annotations:
    """OV-COCO of COCO's 80 classes: 48 base and 17 novel ones.

    train: objects of base classes only, and pictures that still have one. Otherwise (validation) the objects of all 65
    classes, and every picture. Raises DataError when the set's classes are not COCO's.
    """
    names = set(annotations.names)
    novel = np.array([name in OV_COCO_NOVEL for name in annotations.names], np.bool_)
    base = np.array([name in OV_COCO_BASE for name in annotations.names], np.bool_)
    missing = sorted({*OV_COCO_NOVEL, *OV_COCO_BASE} - names)
    if missing:
        raise DataError(f"{annotations.path}: OV-COCO needs COCO's classes; there is no {', '.join(missing[:5])}")
    listed = base | novel
    found = only_categories(annotations, base if train else listed, listed=listed)
    found = mark_novel(found, novel[listed])
    return _with_objects(found) if train else found


def ov_lvis(annotations: Annotations, *, train: bool) -> Annotations:
    """OV-LVIS of LVIS v1: frequent and common classes (866) are base, rare ones (337) novel; all stay listed.

    train: objects of base classes only; every picture stays. Otherwise nothing is left out. Raises DataError when the
    categories have no frequency.
    """
    frequency = [one.frequency for one in annotations.categories]
    if not set(frequency) <= {"r", "c", "f"} or "r" not in frequency:
        raise DataError(f"{annotations.path}: OV-LVIS needs LVIS's categories with their frequency (r, c, f)")
    rare = np.array([one == "r" for one in frequency], np.bool_)
    marked = mark_novel(annotations, rare)
    return only_categories(marked, ~rare) if train else marked


def _with_objects(annotations: Annotations) -> Annotations:
    return only_pictures(annotations, np.array([len(one) > 0 for one in annotations], np.bool_))


@dataclass(frozen=True)
class _Filtered:
    annotations: Annotations
    keep: NDArray[np.bool_]
    labels: NDArray[np.int64]

    def __call__(self, index: int) -> Objects:
        objects = self.annotations.objects(index)
        kept = objects.only(self.keep[objects.labels])
        return replace(kept, labels=self.labels[kept.labels])


@dataclass(frozen=True)
class _Chosen:
    annotations: Annotations
    places: NDArray[np.int64]

    def __call__(self, index: int) -> Objects:
        return self.annotations.objects(int(self.places[index]))


@dataclass(frozen=True)
class _ChosenVoid:
    annotations: Annotations
    places: NDArray[np.int64]

    def __call__(self, index: int) -> NDArray[np.bool_] | None:
        return self.annotations.void(int(self.places[index]))
