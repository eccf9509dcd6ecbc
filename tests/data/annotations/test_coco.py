"""COCO's json: read as pycocotools reads it, written back without loss, refused by name."""

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as rle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from eyesmith.data.annotations import VOID, open_annotations, write_coco
from eyesmith.errors import DataError, ImageError

CATEGORIES = [
    {"id": 3, "name": "cat", "supercategory": "animal"},
    {"id": 7, "name": "traffic light", "supercategory": "outdoor", "split": "novel"},
]


def coco(**changes: Any) -> dict[str, Any]:
    """Two pictures, one empty; polygons with two parts, both kinds of run lengths, a crowd, a box only."""
    fields = {
        "info": {"description": "made"},
        "images": [
            {"id": 11, "file_name": "a.jpg", "width": 12, "height": 9},
            {"id": 5, "file_name": "b.jpg", "width": 6, "height": 5},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 11,
                "category_id": 7,
                "bbox": [1.25, 1, 6, 5.5],
                "area": 20.5,
                "iscrowd": 0,
                "segmentation": [[1.25, 1, 4, 1, 4, 6.5], [5, 2, 7.25, 2, 7.25, 5, 5, 5]],
            },
            {
                "id": 2,
                "image_id": 11,
                "category_id": 3,
                "bbox": [0, 0, 2, 9],
                "area": 18.0,
                "iscrowd": 1,
                "segmentation": {"size": [9, 12], "counts": [0, 18, 90]},
            },
            {"id": 9, "image_id": 11, "category_id": 3, "bbox": [3, 3, 2, 2], "area": 4, "iscrowd": 0},
        ],
        "categories": CATEGORIES,
    }
    return fields | changes


def write(path: Path, fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields), "utf-8")
    return path


def picture(path: Path, width: int, height: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)).save(path)
    return path


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """Any pixels, at least one: holes, parts and specks included."""
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits, np.bool_).reshape(height, width)
    mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return mask


def test_columns_and_types(tmp_path: Path) -> None:
    found = open_annotations(write(tmp_path / "made.json", coco()))
    assert (found.kind, found.form, found.name) == ("instances", "coco", "made")
    assert found.names == ("cat", "traffic light")
    assert [one.is_novel for one in found.categories] == [None, True]
    assert found.novel.tolist() == [False, True]
    assert [(one.id, one.file, one.width, one.height) for one in found.pictures] == [
        (11, "a.jpg", 12, 9),
        (5, "b.jpg", 6, 5),
    ]
    objects = found.objects(0)
    assert objects.boxes.dtype == np.float32
    assert objects.boxes.tolist() == [[1.25, 1, 7.25, 6.5], [0, 0, 2, 9], [3, 3, 5, 5]]
    assert objects.labels.dtype == np.int64
    assert objects.labels.tolist() == [1, 0, 0]
    assert objects.crowd.tolist() == [False, True, False]
    assert objects.area.tolist() == [20.5, 18, 4]
    assert objects.ids.tolist() == [1, 2, 9]
    empty = found.objects(1)
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert empty.masks.shape == (0, 5, 6)


def test_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    fields = coco()
    whole = np.zeros((9, 12), np.uint8)
    whole[2:5, 1:12:2] = 1
    counts = rle.encode(np.asfortranarray(whole))["counts"].decode()
    fields["annotations"][2]["segmentation"] = {"size": [9, 12], "counts": counts}
    path = write(tmp_path / "made.json", fields)
    with contextlib.redirect_stdout(io.StringIO()):
        peer = COCO(str(path))
    objects = open_annotations(path).objects(0)
    assert objects.has_masks
    for place, number in enumerate(objects.ids.tolist()):
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of numpy 2, in pycocotools
            expected = peer.annToMask(peer.anns[number])
        np.testing.assert_array_equal(objects.mask(place), expected.astype(bool))
    assert objects.masks.shape == (3, 9, 12)
    np.testing.assert_array_equal(objects.masks[2], whole.astype(bool))


def test_only_keeps_what_is_named(tmp_path: Path) -> None:
    objects = open_annotations(write(tmp_path / "made.json", coco())).objects(0)
    assert objects.only(~objects.crowd).ids.tolist() == [1, 9]
    assert objects.only([2, 0]).ids.tolist() == [9, 1]
    assert objects.only(np.zeros(3, bool)).boxes.shape == (0, 4)


def test_a_box_has_no_mask(tmp_path: Path) -> None:
    objects = open_annotations(write(tmp_path / "made.json", coco())).objects(0)
    assert not objects.has_masks
    with pytest.raises(DataError, match="object 9 has a box and no mask"):
        objects.mask(2)


def test_segments_give_a_pixel_to_the_smaller_object_and_never_to_a_crowd(tmp_path: Path) -> None:
    fields = coco()
    fields["annotations"] = [
        {**one, "id": 20 + place, "image_id": 5, "bbox": [0, 0, width, 5], "area": 5 * width, "iscrowd": crowd}
        | {"segmentation": [[0, 0, width, 0, width, 5, 0, 5]], "category_id": category}
        for place, (one, width, crowd, category) in enumerate(
            [({}, 4, 0, 3), ({}, 2, 0, 7), ({}, 1, 1, 3), ({}, 5, 1, 3)]
        )
    ]
    found = open_annotations(write(tmp_path / "made.json", fields))
    assert found.segments(1)[0].tolist() == [1, 1, 0, 0, 3, VOID]
    assert found.semantic(1)[0].tolist() == [1, 1, 0, 0, 0, VOID]


def test_pictures_are_found_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "annotations" / "instances_val2017.json", coco())
    picture(tmp_path / "val2017" / "a.jpg", 12, 9)
    found = open_annotations(path)
    assert found.image(0).size == (12, 9)
    with pytest.raises(DataError, match=r"b\.jpg: no such picture in .*val2017.*; say images=FOLDER"):
        found.image(1)
    picture(tmp_path / "elsewhere" / "b.jpg", 6, 5)
    assert open_annotations(path, images=tmp_path / "elsewhere").image(1).size == (6, 5)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_written_is_what_was_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("coco")
    fields = coco()
    compressed = data.draw(st.booleans())
    numbers = st.floats(0, 12, allow_nan=False)
    for one in fields["annotations"]:
        one["bbox"] = data.draw(st.lists(numbers, min_size=4, max_size=4))
        one["area"] = data.draw(numbers)
        kind = data.draw(st.sampled_from(["polygons", "runs", "string", "none"]))
        if kind == "polygons":
            one["segmentation"] = [data.draw(st.lists(numbers, min_size=6, max_size=6)) for _ in range(2)]
        elif kind == "none":
            one.pop("segmentation", None)
        else:
            found = rle.encode(np.asfortranarray(data.draw(masks(9, 12)), np.uint8))
            counts = found["counts"].decode()
            one["segmentation"] = {"size": [9, 12], "counts": counts}
            if kind == "runs":
                mask = rle.decode(found).T.ravel()
                edges = np.flatnonzero(np.diff(np.concatenate(([0], mask)))) if mask.any() else np.zeros(0, int)
                one["segmentation"]["counts"] = np.diff([0, *edges, mask.size]).tolist()
    first = open_annotations(write(folder / "made.json", fields))
    write_coco(folder / "again.json", first, compressed=compressed)
    second = open_annotations(folder / "again.json")
    assert second.categories == first.categories
    assert second.pictures == first.pictures
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before.xywh, after.xywh)
        for column in ("labels", "crowd", "area", "ids"):
            np.testing.assert_array_equal(getattr(before, column), getattr(after, column))
        assert [shape is None for shape in before.shapes] == [shape is None for shape in after.shapes]
        for place, shape in enumerate(before.shapes):
            if shape is not None:
                np.testing.assert_array_equal(before.mask(place), after.mask(place))
    write_coco(folder / "third.json", second, compressed=compressed)
    again = (folder / "again.json").read_text().replace('"made"', '"again"')
    assert (folder / "third.json").read_text() == again


def test_lvis_fields_are_kept(tmp_path: Path) -> None:
    fields = coco()
    fields["categories"] = [
        {"id": 3, "name": "cat", "frequency": "f", "synonyms": ["cat", "kitty"], "image_count": 9},
        {"id": 7, "name": "traffic_light", "frequency": "r", "synonyms": ["traffic_light"], "image_count": 1},
    ]
    for one, neg, partial in zip(fields["images"], ([7], []), ([], [3]), strict=True):
        one["coco_url"] = f"http://images.cocodataset.org/val2017/{one.pop('file_name')}"
        one["neg_category_ids"], one["not_exhaustive_category_ids"] = neg, partial
    found = open_annotations(write(tmp_path / "lvis.json", fields))
    assert found.form == "lvis"
    assert [one.frequency for one in found.categories] == ["f", "r"]
    assert found.categories[0].synonyms == ("kitty",)
    assert found.pictures[0].file == "val2017/a.jpg"
    assert found.pictures[0].absent == {1}
    assert found.pictures[1].not_exhaustive == {0}
    assert found.pictures[1].absent == frozenset()
    write_coco(tmp_path / "again.json", found)
    again = open_annotations(tmp_path / "again.json")
    assert again.pictures == found.pictures
    assert again.categories == found.categories


def test_a_file_cut_anywhere_names_the_entry(tmp_path: Path) -> None:
    text = json.dumps(coco())
    entry = text.index('"annotations"')
    for end in range(1, len(text), 3):
        (tmp_path / "cut.json").write_text(text[:end])
        with pytest.raises(DataError, match=r"cut\.json: ") as caught:
            open_annotations(tmp_path / "cut.json")
        assert "\n" not in str(caught.value)
        if entry + 40 < end < text.index('"categories"'):
            assert "annotations[" in str(caught.value), text[:end]
    (tmp_path / "cut.json").write_text(text[: entry + 60])
    with pytest.raises(DataError, match=r"cut\.json: the file ends in annotations\[0\] .*; it is cut off"):
        open_annotations(tmp_path / "cut.json")


def broken(place: str, field: str, value: object) -> dict:
    fields = json.loads(json.dumps(coco()))
    if value is ...:
        del fields[place][0][field]
    else:
        fields[place][0][field] = value
    return fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([1, 2], "expected a JSON object"),
        ({"images": {}}, "images: expected a list, got {}"),
        ({"images": [3]}, r"images\[0\]: expected an object, got 3"),
        ({"a": 1}, "no images; expected COCO's lists images, annotations and categories, found only a"),
        (coco(categories=[]), "no categories"),
        (broken("images", "id", ...), r"images\[0\]: no 'id'; it has file_name, width, height"),
        (broken("images", "id", 5), r"images\[1\]: id 5 is that of images\[0\] too"),
        (broken("images", "width", "12"), r'images\[0\]: width: expected int, got "12"'),
        (broken("images", "height", 0), r"images\[0\]: height: expected 1 or more pixels, got 0"),
        (broken("annotations", "bbox", [1, 2, 3]), r"annotations\[0\]: bbox: expected 4 numbers, got \[1, 2, 3\]"),
        (broken("annotations", "bbox", [1, 2, 3, None]), r"annotations\[0\]: bbox: expected finite numbers, got null"),
        (broken("annotations", "bbox", [1, 2, 3, float("nan")]), r"bbox: expected finite numbers, got NaN"),
        (broken("annotations", "image_id", 99), r"annotations\[0\]: image_id 99 is no picture's id"),
        (broken("annotations", "category_id", 99), r"annotations\[0\]: category_id 99 is no category's id"),
        (broken("annotations", "category_id", True), r"category_id: expected int, got true"),
        (broken("annotations", "segmentation", "x"), r"segmentation: expected polygons or run lengths, got str"),
        (
            broken("annotations", "segmentation", [[1, 2, 3, 4]]),
            r"segmentation\[0\]: expected x, y of 3 or more points",
        ),
        (broken("annotations", "segmentation", {"size": [9, 12]}), r"segmentation: no 'counts'"),
        (broken("annotations", "segmentation", {"size": [9, 12], "counts": [-1]}), "counts: expected whole numbers"),
        (broken("categories", "id", 7), r"categories\[1\]: id 7 is that of categories\[0\] too"),
        (broken("categories", "name", 4), r"categories\[0\]: name: expected str, got 4"),
    ],
)
def test_a_bad_file_is_refused_by_entry(tmp_path: Path, fields: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_annotations(write(tmp_path / "bad.json", fields))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    fields = broken("annotations", "segmentation", {"size": [9, 11], "counts": [0, 18, 81]})
    with pytest.raises(DataError, match="a mask of 11 x 9 pixels in a picture of 12 x 9"):
        open_annotations(write(tmp_path / "bad.json", fields)).objects(0).mask(0)
    fields = broken("annotations", "segmentation", {"size": [9, 12], "counts": [0, 18, 81]})
    with pytest.raises(DataError, match="run lengths count 99 pixels, a picture of 12 x 9 has 108"):
        open_annotations(write(tmp_path / "bad.json", fields)).objects(0).mask(0)


def test_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="not UTF-8"):
        open_annotations(tmp_path / "bad.json")
    with pytest.raises(DataError, match="no such file"):
        open_annotations(tmp_path / "none.json")


def test_categories_may_come_first(tmp_path: Path) -> None:
    fields = coco()
    ordered = {key: fields[key] for key in ("categories", "annotations", "images")}
    found = open_annotations(write(tmp_path / "made.json", ordered))
    assert found.objects(0).ids.tolist() == [1, 2, 9]
    assert len(CATEGORIES) == len(found.categories)


def test_grey_and_huge_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "made.json", coco())
    Image.new("L", (12, 9), 7).save(tmp_path / "a.jpg")
    assert open_annotations(path).image(0).mode == "RGB"
    Image.new("1", (10_000, 10_000)).save(tmp_path / "b.png")  # few bytes, more pixels than are decoded
    huge = open_annotations(write(tmp_path / "made.json", json.loads(json.dumps(coco()).replace("b.jpg", "b.png"))))
    with pytest.raises(ImageError, match=r"b\.png"):
        huge.image(1)
