"""Each finding by a set that has it, and none on a set that is right."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.annotations import Annotations, Category, check_annotations, convert_annotations, open_annotations

SIDE = 20


def coco(folder: Path, annotations: list[dict], categories: list[dict] | None = None, **image: object) -> Annotations:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE)).save(folder / "a.png")
    fields = {
        "images": [{"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE} | image],
        "categories": categories or [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 7 + n, "image_id": 1, "category_id": 1} | one for n, one in enumerate(annotations)],
    }
    (folder / "set.json").write_text(json.dumps(fields))
    return open_annotations(folder / "set.json")


def kinds(found: Annotations) -> list[str]:
    return [one.kind for one in check_annotations(found).findings]


GOOD = {"bbox": [2, 2, 6, 6], "area": 36}


def test_a_right_set_has_no_findings(made: Annotations, tmp_path: Path) -> None:
    labels = {label for one in made for label in one.labels.tolist()}
    assert labels == {0, 1, 2}
    boxes = [
        (p, label, *box) for p, one in enumerate(made) for label, box in zip(one.labels, one.xywh.tolist(), strict=True)
    ]
    assert len(set(boxes)) == len(boxes)
    report = check_annotations(made)
    assert report.findings == []
    assert report.exit_status == 0
    assert report.num_samples == 4


@pytest.mark.parametrize(
    ("box", "kind", "detail"),
    [
        ([15, 2, 8, 6], "box_outside", "object 7: 15, 2, 8, 6 (left, top, width, height) in 20 x 20"),
        ([-3, 2, 8, 6], "box_outside", "object 7: -3, 2, 8, 6"),
        ([2, 2, 0, 6], "empty_box", "object 7: 0 x 6 pixels"),
        ([2, 2, 3, -1], "empty_box", "object 7: 3 x -1 pixels"),
    ],
)
def test_boxes(tmp_path: Path, box: list[float], kind: str, detail: str) -> None:
    report = check_annotations(coco(tmp_path, [{"bbox": box}]))
    assert [one.kind for one in report.findings] == [kind]
    assert report.findings[0].detail.startswith(detail)
    assert report.findings[0].where == "a.png"
    assert report.exit_status == 1
    assert kinds(coco(tmp_path, [{"bbox": [-0.5, 0, 20.9, 20.9]}])) == []


def test_ids_and_objects_that_repeat(tmp_path: Path) -> None:
    assert kinds(coco(tmp_path, [GOOD | {"id": 3}, GOOD | {"id": 3, "bbox": [1, 1, 5, 5]}])) == ["duplicate_id"]
    assert kinds(coco(tmp_path, [GOOD, GOOD])) == ["duplicate_object"]


def test_categories(tmp_path: Path) -> None:
    three = [
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 2, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
    ]
    report = check_annotations(coco(tmp_path, [GOOD], three))
    details = {one.kind: one.detail for one in report.findings}
    assert details == {
        "duplicate_name": "2 categories are called 'cat': their scores cannot be told apart",
        "parent_category": "'animals' is the parent of cat, cat and a class of its own",
        "empty_category": "2 of 3 categories have no object: animals, cat",
    }
    assert kinds(coco(tmp_path, [])) == ["no_objects"]


def test_pictures_and_their_sizes(tmp_path: Path) -> None:
    assert kinds(coco(tmp_path, [GOOD], file_name="b.png")) == ["missing_image"]
    assert kinds(coco(tmp_path, [GOOD], width=19)) == ["size_differs"]
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert kinds(coco(tmp_path, [GOOD], file_name="c.png")) == ["undecodable"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "d.jpg", exif=exif)
    turned = check_annotations(coco(tmp_path, [GOOD], file_name="d.jpg", width=20, height=30))
    assert [(one.kind, one.severity) for one in turned.findings] == [("exif_turned", "error")]
    assert "30 x 20 as stored, 20 x 30 once turned by EXIF orientation 6" in turned.findings[0].detail
    stored = check_annotations(coco(tmp_path, [GOOD], file_name="d.jpg", width=30, height=20))
    assert [(one.kind, one.severity) for one in stored.findings] == [("exif_orientation", "warning")]
    assert check_annotations(coco(tmp_path, [GOOD], file_name="b.png"), pictures=False).findings == []


def outline(right: float, bottom: float, box: list[float] | None = None) -> dict:
    given = box or [2, 2, right - 2, bottom - 2]
    return {"bbox": given, "segmentation": [[2, 2, right, 2, right, bottom, 2, bottom]]}


def test_outlines(tmp_path: Path) -> None:
    assert kinds(coco(tmp_path, [outline(10, 10)])) == []
    assert kinds(coco(tmp_path, [outline(10, 10, [2, 2, 14, 8])])) == ["box_differs"]
    early = [outline(19, 5 + n) for n in range(4)]
    report = check_annotations(coco(tmp_path, early))
    assert [one.kind for one in report.findings] == ["cut_by_a_pixel"]
    assert "4 of 4 outlines end exactly one pixel before the right or lower edge" in report.findings[0].detail
    assert kinds(coco(tmp_path, [*early, outline(20, 12)])) == []  # others reach the edge: these were drawn so


def test_maps(made: Annotations, tmp_path: Path) -> None:
    convert_annotations(made, tmp_path / "out", to="png", split="val")
    found = open_annotations(tmp_path / "out", "val")
    assert "unknown_value" not in kinds(found)
    file = tmp_path / "out" / "masks" / "val" / "p0.png"
    values = np.array(Image.open(file))
    values[0, :2] = 9
    Image.fromarray(values).save(file)
    details = [one.detail for one in check_annotations(found).findings if one.kind == "unknown_value"]
    assert details == ["value 9 (2 pixels) is no class; values are 0 to 2"]
    assert [one.kind for one in check_annotations(found).findings if one.where == "p2.png"] == ["all_void"]
    file.write_bytes(b"no picture")
    assert [one.kind for one in check_annotations(found).findings if one.where == "p0.png"] == ["unreadable"]


def test_png_and_json_that_disagree(make_set: Callable[..., Annotations], tmp_path: Path) -> None:
    """A panoptic set prepared wrongly would give a PQ of 0, and no error."""
    things = make_set(tmp_path / "in", 3, disjoint=True)
    stuff = replace(things, categories=(*things.categories[:2], Category(id=99, name="sky", is_thing=False)))
    convert_annotations(stuff, tmp_path / "out", to="panoptic", split="val")
    found = open_annotations(tmp_path / "out")
    before = [one for one in check_annotations(found).findings if one.severity == "error" and one.kind != "all_void"]
    assert before == []
    path = tmp_path / "out" / "annotations" / "val.json"
    fields = json.loads(path.read_text())
    rows = next(one for one in fields["annotations"] if len(one["segments_info"]) > 1)
    rows["segments_info"][0]["id"] += 500
    rows["segments_info"][1]["area"] += 3
    path.write_text(json.dumps(fields))
    report = check_annotations(open_annotations(tmp_path / "out"))
    assert {"unknown_segment", "missing_segment", "area_differs"} <= set(report.counts)
    assert report.exit_status == 1
    # a map of classes where a map of segments belongs
    convert_annotations(stuff, tmp_path / "png", to="png", split="val", pictures=False)
    folder = tmp_path / "out" / "annotations" / "val"
    for file in folder.iterdir():
        file.write_bytes((tmp_path / "png" / "masks" / "val" / file.name).read_bytes())
    wrong = check_annotations(open_annotations(tmp_path / "out"))
    assert set(wrong.counts) >= {"unreadable"}
    assert "a map of classes is no map of segments" in next(
        one.detail for one in wrong.findings if one.kind == "unreadable"
    )
    assert "no_stuff" in kinds(replace(found, categories=things.categories))


def test_a_line_of_yolo_out_of_range_is_a_finding(made: Annotations, tmp_path: Path) -> None:
    convert_annotations(made, tmp_path / "out", to="yolo", split="val")
    (tmp_path / "out" / "labels" / "val" / "p2.txt").write_text("5 0.5 0.5 0.1 0.1\n")
    findings = check_annotations(open_annotations(tmp_path / "out", "val")).findings
    assert [(one.kind, one.where) for one in findings] == [("unreadable", "images/val/p2.png")]
    assert "line 1: class 5; there are 3" in findings[0].detail
