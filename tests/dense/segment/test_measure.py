"""Segments scored on a set drawn by hand: perfect, misnamed, half found, and on the ground between things."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from eyesmith.data.annotations import Annotations
from eyesmith.data.annotations.masks import mask_to_runs
from eyesmith.data.annotations.pictures import FolderPictures
from eyesmith.data.annotations.types import Category, Kind, Objects, Picture
from eyesmith.dense.segment.inference import Answer, FoundSegment, Panoptic
from eyesmith.dense.segment.measure import AGNOSTIC, Counts, search
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, Segmented, mask_boxes

pytest.importorskip("faster_coco_eval")
BOXES = ((0, 0, 4, 4), (4, 4, 10, 8))  # x0, y0, x1, y1 of a base and a novel thing


def mask_of(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((10, 12), np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.fixture
def data(tmp_path: Path) -> Annotations:
    """Two pictures with the same two things."""
    objects = Objects(
        xywh=np.array([[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in BOXES], np.float64),
        labels=np.array([0, 1]),
        crowd=np.zeros(2, np.bool_),
        area=np.array([mask_of(box).sum() for box in BOXES], np.float64),
        ids=np.array([1, 2]),
        shapes=tuple(mask_to_runs(mask_of(box)) for box in BOXES),
        height=10,
        width=12,
    )
    return Annotations(
        name="by hand",
        kind="instances",
        form="made",
        path=tmp_path,
        categories=(Category(id=1, name="base"), Category(id=2, name="new", is_novel=True)),
        pictures=tuple(Picture(id=place, file=f"{place}.png", width=12, height=10) for place in range(2)),
        read=lambda _: objects,
        images=FolderPictures((tmp_path,)),
    )


def said(*segments: tuple[int, tuple[int, int, int, int]]) -> Segmented:
    """Segments of a label and a box each."""
    ids = torch.zeros(10, 12, dtype=torch.int64)
    for place, (_, box) in enumerate(segments, 1):
        ids[torch.from_numpy(mask_of(box))] = place
    listed = tuple(
        FoundSegment(id=place, label=label, is_thing=True, score=0.5, area_px=int((ids == place).sum()))
        for place, (label, _) in enumerate(segments, 1)
    )
    nothing = Answer(classes=torch.zeros(0, 2), void=torch.zeros(0), masks=torch.zeros(0, 10, 12))
    found = Panoptic(ids=ids, segments=listed)
    return Segmented(names=("base", "new"), is_thing=(True, True), answer=nothing, panoptic=found)


def scores(data: Annotations, *pictures: Segmented) -> dict[tuple[str, str], float]:
    counts = Counts(data)
    for place, one in enumerate(pictures):
        counts.add(place, one)
    part = data.some(range(len(pictures)))
    return {(row.split, row.metric): row.value for row in counts.rows(part, model="m", replicates=5, run=None)}


def test_what_is_right_is_right(data: Annotations) -> None:
    found = scores(data, *[said((0, BOXES[0]), (1, BOXES[1]))] * 2)
    assert set(found.values()) == {1.0}
    assert {split for split, _ in found} == {"base", "novel", "all", AGNOSTIC}


def test_a_wrong_name_costs_both_and_leaves_the_outline(data: Annotations) -> None:
    found = scores(data, said((0, BOXES[0]), (0, BOXES[1])))
    assert found["novel", "pq"] == found["novel", "miou"] == 0
    assert found["base", "pq"] == pytest.approx(1 / 1.5)  # one match, one that is wrong
    assert found["base", "miou"] == pytest.approx(16 / 40)
    assert found[AGNOSTIC, "pq"] == 1


def test_what_is_said_of_the_ground_is_wrong(data: Annotations) -> None:
    found = scores(data, said((0, BOXES[0]), (1, BOXES[1]), (1, (8, 0, 12, 3))))
    assert found["novel", "pq"] == pytest.approx(1 / 1.5)
    assert found["novel", "miou"] == pytest.approx(24 / 36)
    assert found["base", "pq"] == found["base", "miou"] == 1
    nothing = scores(data, said())
    assert nothing["all", "pq"] == nothing["all", "miou"] == nothing[AGNOSTIC, "pq"] == 0


def test_a_part_of_a_set_is_a_set(data: Annotations) -> None:
    whole = replace(data, read=lambda index: data.objects(index).only([index]))
    part = whole.some([1])
    assert len(part) == 1
    assert part.objects(0).labels.tolist() == [1]
    assert part.pictures[0].file == "1.png"


def test_boxes_around_masks() -> None:
    masks = torch.from_numpy(np.stack([mask_of(box) for box in BOXES]))
    assert mask_boxes(masks).tolist() == [list(map(float, box)) for box in BOXES]


@pytest.mark.parametrize(("kind", "things"), [("semantic", [False, False]), ("panoptic", [True, False])])
def test_whole_classes_are_looked_for_as_whole_classes(data: Annotations, kind: Kind, things: list[bool]) -> None:
    """Else each thing would be a segment of its own, and none of them the object of all its class's pixels."""

    class Asked(Exception):
        """Ends the search where the names are told."""

    class Finder:
        def use(self, names: object, things: list[bool]) -> None:
            raise Asked(things)

    categories = (data.categories[0], replace(data.categories[1], is_thing=False))
    with pytest.raises(Asked) as asked:
        search(cast(PictureSegmenter, Finder()), replace(data, kind=kind, categories=categories), ("head",))
    assert asked.value.args == (things,)
