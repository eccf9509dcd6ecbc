"""The linear probe of pixels on a set of pictures: what colour tells is told, what fills no cell is never found."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.data.annotations import open_annotations
from eyesmith.dense.probe_set import probe_segmentation
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.models import create

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "dot": (250, 250, 60)}


def made(folder: Path, *, count: int, seed: int) -> Path:
    """Pictures of 64 x 48 pixels: red beside blue, the border at a multiple of 16, one dot of 4 pixels on each."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(COLOURS))
    for number in range(count):
        labels = np.zeros((48, 64), np.uint8)
        labels[:, 16 * int(rng.integers(1, 4)) :] = 1
        y, x = rng.integers(0, 40, 2)
        labels[y : y + 4, x : x + 4] = 2
        colours = np.array(list(COLOURS.values()))[labels] + rng.integers(-8, 8, (48, 64, 3))
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sets")
    return made(root / "train", count=12, seed=0), made(root / "test", count=6, seed=1)


def test_colours_are_told_apart_and_a_dot_is_never_found(sets: tuple[Path, Path], tmp_path: Path) -> None:
    clip = create("ViTamin-Nano").eval()
    train, test = (open_annotations(path) for path in sets)
    (row,) = probe_segmentation(clip.image, train, test, model="nano", side_px=64)
    assert (row.task, row.metric, row.split, row.model) == ("segment", "miou", "all", "nano probe")
    assert 0.6 < row.value <= 0.67  # two of three classes are nearly right, the third is not
    assert row.run["learnt"] == 2
    save_model(tmp_path / "nano", clip)
    words = ["probe", str(tmp_path / "nano"), "--train", str(sets[0]), "--test", str(sets[1]), "--head", "segment"]
    assert main([*words, "--side-px", "64", "--out", str(tmp_path / "out"), "--json"]) == 0
    (again,) = read_rows(tmp_path / "out" / "results.jsonl")
    assert again.value == pytest.approx(row.value)
    assert again.run["data"] == row.run["data"]


def test_another_picture_is_another_number(sets: tuple[Path, Path], tmp_path: Path) -> None:
    clip = create("ViTamin-Nano").eval()
    train = open_annotations(sets[0])
    other = open_annotations(made(tmp_path / "other", count=2, seed=5))
    found = [probe_segmentation(clip.image, train, open_annotations(sets[1]), model="m", side_px=64)[0]]
    found.append(probe_segmentation(clip.image, train, other, model="m", side_px=64)[0])
    assert found[0].run["data"] != found[1].run["data"]
    assert json.dumps(found[0].run["eye"]) == json.dumps(found[1].run["eye"])


def test_what_cannot_be_is_said(sets: tuple[Path, Path], tmp_path: Path) -> None:
    clip = create("ViTamin-Nano").eval()
    train, test = (open_annotations(path) for path in sets)
    with pytest.raises(ConfigError, match="multiple of 16"):
        probe_segmentation(clip.image, train, test, model="m", side_px=40)
    folder = made(tmp_path / "odd", count=1, seed=0)
    (folder / "classes.txt").write_text("green\nblue\ndot")
    with pytest.raises(DataError, match="two splits of one set"):
        probe_segmentation(clip.image, train, open_annotations(folder), model="m", side_px=64)
