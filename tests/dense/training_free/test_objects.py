"""Objects without training, on a model whose answers are known: cells that see their own colour."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from eyesmith.data.annotations import open_annotations
from eyesmith.dense.training_free import BoxFinder, RegionFinder, TrainingFreeSegmenter
from eyesmith.dense.training_free.measure import measure_segmentation
from eyesmith.dense.vocabulary import Vocabulary, encode_vocabulary
from eyesmith.errors import ConfigError
from eyesmith.models.clip import Clip

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}  # as the model of conftest.py


@pytest.fixture
def clip(colour_clip: Clip) -> Clip:
    return colour_clip


@pytest.fixture
def vocabulary(clip: Clip) -> Vocabulary:
    return encode_vocabulary(clip, list(COLOURS))


def scene() -> Image.Image:
    image = np.full((64, 96, 3), COLOURS["green"], np.uint8)
    image[8:24, 8:40] = COLOURS["red"]
    image[32:56, 16:32] = COLOURS["blue"]
    image[8:40, 64:80] = COLOURS["red"]
    return Image.fromarray(image)


def test_classes_are_found_where_they_are(clip: Clip, vocabulary: Vocabulary) -> None:
    found = TrainingFreeSegmenter(clip, vocabulary)(scene()).class_map()
    colours = np.asarray(scene())
    truth = np.stack([(colours == colour).all(-1) for colour in COLOURS.values()]).argmax(0)
    right = found.labels.numpy() == truth
    assert right.mean() > 0.9  # all but the pixels along borders
    assert right[12:20, 12:36].all()


def test_regions_become_objects(clip: Clip, vocabulary: Vocabulary) -> None:
    for crops in ("white", None):
        found = RegionFinder(clip, vocabulary, crops=crops)(scene())
        things = found[found.labels != 1]
        assert sorted(things.labels.tolist()) == [0, 0, 2]
        for box in ([8, 8, 40, 24], [64, 8, 80, 40], [16, 32, 32, 56]):
            assert float((things.boxes_px - torch.tensor(box)).abs().max(1).values.min()) <= 4
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert len(RegionFinder(clip, vocabulary, limit=2)(scene())) == 2
    assert len(RegionFinder(clip, vocabulary, threshold=1.0)(Image.new("RGB", (40, 40), (90, 90, 90)))) == 0


def test_boxes_are_named(clip: Clip, vocabulary: Vocabulary) -> None:
    finder = BoxFinder(clip, vocabulary)
    found = finder(scene(), torch.tensor([[18.0, 34, 30, 54], [10, 10, 36, 22], [84, 0, 200, 64]]))
    assert sorted(zip(found.labels.tolist(), found.boxes_px[:, 0].tolist(), strict=True)) == [(0, 10), (1, 84), (2, 18)]
    assert found.boxes_px[found.labels == 1].tolist() == [[84, 0, 96, 64]]  # cut to the picture
    assert len(finder(scene(), torch.zeros(0, 4))) == 0
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[0, 32:56, 16:32] = True
    wide = torch.tensor([[0.0, 0, 96, 64]])  # nearly all of it is green, but the mask is blue
    masked = BoxFinder(clip, vocabulary, crops="white")(scene(), wide, masks=mask)
    assert torch.equal(masked.masks_px(), mask)
    many = BoxFinder(clip, vocabulary)(scene(), torch.tensor([[10.0, 10, 12, 12]]).repeat(10_000, 1))
    assert len(many) == 10_000
    assert bool((many.labels == 0).all())


def test_wrong_settings_are_refused(clip: Clip, vocabulary: Vocabulary) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        BoxFinder(clip, vocabulary, threshold=-1)
    with pytest.raises(ConfigError, match="limit"):
        RegionFinder(clip, vocabulary, limit=0)


def test_a_set_is_measured(clip: Clip, tmp_path: Path) -> None:
    labels = np.full((64, 96), 255, np.uint8)  # the green around them has no class
    labels[8:24, 8:40] = labels[8:40, 64:80] = 0
    labels[32:56, 16:32] = 1
    for folder in ("images", "masks"):
        (tmp_path / folder / "test").mkdir(parents=True)
    for name in ("a", "b"):
        scene().save(tmp_path / "images" / "test" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / "test" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    truth = open_annotations(tmp_path, "test")
    done: list[int] = []
    (row,) = measure_segmentation(clip, truth, prompts="name", background=["green"], advance=done.append)
    found = TrainingFreeSegmenter(clip, encode_vocabulary(clip, ["red", "blue", "green"]))(scene()).class_map().labels
    ious = []
    for label in (0, 1):
        mine, right, counted = found.numpy() == label, labels == label, labels != 255
        ious.append((mine & right).sum() / ((mine & counted) | right).sum())
    assert (row.task, row.metric, row.split, row.n, row.model) == ("segment", "miou", "all", 2, "tiny auto")
    assert row.value == pytest.approx(np.mean(ious))
    assert row.value > 0.8
    assert done == [1, 2]
    # masks are of pictures as they are stored, whatever the model does with an orientation elsewhere
    clip.preprocess = replace(clip.preprocess, exif="apply")
    upside_down = Image.Exif()
    upside_down[ExifTags.Base.Orientation] = 3
    scene().save(tmp_path / "images" / "test" / "a.png", exif=upside_down)
    (turned,) = measure_segmentation(clip, truth, prompts="name", background=["green"])
    assert turned.value == row.value
