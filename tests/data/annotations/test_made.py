"""Made data sets open by folder and split: boxes, masks and what is held out, pictures out of tars."""

import json
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.annotations import convert_annotations, open_annotations
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, samples=12, size_px=48)
    return folder


def test_scenes(scenes: Path) -> None:
    with pytest.raises(ConfigError, match="which split"):
        open_annotations(scenes)
    found = open_annotations(scenes, "unseen_combination")
    facts = json.loads((scenes / "dataset.json").read_text())
    assert found.names == tuple(facts["classes"])
    assert {one.name for one in found.categories if one.is_novel} == set(facts["held_out_concepts"])
    assert found.novel.sum() == len(facts["held_out_concepts"])
    for index in (0, 5):
        objects = found.objects(index)
        assert found.novel[objects.labels[0]]
        masks, boxes = objects.masks, objects.boxes
        assert masks.shape == (len(objects), 48, 48)
        for mask, box, area in zip(masks, boxes, objects.area, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert area == mask.sum()
        assert found.image(index).size == (48, 48)
        pixels = np.asarray(found.image(index)).astype(int)
        border = np.median(pixels[:2].reshape(-1, 3), 0)
        inside = np.abs(pixels[masks[0]] - border).max(-1)
        assert (inside > 8).mean() > 0.5  # the mask is where the shape is drawn


def test_what_the_makers_write_as_coco_opens_by_folder(scenes: Path, tmp_path: Path) -> None:
    """A made set with annotations/SPLIT.json beside its tars: boxes from the one, pictures from the others."""
    folder = tmp_path / "made"
    folder.mkdir()
    for one in scenes.iterdir():
        (folder / one.name).symlink_to(one)
    for split in ("train", "test"):
        convert_annotations(open_annotations(scenes, split), folder, to="coco", split=split, pictures=False)
    found = open_annotations(folder, "test")
    assert found.form == "coco"
    before = open_annotations(scenes, "test")
    assert found.categories == before.categories
    np.testing.assert_array_equal(found.objects(3).masks, before.objects(3).masks)
    np.testing.assert_array_equal(np.asarray(found.image(3)), np.asarray(before.image(3)))


def test_a_made_set_without_objects_is_refused(tmp_path: Path, shards: Path) -> None:
    folder = tmp_path / "made"
    (folder / "train").mkdir(parents=True)
    for file in shards.iterdir():
        (folder / "train" / file.name).write_bytes(file.read_bytes())
    (folder / "dataset.json").write_text(json.dumps({"name": "x", "splits": {"train": {}}}))
    with pytest.raises(DataError, match="names no classes and size_px"):
        open_annotations(folder, "train")
    (folder / "dataset.json").write_text(json.dumps({"classes": ["a"], "size_px": 40, "splits": {"train": {}}}))
    with pytest.raises(DataError, match="its json has no 'objects'"):
        open_annotations(folder, "train")
