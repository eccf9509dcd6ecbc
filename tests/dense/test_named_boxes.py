"""Naming given boxes: rows that a loop over boxes gives too, and what is known apart from what is not."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from eyesmith.data.make.scenes import make_scenes
from eyesmith.data.sources import open_source
from eyesmith.dense.named_boxes import named_boxes, scene_boxes
from eyesmith.dense.regions import crop_boxes
from eyesmith.errors import DataError
from eyesmith.images import PreprocessConfig
from eyesmith.images.transforms import evaluation_pixels
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig


def tiny_clip() -> Clip:
    torch.manual_seed(0)
    config = ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    )
    return config.build().eval()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, samples=6, size_px=64)
    return folder


def test_rows_are_those_of_a_loop_over_boxes(scenes: Path):
    clip = tiny_clip()
    rows = {(row.model, row.split, row.metric): row for row in named_boxes(clip, str(scenes), "test", limit=5)}
    facts = json.loads((scenes / "dataset.json").read_text(encoding="utf-8"))
    names = facts["splits"]["test"]["classes"]
    weights = clip.class_weights(names, [one.replace("{c}", "{}") for one in facts["templates"]])
    source = open_source(scenes, split="test")
    assert source.classes is not None
    right = {"dense": 0, "crop": 0}
    count = 0
    for index in range(5):
        pixels = evaluation_pixels(source.image_bytes(index), PreprocessConfig(image_size=(64, 64)))[None]
        cells = clip.image.at_size(64, 64).dense(pixels)[0]  # [C, 4, 4]
        found = scene_boxes(source, index)
        for box, label in zip(found.boxes, found.labels.tolist(), strict=True):
            wanted = names.index(source.classes[label])
            fine = F.interpolate(cells[None], scale_factor=16, mode="nearest")[0]  # a cell for each pixel
            x0, y0, x1, y1 = (int(edge) for edge in box)
            mean = clip.image.project(fine[:, y0:y1, x0:x1].mean(dim=(1, 2))[None])
            right["dense"] += int(int((mean @ weights.mT).argmax()) == wanted)
            cut = crop_boxes(pixels, box[None], torch.zeros(1, dtype=torch.int64), (32, 32))
            right["crop"] += int(int((clip.encode_image(cut) @ weights.mT).argmax()) == wanted)
            count += 1
    for way, hits in right.items():
        row = rows[f"tiny {way}", "test", "acc1"]
        assert (round(row.value * row.n), row.n) == (hits, count)
        assert row.chance == pytest.approx(1 / len(names))
        assert rows[f"tiny {way}", "test", "acc5"].value >= row.value


def test_objects_of_unknown_concepts_are_told_from_all(scenes: Path, tmp_path: Path):
    facts = json.loads((scenes / "dataset.json").read_text(encoding="utf-8"))
    novel = facts["splits"]["test"]["classes"][::3]
    facts["splits"]["test"]["base"] = [name for name in facts["splits"]["test"]["classes"] if name not in novel]
    place = tmp_path / "set"
    place.mkdir()
    for path in scenes.iterdir():
        if path.name != "dataset.json":
            (place / path.name).symlink_to(path)
    (place / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    rows = named_boxes(tiny_clip(), str(place), "test", ways=("crop",), limit=30)
    counts = {row.split: row.n for row in rows}
    assert set(counts) == {"test", "test:novel", "test:all"}
    assert counts["test"] + counts["test:novel"] == counts["test:all"]
    chances = {row.split: row.chance for row in rows if row.metric == "acc1"}
    assert chances["test"] == pytest.approx(1 / len(facts["splits"]["test"]["base"]))
    assert chances["test:novel"] == chances["test:all"] == pytest.approx(1 / len(facts["splits"]["test"]["classes"]))


def test_what_has_no_boxes_is_refused(scenes: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no split 'nothing'; it has train"):
        named_boxes(tiny_clip(), str(scenes), "nothing")
    for name, color in (("a", 20), ("b", 200)):
        (tmp_path / name).mkdir()
        from PIL import Image

        Image.new("RGB", (32, 32), (color, 0, 0)).save(tmp_path / name / "one.png")
    with pytest.raises(DataError, match="has no boxes with names"):
        scene_boxes(open_source(tmp_path), 0)


def test_lines_say_whose_they_are(scenes: Path) -> None:
    torch.manual_seed(1)
    one, other = tiny_clip(), tiny_clip()
    with torch.no_grad():
        other.image.head.weight.add_(1.0)
    runs = [named_boxes(clip, str(scenes), "test", ways=("crop",), limit=2)[0].run for clip in (one, other)]
    assert all(run is not None and run["limit"] == 2 for run in runs)
    assert runs[0]["weights"] != runs[1]["weights"]
    assert runs[0]["data"] == runs[1]["data"]
