"""Made truth and detections: several classes, crowds, empty pictures, near misses, equal scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.annotations import Annotations, Category, Objects, Picture
from eyesmith.data.annotations.masks import mask_box, mask_to_runs
from eyesmith.data.annotations.pictures import FolderPictures
from eyesmith.eval.located import Found, found

SIDE = 120


class Listed:
    """Objects that are there already."""

    def __init__(self, objects: list[Objects]) -> None:
        self.objects = objects

    def __call__(self, index: int) -> Objects:
        return self.objects[index]


def blob(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    left, top, right, bottom = np.clip(np.round(box), 0, SIDE).astype(int)
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.9
    mask[min(top, SIDE - 1), min(left, SIDE - 1)] = True
    return mask


def made(
    seed: int = 0,
    *,
    pictures: int = 12,
    classes: int = 4,
    crowds: bool = True,
    masks: bool = False,
    extra: int = 6,
    frequency: str = "",
) -> tuple[Annotations, list[Found]]:
    """A truth and detections of it: most objects found, moved a little, some of a wrong class, and some of nothing."""
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for place in range(pictures):
        number = 0 if place == 2 else int(rng.integers(1, 8))
        corner = rng.uniform(0, 80, (number, 2))
        size = rng.uniform(2, 60, (number, 2)).clip(max=SIDE - corner)
        boxes = np.concatenate([corner, corner + size], 1)
        labels = rng.integers(0, classes, number)
        shapes = [blob(rng, box) for box in boxes]
        xywh = (
            np.array([mask_box(one) for one in shapes], float).reshape(-1, 4)
            if masks
            else np.concatenate([corner, size], 1)
        )
        truth.append(
            Objects(
                xywh=xywh,
                labels=labels.astype(np.int64),
                crowd=(rng.random(number) < 0.2) & crowds,
                area=np.array([one.sum() for one in shapes], float) if masks else size.prod(1),
                ids=np.arange(number) + 1 + 100 * place,
                shapes=tuple(mask_to_runs(one) for one in shapes) if masks else (None,) * number,
                height=SIDE,
                width=SIDE,
            )
        )
        seen = rng.random(number) < 0.8
        moved = boxes[seen] + rng.normal(0, 3, (int(seen.sum()), 4))
        more = rng.uniform(0, 100, (extra, 2))
        moved = np.concatenate(
            [moved, boxes[:1] + 0.5, np.concatenate([more, more + rng.uniform(2, 20, (extra, 2))], 1)]
        )
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        right = np.where(rng.random(int(seen.sum())) < 0.8, labels[seen], rng.integers(0, classes, int(seen.sum())))
        given = np.concatenate([right, labels[:1], rng.integers(0, classes, extra)])
        scores = np.round(rng.random(len(moved)), 1)  # many are equal
        found_masks = np.stack([blob(rng, box) for box in moved]) if masks and len(moved) else None
        if masks and found_masks is not None:
            moved = np.array([(x, y, x + w, y + h) for x, y, w, h in map(mask_box, found_masks)], float)
        detections.append(found(moved, scores, given.astype(np.int64), found_masks))
    letters = frequency or " " * classes
    annotations = Annotations(
        name="made",
        kind="instances",
        form="coco",
        path=Path("made"),
        categories=tuple(
            Category(id=label + 1, name=f"class {label}", frequency=letters[label].strip(), is_novel=label % 3 == 1)
            for label in range(classes)
        ),
        pictures=tuple(
            Picture(id=place + 1, file=f"{place}.png", width=SIDE, height=SIDE) for place in range(pictures)
        ),
        read=Listed(truth),
        images=FolderPictures(()),
    )
    return annotations, detections


@pytest.fixture(scope="session")
def make_found():
    """`made`: truth and detections."""
    return made


@pytest.fixture(scope="session")
def with_pictures():
    """A set with other facts of its pictures."""
    return lambda truth, pictures: replace(truth, pictures=tuple(pictures))
