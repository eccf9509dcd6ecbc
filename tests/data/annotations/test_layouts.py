"""The layouts of published sets, each drawn by hand here as its files lie on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.annotations import VOID, open_annotations
from eyesmith.errors import ConfigError, DataError


def save(path: Path, values: object, mode: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(values)
    image = Image.fromarray(array.astype(np.uint16) if mode == "16" else array.astype(np.uint8))
    if mode == "P":
        image = image.convert("P")
        image.putdata(np.ravel(values).tolist())
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def rgb(path: Path, height: int, width: int) -> None:
    save(path, np.zeros((height, width, 3)))


def test_voc_masks_have_a_palette_and_void(tmp_path: Path) -> None:
    rgb(tmp_path / "JPEGImages" / "x.jpg", 2, 3)
    save(tmp_path / "SegmentationClass" / "x.png", [[0, 255, 15], [15, 20, 20]], "P")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("x\n")
    found = open_annotations(tmp_path, "val")
    assert (found.form, found.kind, len(found.categories)) == ("voc", "semantic", 21)
    assert found.semantic(0).tolist() == [[0, VOID, 15], [15, 20, 20]]
    objects = found.objects(0)
    assert [found.names[label] for label in objects.labels] == ["background", "person", "tvmonitor"]
    assert objects.boxes.tolist() == [[0, 0, 1, 1], [0, 0, 3, 2], [1, 1, 3, 2]]
    assert objects.area.tolist() == [1, 2, 2]
    assert found.image(0).size == (3, 2)
    with pytest.raises(ConfigError, match="no such list; there are val"):
        open_annotations(tmp_path, "test")


def test_pascal_context_names_its_values(tmp_path: Path) -> None:
    rgb(tmp_path / "JPEGImages" / "x.jpg", 1, 3)
    save(tmp_path / "SegmentationClassContext" / "x.png", [[0, 1, 2]])
    with pytest.raises(DataError, match=r"no labels\.txt; it names the class of each value"):
        open_annotations(tmp_path)
    (tmp_path / "labels.txt").write_text("1: aeroplane\n2: bag\n")
    found = open_annotations(tmp_path)
    assert (found.form, found.names) == ("context", ("aeroplane", "bag"))
    assert found.semantic(0).tolist() == [[VOID, 0, 1]]


def test_ade20k_counts_classes_from_1(tmp_path: Path) -> None:
    rgb(tmp_path / "images" / "validation" / "x.jpg", 1, 3)
    save(tmp_path / "annotations" / "validation" / "x.png", [[0, 1, 150]])
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    lines += [f"{number}\t0.1\t5\t2\tclass {number}, also {number}" for number in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(lines) + "\n")
    found = open_annotations(tmp_path, "validation")
    assert (found.form, len(found.categories)) == ("ade20k", 150)
    assert (found.categories[0].name, found.categories[0].synonyms) == ("class 1", ("also 1",))
    assert found.semantic(0).tolist() == [[VOID, 0, 149]]
    assert found.void(0).tolist() == [[True, False, False]]  # pyright: ignore
    (tmp_path / "objectInfo150.txt").write_text("Idx\n1 wall\n")
    with pytest.raises(DataError, match="line 2: expected index, ratio, train, val and name"):
        open_annotations(tmp_path, "validation")


def test_cityscapes_train_ids_instances_and_groups(tmp_path: Path) -> None:
    rgb(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_0_leftImg8bit.png", 1, 6)
    root = tmp_path / "gtFine" / "val" / "ulm"
    save(root / "ulm_0_gtFine_labelTrainIds.png", [[0, 13, 18, 255, 255, 5]])
    trained = open_annotations(tmp_path, "val")
    assert (trained.kind, len(trained.categories)) == ("semantic", 19)
    assert trained.semantic(0).tolist() == [[0, 13, 18, VOID, VOID, 5]]
    save(root / "ulm_0_gtFine_labelIds.png", [[7, 26, 33, 0, 29, 17]])
    by_label = open_annotations(tmp_path, "val")
    assert by_label.semantic(0).tolist() == trained.semantic(0).tolist()
    assert by_label.names == trained.names
    assert by_label.names[0], by_label.names[18] == ("road", "bicycle")
    save(root / "ulm_0_gtFine_instanceIds.png", [[7, 26001, 26, 0, 26000, 17]], "16")
    found = open_annotations(tmp_path, "val")
    assert (found.form, found.kind) == ("cityscapes", "panoptic")
    objects = found.objects(0)
    assert [found.names[label] for label in objects.labels] == ["road", "pole", "car", "car", "car"]
    assert objects.ids.tolist() == [7, 17, 26, 26000, 26001]
    assert objects.crowd.tolist() == [False, False, True, False, False]
    assert [one.is_thing for one in found.categories] == [False] * 11 + [True] * 8
    assert found.void(0).tolist() == [[False, False, False, True, False, False]]  # pyright: ignore
    assert found.image(0).size == (6, 1)


def test_mapillary_leaves_out_what_it_does_not_evaluate(tmp_path: Path) -> None:
    labels = [
        {"name": "animal--bird", "readable": "Bird", "instances": True, "evaluate": True},
        {"name": "nature--sky", "readable": "Sky", "instances": False, "evaluate": True},
        {"name": "void--unlabeled", "readable": "Unlabeled", "instances": False, "evaluate": False},
    ]
    (tmp_path / "config.json").write_text(json.dumps({"labels": labels}))
    rgb(tmp_path / "validation" / "images" / "x.jpg", 1, 4)
    save(tmp_path / "validation" / "labels" / "x.png", [[0, 0, 1, 2]], "P")
    found = open_annotations(tmp_path)
    assert (found.form, found.kind, found.names) == ("mapillary", "semantic", ("Bird", "Sky"))
    assert found.semantic(0).tolist() == [[0, 0, 1, VOID]]
    save(tmp_path / "validation" / "instances" / "x.png", [[0, 1, 256, 512]], "16")
    found = open_annotations(tmp_path, "validation")
    assert found.kind == "panoptic"
    assert found.objects(0).labels.tolist() == [0, 0, 1]
    assert [one.is_thing for one in found.categories] == [True, False]
    assert found.semantic(0).tolist() == [[0, 0, 1, VOID]]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"config\.json: labels: expected a list, got null"):
        open_annotations(tmp_path)


def test_maps_that_are_none(tmp_path: Path) -> None:
    rgb(tmp_path / "images" / "x.png", 2, 2)
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n\n7 dog\n")
    rgb(tmp_path / "masks" / "x.png", 2, 2)
    found = open_annotations(tmp_path)
    assert found.names == ("cat", "7 dog")
    with pytest.raises(DataError, match=r"x\.png: a map has one value a pixel, this picture has mode 'RGB'"):
        found.objects(0)
    (tmp_path / "classes.txt").write_text("0 cat\n7: dog\n255 void\n")
    save(tmp_path / "masks" / "x.png", [[0, 7], [255, 3]])
    assert open_annotations(tmp_path).semantic(0).tolist() == [[0, 1], [VOID, VOID]]
    whole = (tmp_path / "masks" / "x.png").read_bytes()
    save(tmp_path / "masks" / "x.png", np.random.default_rng(0).integers(0, 9, (64, 64)))
    cut = (tmp_path / "masks" / "x.png").read_bytes()[:500]
    (tmp_path / "masks" / "x.png").write_bytes(cut)
    with pytest.raises(DataError, match=r"x\.png: damaged: "):
        open_annotations(tmp_path).objects(0)
    (tmp_path / "masks" / "x.png").write_bytes(whole)
    rgb(tmp_path / "images" / "y.png", 2, 2)
    with pytest.raises(DataError, match=r"y\.png: no map"):
        open_annotations(tmp_path)
    (tmp_path / "classes.txt").write_text("1 a\n1 b\n")
    with pytest.raises(DataError, match="line 2: value 1 has a name already"):
        open_annotations(tmp_path)


def test_panoptic_files_that_do_not_fit(tmp_path: Path) -> None:
    fields = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 3, "height": 1}],
        "categories": [{"id": 4, "name": "cat", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 65536 + 513, "category_id": 4, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0},
                    {"id": 7, "category_id": 9, "area": 1, "bbox": [1, 0, 1, 1], "iscrowd": 1},
                ],
            }
        ],
    }
    path = tmp_path / "panoptic_val.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="no folder of segment PNGs"):
        open_annotations(path)
    save(tmp_path / "panoptic_val" / "a.png", [[[1, 2, 1], [7, 0, 0], [5, 0, 0]]])
    found = open_annotations(path)
    assert found.segments(0).tolist() == [[0, 1, VOID]]
    assert found.void(0).tolist() == [[False, False, True]]  # pyright: ignore
    assert [one.is_thing for one in found.categories] == [True, False]
    assert found.objects(0).crowd.tolist() == [False, True]
    save(tmp_path / "panoptic_val" / "a.png", [[1, 2, 3]])
    with pytest.raises(DataError, match=r"a\.png: a panoptic PNG has three channels .*a map of classes is no map"):
        found.objects(0)
    save(tmp_path / "panoptic_val" / "a.png", np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match=r"a\.png: 3 x 2 pixels, the picture has 3 x 1"):
        found.objects(0)
    for place, field, value, message in (
        ("annotations", "segments_info", None, r"annotations\[0\]: segments_info: expected a list, got null"),
        ("annotations", "image_id", 5, "annotations: image_id 5 is no picture's id"),
        ("categories", "id", 5, "segment 66049: category_id 4 is no category's id"),
    ):
        bad = json.loads(json.dumps(fields))
        bad[place][0][field] = value
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=message):
            open_annotations(path)
