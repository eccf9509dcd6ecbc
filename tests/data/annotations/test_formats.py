"""Round trips through every format that is written, on drawn sets, and what each of them refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyesmith.data.annotations import VOID, Annotations, convert_annotations, open_annotations
from eyesmith.errors import ConfigError, DataError

MakeSet = Callable[..., Annotations]


def same_pictures(before: Annotations, after: Annotations) -> None:
    assert [(one.width, one.height) for one in after.pictures] == [(one.width, one.height) for one in before.pictures]
    for index in range(len(before)):
        np.testing.assert_array_equal(np.asarray(before.image(index)), np.asarray(after.image(index)))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_coco_keeps_all(tmp_path_factory: pytest.TempPathFactory, make_set: MakeSet, seed: int) -> None:
    folder = tmp_path_factory.mktemp("coco")
    before = make_set(folder / "in", seed)
    assert convert_annotations(before, folder / "out", to="coco", split="val") == []
    after = open_annotations(folder / "out")
    assert after.form == "coco"
    assert after.categories == before.categories
    same_pictures(before, after)
    for one, two in zip(before, after, strict=True):
        for column in ("xywh", "labels", "crowd", "area", "ids"):
            np.testing.assert_array_equal(getattr(one, column), getattr(two, column))
        np.testing.assert_array_equal(one.masks, two.masks)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_yolo_keeps_masks_with_holes_and_parts(
    tmp_path_factory: pytest.TempPathFactory, make_set: MakeSet, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    before = make_set(folder / "in", seed)
    lost = convert_annotations(before, folder / "out", to="yolo", split="val")
    num_crowds = sum(int(one.crowd.sum()) for one in before)
    assert lost == ([f"{num_crowds} crowds left out: YOLO's lines cannot say them"] if num_crowds else [])
    after = open_annotations(folder / "out", "val")
    assert after.form == "yolo"
    assert after.names == before.names
    same_pictures(before, after)
    for one, two in zip(before, after, strict=True):
        counted = one.only(~one.crowd)
        np.testing.assert_array_equal(counted.labels, two.labels)
        np.testing.assert_array_equal(counted.masks, two.masks)
        np.testing.assert_allclose(counted.xywh, two.xywh, atol=1e-6)
        np.testing.assert_allclose(counted.area, two.area, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_panoptic_keeps_what_shares_no_pixel(
    tmp_path_factory: pytest.TempPathFactory, make_set: MakeSet, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("panoptic")
    before = make_set(folder / "in", seed, disjoint=True)
    assert convert_annotations(before, folder / "out", to="panoptic", split="val") == []
    after = open_annotations(folder / "out")
    assert (after.form, after.kind) == ("panoptic", "panoptic")
    assert after.categories == before.categories
    same_pictures(before, after)
    for index, (one, two) in enumerate(zip(before, after, strict=True)):
        for column in ("xywh", "labels", "crowd", "area", "ids"):
            np.testing.assert_array_equal(getattr(one, column), getattr(two, column))
        np.testing.assert_array_equal(one.masks, two.masks)
        np.testing.assert_array_equal(after.void(index), ~one.masks.any(0))
        np.testing.assert_array_equal(before.segments(index), after.segments(index))
    again = folder / "again"
    convert_annotations(after, again, to="panoptic", split="val", pictures=False)
    name = "annotations/val.json"
    assert (again / name).read_text().replace("out val", "made") == (folder / "out" / name).read_text()
    for file in (folder / "out" / "annotations" / "val").iterdir():
        assert (again / "annotations" / "val" / file.name).read_bytes() == file.read_bytes()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_png_masks_keep_the_class_of_each_pixel(
    tmp_path_factory: pytest.TempPathFactory, make_set: MakeSet, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("png")
    before = make_set(folder / "in", seed)
    lost = convert_annotations(before, folder / "out", to="png", split="val")
    assert lost == ["which pixels belong to which object: a map of classes has no objects"]
    after = open_annotations(folder / "out", "val")
    assert (after.form, after.kind, after.names) == ("png", "semantic", before.names)
    same_pictures(before, after)
    for index in range(len(before)):
        np.testing.assert_array_equal(before.semantic(index), after.semantic(index))
        np.testing.assert_array_equal(after.void(index), before.semantic(index) == VOID)
        for place, label in enumerate(after.objects(index).labels):
            np.testing.assert_array_equal(after.objects(index).mask(place), before.semantic(index) == label)
    convert_annotations(after, folder / "again", to="png", split="val", pictures=False)
    for file in (folder / "out" / "masks" / "val").iterdir():
        assert (folder / "again" / "masks" / "val" / file.name).read_bytes() == file.read_bytes()


def test_two_splits_share_a_yolo_folder(made: Annotations, tmp_path: Path) -> None:
    for split in ("train", "val"):
        convert_annotations(made, tmp_path / "out", to="yolo", split=split)
    with pytest.raises(ConfigError, match="which split\\? It has train, val; say split=train"):
        open_annotations(tmp_path / "out")
    assert len(open_annotations(tmp_path / "out" / "data.yaml", "val")) == 4
    other = open_annotations(tmp_path / "out", "val")
    with pytest.raises(ConfigError, match="no split 'test'; it has train, val"):
        open_annotations(tmp_path / "out", "test")
    (tmp_path / "out" / "data.yaml").write_text("names: [a, b]\ntrain: images/train\n")
    with pytest.raises(DataError, match="has other class names"):
        convert_annotations(other, tmp_path / "out", to="yolo", split="test", pictures=False)


def test_a_set_is_not_written_over_or_among_another(made: Annotations, make_set: MakeSet, tmp_path: Path) -> None:
    convert_annotations(made, tmp_path / "out", to="coco")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    convert_annotations(made, tmp_path / "out", to="coco")  # the same again
    fewer = replace(made, pictures=made.pictures[:2])
    for other in (make_set(tmp_path / "in", 7), fewer):
        with pytest.raises(DataError, match=r"images/train: pictures of another set lie there, such as .*nothing was"):
            convert_annotations(other, tmp_path / "out", to="yolo")
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    again = open_annotations(tmp_path / "out")
    (tmp_path / "out" / "images" / "train" / "unlisted.png").write_bytes(b"")
    convert_annotations(again, tmp_path / "out", to="yolo")  # beside what it was read from


def test_what_a_format_cannot_hold_is_refused_before_a_picture_is_copied(made: Annotations, tmp_path: Path) -> None:
    out = tmp_path / "out"
    many = tuple(replace(made.categories[0], id=number, name=f"class {number}") for number in range(256))
    with pytest.raises(DataError, match="256 classes, a PNG of bytes has 255"):
        convert_annotations(replace(made, categories=many), out, to="png")
    stems = [replace(one, file=f"a.{'png' if place else 'jpg'}") for place, one in enumerate(made.pictures[:2])]
    for to in ("yolo", "panoptic", "png"):
        with pytest.raises(DataError, match="their files would have one name"):
            convert_annotations(replace(made, pictures=tuple(stems)), out, to=to)
    assert not out.exists()


@pytest.mark.parametrize("to", ["yolo", "png"])
def test_a_split_with_other_classes_is_not_written_beside_one(made: Annotations, tmp_path: Path, to: str) -> None:
    convert_annotations(made, tmp_path / "out", to=to, split="train")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    turned = tuple(replace(one, name=f"no {one.name}") for one in made.categories)
    with pytest.raises(DataError, match="has other class names"):
        convert_annotations(replace(made, categories=turned), tmp_path / "out", to=to, split="val")
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_boxes_alone_and_plain_folders_of_yolo(tmp_path: Path) -> None:
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    Image.new("RGB", (10, 20)).save(tmp_path / "images" / "a.png")
    Image.new("RGB", (10, 20)).save(tmp_path / "images" / "b.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.25 0.2 0.1\n\n0 0 0 1 0 1 0.5 0 0.5\n")
    found = open_annotations(tmp_path)
    objects = found.objects(0)
    np.testing.assert_allclose(objects.boxes, [[4, 4, 6, 6], [0, 0, 10, 10]], atol=1e-6)
    assert objects.labels.tolist() == [1, 0]
    assert [shape is None for shape in objects.shapes] == [True, False]
    np.testing.assert_allclose(objects.area, [4, 100])
    assert objects.mask(1).sum() == 100
    assert len(found.objects(1)) == 0
    assert found.image(1).size == (10, 20)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "line 1: class 2; there are 2, counted from 0"),
        ("cat 0.5 0.5 0.1 0.1", "line 1: expected a class number and fractions, got 'cat 0.5"),
        ("0 0.5 0.5 0.1", "line 1: expected 4 numbers .* got 3 numbers"),
        ("0 0.5 nan 0.1 0.1", "line 1: expected finite numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line 1: expected 4 numbers .* got 7 numbers"),
    ],
)
def test_a_bad_line_of_yolo_is_named(tmp_path: Path, line: str, message: str) -> None:
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    Image.new("RGB", (10, 20)).save(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\ntrain: images\n")
    (tmp_path / "labels" / "a.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=rf"a\.txt: {message}"):
        open_annotations(tmp_path).objects(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\n", "no YAML"),
        ("- 1\n", "expected names, train and val, got list"),
        ("names: {0: a, 2: b}\ntrain: images\n", "names: expected the numbers 0 to 1"),
        ("names: 3\ntrain: images\n", "names: expected the class names, got 3"),
        ("names: [a]\nnc: 2\ntrain: images\n", "nc: 2 classes, names has 1"),
        ("names: [a]\n", "expected train, val or test"),
        ("names: [a]\ntrain: nowhere\n", "nowhere: no such folder of pictures"),
    ],
)
def test_a_bad_data_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_annotations(tmp_path)


def test_voc_boxes(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (10, 20)).save(tmp_path / "JPEGImages" / "a.jpg")
    xml = (
        "<annotation><filename>a.jpg</filename><size><width>10</width><height>20</height><depth>3</depth></size>"
        "<object><name>dog</name><difficult>1</difficult>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>"
        "<object><name>cat</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object>"
        "</annotation>"
    )
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(xml)
    found = open_annotations(tmp_path)
    assert (found.form, found.names) == ("voc-boxes", ("cat", "dog"))
    objects = found.objects(0)
    assert objects.boxes.tolist() == [[0, 0, 10, 20], [2, 3, 4, 4]]
    assert objects.crowd.tolist() == [True, False]
    assert found.image(0).size == (10, 20)
    for old, new, message in (
        ("</annotation>", "", "no XML"),
        ("<width>10</width>", "", "no <size/width> in <annotation>"),
        ("<xmin>3", "<xmin>x", "<bndbox/xmin>: expected a number, got 'x'"),
        ("<name>cat</name>", "", "no <name> in <object>"),
    ):
        file.write_text(xml.replace(old, new))
        with pytest.raises(DataError, match=rf"a\.xml: {message}"):
            open_annotations(tmp_path)
    file.write_text(xml)
    (tmp_path / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match=r"a\.xml: class 'cat' is not in .*classes\.txt"):
        open_annotations(tmp_path)


def test_unknown_forms_are_refused(made: Annotations, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="to: expected one of coco, panoptic, yolo, png, got 'voc'"):
        convert_annotations(made, tmp_path, to="voc")
    with pytest.raises(ConfigError, match="form: expected one of coco, lvis, panoptic"):
        open_annotations(tmp_path, form="x")
    with pytest.raises(DataError, match="no boxes or masks in a form that is read"):
        open_annotations(tmp_path / "pictures")
