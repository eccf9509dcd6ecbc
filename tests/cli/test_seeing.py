"""`eyesmith segment` and `eyesmith detect` as a user types them, right and wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eyesmith as package
from eyesmith.cli.segment import _largest
from eyesmith.data.annotations import open_annotations
from eyesmith.dense.training_free import BoxFinder, TrainingFreeSegmenter
from eyesmith.dense.vocabulary import encode_vocabulary
from eyesmith.models.clip import Clip


def test_segment_writes_overlays_masks_and_coco(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("segment", run_folder, photos / "cat", "--classes", "cat/kitten, dog,sky", "--out", out)
    status, text, err = eyesmith(*words)
    assert status == 0, err
    assert "red" in text
    assert "cat" in text
    assert {path.name for path in out.iterdir()} == {
        "classes.txt",
        "found.json",
        *(f"{name}.{kind}.png" for name in ("red", "blue") for kind in ("overlay", "mask")),
    }
    assert (out / "classes.txt").read_text() == "cat\ndog\nsky\n"
    clip = package.load(run_folder)
    assert isinstance(clip, Clip)
    segmenter = TrainingFreeSegmenter(clip, encode_vocabulary(clip, [["cat", "kitten"], ["dog"], ["sky"]]))
    want = segmenter(photos / "cat" / "red.png").class_map()
    assert np.array_equal(np.asarray(Image.open(out / "red.mask.png")), want.labels.numpy())
    found = json.loads((out / "found.json").read_text())
    assert [Path(one["file_name"]).name for one in found["images"]] == ["blue.png", "red.png"]
    assert sum(one["area"] for one in found["annotations"]) <= 2 * 60 * 50

    status, text, _ = eyesmith(*words, "--json", "--threshold", 1.0)
    assert status == 0
    told = json.loads(text)
    assert set(told["images"][0]["parts"]) == {"cat", "dog", "sky"}
    assert sum(told["images"][0]["parts"].values()) < 1
    assert (np.asarray(Image.open(out / "red.mask.png")) == 255).any()


def test_detect_names_given_boxes(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    given = {
        "images": [{"id": 7, "file_name": "red.png", "width": 60, "height": 50}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 5, 20, 30], "area": 600, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 60, 50], "area": 3000, "iscrowd": 1},
        ],
    }
    (tmp_path / "given.json").write_text(json.dumps(given))
    words = ("detect", run_folder, photos / "cat" / "red.png", "--classes", "cat,dog", "--out", tmp_path / "out")
    status, text, err = eyesmith(*words, "--boxes", tmp_path / "given.json", "--json")
    assert status == 0, err
    objects = json.loads(text)["images"][0]["objects"]
    clip = package.load(run_folder)
    assert isinstance(clip, Clip)
    finder = BoxFinder(clip, encode_vocabulary(clip, ["cat", "dog"]))
    want = finder(photos / "cat" / "red.png", torch.tensor([[5.0, 5, 25, 35], [0, 0, 1, 1]]))  # not the crowd
    assert [one["box"] for one in objects] == want.boxes_px.tolist()
    np.testing.assert_allclose([one["score"] for one in objects], want.scores.numpy(), rtol=1e-5)
    assert (tmp_path / "out" / "red.overlay.png").is_file()

    status, _, err = eyesmith(*words[:2], photos / "cat" / "blue.png", *words[3:], "--boxes", tmp_path / "given.json")
    assert status == 2
    assert "has no picture called blue.png; its pictures are red.png" in err


def test_detect_finds_regions_without_boxes(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, text, err = eyesmith("detect", run_folder, photos, "--classes", "cat,dog", "--out", out, "--top", 2)
    assert status == 0, err
    assert text.count("%") >= 3
    read = open_annotations(out / "found.json")
    assert len(read) == 3
    assert all(0 < len(one) <= 2 for one in read)
    masks = sorted(path.name for path in out.glob("red-*.png"))
    assert len(masks) == len(read.objects([one.file.endswith("red.png") for one in read.pictures].index(True)))


def test_broken_pictures_are_named_and_left_out(eyesmith, run_folder: Path, broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, text, err = eyesmith("segment", run_folder, broken, "--classes", "cat,dog", "--out", out, "--json")
    assert status == 0
    assert len(json.loads(text)["images"]) == 3
    assert "half.png" in err
    status, text, err = eyesmith("detect", run_folder, broken / "dog" / "text.jpg", "--classes", "cat,dog")
    assert (status, text) == (1, "")
    assert "not one of 1 pictures can be read" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected what to look for: --classes cat,dog"),
        (("--classes", "cat,,dog"), "separated by commas"),
        (("--classes", "cat"), "add what else is there: --classes cat,background"),
        (("--classes", "cat,cat"), "'cat' is there twice"),
        (("--classes", "cat,dog", "--threshold", "2"), "threshold: expected 0 to 1, got 2"),
        (("--classes", "cat,dog", "--prompts", "fclip"), "no 'fclip'"),
        (("--classes", "cat,dog", "--scale", "0"), "scale: expected above 0"),
        (("--classes", "cat,dog", "--classes-file", "x.txt"), "expected what to look for"),
    ],
)
@pytest.mark.parametrize("verb", ["segment", "detect"])
def test_what_is_wrong_is_said(
    eyesmith, run_folder: Path, photos: Path, verb: str, words: tuple[str, ...], message: str
) -> None:
    status, out, err = eyesmith(verb, run_folder, photos, *words)
    assert (status, out) == (2, "")
    assert message in err


def test_a_file_of_classes(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("person,child, girl\n\nsky\n")
    out = tmp_path / "out"
    status, _, err = eyesmith(
        "segment", run_folder, photos / "dog", "--classes-file", tmp_path / "classes.txt", "--out", out, "--whole"
    )
    assert status == 0, err
    assert (out / "classes.txt").read_text() == "person\nsky\n"


def test_a_picture_without_any_named_thing_says_so() -> None:
    assert _largest({"cat": 0.0, "dog": 0.0}) == "nothing"
    assert _largest({"cat": 0.25, "dog": 0.0}) == "cat 25.0 %"
