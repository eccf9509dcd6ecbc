"""Right, confused, missed and wrong on a picture whose answer is known; worst classes; results as COCO's list."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.annotations import Annotations, Category, Objects, Picture
from eyesmith.data.annotations.masks import Runs, decode_shape, mask_to_runs
from eyesmith.data.annotations.pictures import FolderPictures
from eyesmith.errors import DataError
from eyesmith.eval.located import (
    Found,
    best_floor,
    found,
    match,
    outcomes,
    read_found,
    without_void,
    worst_classes,
    write_found,
)
from eyesmith.eval.located.precision import Region

Make = Callable[..., tuple[Annotations, list[Found]]]


def things(boxes: list[list[float]], labels: list[int], crowd: list[bool]) -> Objects:
    return Objects(
        xywh=np.array(boxes, float),
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd),
        area=np.array([w * h for _, _, w, h in boxes]),
        ids=np.arange(len(labels)),
        shapes=(None,) * len(labels),
        height=100,
        width=100,
    )


def test_a_picture_by_hand() -> None:
    objects = things(
        [[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [60, 0, 20, 20]], [0, 1, 2, 0], [False, False, False, True]
    )
    seen = found(
        [[0, 0, 10, 10], [20, 0, 30, 10], [0, 50, 9, 60], [62, 2, 70, 9], [0, 1, 10, 10], [40, 0, 50, 10]],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.1],
        [0, 2, 1, 0, 0, 2],
    )
    listed = outcomes(objects, seen, floor=0.4)
    assert [(one.kind, one.truth, one.guess, one.object, one.detection) for one in listed] == [
        ("right", 0, 0, 0, 0),
        ("confused", 1, 2, 1, 1),
        ("wrong", -1, 1, -1, 2),
        ("wrong", -1, 0, -1, 4),  # the object is taken already
        ("missed", 2, -1, 2, -1),
    ]
    assert [one.kind for one in outcomes(objects, seen)].count("right") == 2
    assert [one.kind for one in outcomes(objects, found([], [], []))] == ["missed"] * 3


def test_the_floor_has_the_best_f1(make_found: Make) -> None:
    truth, detections = make_found(0, crowds=False)
    matches = match(truth, detections)
    floor = best_floor(matches)

    def f1(at: float) -> float:
        right = int(matches.right[matches.score >= at].sum())
        return 2 * right / (int((matches.score >= at).sum()) + int(matches.objects.sum()))

    assert f1(floor) == pytest.approx(max(f1(at) for at in np.unique(matches.score)))
    assert best_floor(match(truth, [found([], [], [])] * len(truth))) == 0


def test_what_lies_in_void_counts_for_nothing() -> None:
    void = np.zeros((10, 10), np.bool_)
    void[:, 6:] = True
    masks = [np.zeros((10, 10), np.bool_) for _ in range(3)]
    masks[0][:, :8] = True  # 60 of 80 pixels count
    masks[1][:, 5:] = True  # 10 of 50
    masks[2][:, 4:8] = True  # a half
    seen, is_void = without_void(found([[0, 0, 9, 9]] * 3, [0.5] * 3, [0, 1, 2], masks), void)
    assert seen.masks is not None
    assert [decode_shape(Runs(10, 10, one["counts"]), 10, 10).tolist() for one in seen.masks] == [
        (mask & ~void).tolist() for mask in masks
    ]
    assert is_void.tolist() == [False, True, False]
    assert without_void(found([], [], [], []), void)[1].tolist() == []
    boxes = found([[0, 0, 9, 9]], [0.5], [0])
    assert without_void(boxes, void)[0] is boxes


def test_worst_classes(make_found: Make) -> None:
    truth, detections = make_found(1, pictures=30)
    swapped = [
        found(one.boxes, np.ones(len(one)), np.where(one.labels == 2, 3, one.labels)) for one in truth
    ]  # every object of class 2 is called 3
    matches = match(truth, swapped)
    first, *others = worst_classes(truth, swapped, matches)
    assert first.label == 2
    assert first.ap50 == 0
    assert first.num_objects == int(matches.objects[:, 2].sum())
    assert first.confused_with == ((3, first.num_objects),)
    assert [one.ap50 for one in others] == sorted(one.ap50 for one in others)
    assert [one.label for one in worst_classes(truth, swapped, matches, classes=truth.novel)] == [1]
    assert len(worst_classes(truth, detections, match(truth, detections), num=2)) == 2


def test_what_a_class_is_taken_for_is_seen_by_what_was_matched(tmp_path: Path) -> None:
    """Of two corners of one box, each with half of it, neither is the other, though their boxes are equal."""
    upper = np.triu(np.ones((10, 10), np.bool_))
    masks = [upper, ~upper]
    objects = replace(
        things([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 1], [False, False]),
        shapes=tuple(mask_to_runs(mask) for mask in masks),
        height=10,
        width=10,
    )
    truth = Annotations(
        name="by hand",
        kind="panoptic",
        form="made",
        path=tmp_path,
        categories=tuple(Category(id=label, name=str(label)) for label in range(3)),
        pictures=(Picture(id=1, file="1.png", width=10, height=10),),
        read=lambda _: objects,
        images=FolderPictures((tmp_path,)),
    )
    seen = [found([[0, 0, 10, 10]], [0.9], [2], [masks[1]])]

    def taken_for(region: Region) -> dict[int, tuple[tuple[int, int], ...]]:
        worst = worst_classes(truth, seen, match(truth, seen, region=region))
        return {one.label: one.confused_with for one in worst}

    assert taken_for("mask") == {0: (), 1: ((2, 1),)}
    assert taken_for("box") == {0: ((2, 1),), 1: ()}


@pytest.mark.parametrize("masks", [False, True])
def test_cocos_list_of_results(make_found: Make, tmp_path: Path, masks: bool) -> None:
    truth, detections = make_found(2, masks=masks, pictures=5)
    write_found(tmp_path / "found.json", truth, detections)
    again = read_found(tmp_path / "found.json", truth)
    for one, two in zip(detections, again, strict=True):
        np.testing.assert_allclose(one.boxes, two.boxes, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(one.scores, two.scores)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert one.masks == two.masks
    fields = json.loads((tmp_path / "found.json").read_text())
    if masks:
        for one in fields:
            del one["bbox"]
        (tmp_path / "found.json").write_text(json.dumps(fields))
        boxless = read_found(tmp_path / "found.json", truth)
        np.testing.assert_array_equal(boxless[0].boxes, detections[0].boxes)
    for change, message in (
        ({"image_id": 77}, r"results\[0\]: image_id 77 is no picture of made"),
        ({"category_id": 77}, r"results\[0\]: category_id 77 is no category of made"),
        ({"score": None}, r"results\[0\]: score: expected int or float, got null"),
        ({"score": float("nan")}, "scores: detection 0 is not finite"),
        ({"bbox": [1, 2]}, r"results\[0\]: bbox: expected 4 numbers"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps([fields[0] | change]))
        with pytest.raises(DataError, match=message):
            read_found(tmp_path / "bad.json", truth)
    for other, message in (
        ({"bbox": [1, 2, -3, 4]}, r"bad\.json: .*: boxes: expected left, top, right, bottom"),
        ({"segmentation": {"size": [4, 4], "counts": [16]}}, r"bad\.json: results\[0\]: .*: a mask of 4 x 4 pixels"),
    ):
        entry = {"image_id": truth.pictures[0].id, "category_id": truth.categories[0].id, "score": 0.5}
        (tmp_path / "bad.json").write_text(json.dumps([entry | other]))
        with pytest.raises(DataError, match=message):
            read_found(tmp_path / "bad.json", truth)
    (tmp_path / "bad.json").write_text('{"a": ')
    with pytest.raises(DataError, match="expected a JSON list of detections"):
        read_found(tmp_path / "bad.json", truth)
