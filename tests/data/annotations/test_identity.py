"""The same pictures and objects are one set wherever they lie; another box, mask, class or picture makes another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.annotations.conftest import made_set

from eyesmith.data.annotations import Annotations, Objects, truth_hash
from eyesmith.data.annotations.masks import Polygons, Segment, mask_to_runs


def changed(made: Annotations, change: Callable[[Objects], Objects]) -> Annotations:
    return replace(made, read=lambda index: change(made.objects(index)) if index == 1 else made.objects(index))


def moved(objects: Objects) -> Objects:
    xywh = objects.xywh.copy()
    xywh[0, 0] += 1e-6
    return replace(objects, xywh=xywh)


def other_mask(objects: Objects) -> Objects:
    mask = objects.mask(0)
    mask[0, 0] ^= True
    return replace(objects, shapes=(mask_to_runs(mask), *objects.shapes[1:]))


CHANGES: dict[str, Callable[[Annotations], Annotations]] = {
    "a box": lambda made: changed(made, moved),
    "a label": lambda made: changed(made, lambda one: replace(one, labels=(one.labels + 1) % 3)),
    "a mask": lambda made: changed(made, other_mask),
    "no masks": lambda made: changed(made, lambda one: replace(one, shapes=(None,) * len(one))),
    "outlines": lambda made: changed(
        made, lambda one: replace(one, shapes=(Polygons((np.array([0.0, 0, 2, 0, 2, 2]),)),) * len(one))
    ),
    "a map": lambda made: changed(
        made, lambda one: replace(one, shapes=(Segment(np.ones((one.height, one.width), np.uint8), 1),) * len(one))
    ),
    "a name": lambda made: replace(
        made, categories=(replace(made.categories[0], name="another"), *made.categories[1:])
    ),
    "a synonym": lambda made: replace(
        made, categories=(replace(made.categories[0], synonyms=("other",)), *made.categories[1:])
    ),
    "fewer pictures": lambda made: made.some([0, 1, 2]),
    "another order": lambda made: made.some([1, 0, 2, 3]),
    "not exhaustive": lambda made: replace(
        made, pictures=[replace(made.pictures[0], not_exhaustive=frozenset({1})), *made.pictures[1:]]
    ),
    "pixels that do not count": lambda made: replace(
        made,
        void=lambda index: np.zeros((made.pictures[index].height, made.pictures[index].width), np.bool_),
    ),
    "whole classes": lambda made: replace(made, kind="semantic"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_looked_for_tells_sets_apart(change: Callable[[Annotations], Annotations], tmp_path: Path) -> None:
    made = made_set(tmp_path / "a")
    assert len(made.objects(1))
    assert truth_hash(change(made)) != truth_hash(made)


def test_a_set_is_the_same_in_another_folder_under_another_name(tmp_path: Path) -> None:
    one, two = made_set(tmp_path / "a"), made_set(tmp_path / "elsewhere" / "b")
    novel = replace(two.categories[0], is_novel=True)
    two = replace(two, name="val", path=tmp_path, categories=(novel, *two.categories[1:]))
    assert truth_hash(one) == truth_hash(two)


def test_a_picture_edited_in_place_makes_another_set(tmp_path: Path) -> None:
    made = made_set(tmp_path / "a")
    before = truth_hash(made)
    file = tmp_path / "a" / "p2.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(file)
    changed_picture = truth_hash(made)
    file.unlink()
    assert len({before, changed_picture, truth_hash(made)}) == 3
