"""A linear probe of an eye's map on a set of masks: what it learns, what it says it cannot, and the verb."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.data.annotations import open_annotations
from eyesmith.data.annotations.masks import encode_mask
from eyesmith.dense.segmentation_probe import probe_segments
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads.run import ProbePlan
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.models.clip import Clip, ClipConfig

COLOURS = {"red": (230, 10, 10), "blue": (10, 10, 230), "dot": (10, 230, 10)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures, half of each red or blue, in one a green dot that fills half of no cell."""
    folder = tmp_path_factory.mktemp("halves")
    (folder / "annotations").mkdir()
    for split, count in (("train", 10), ("test", 6)):
        images, found = [], []
        (folder / "images" / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((48, 64, 3), 128, np.uint8)
            parts = [(number % 2, slice(0, 48), slice(0, 32) if number % 3 else slice(32, 64))]
            parts += [(2, slice(2, 4), slice(30, 32))] if number == 0 else []
            for label, rows, columns in parts:
                mask = np.zeros((48, 64), np.bool_)
                mask[rows, columns] = True
                pixels[mask] = list(COLOURS.values())[label]
                runs = encode_mask(mask)
                found.append(
                    {
                        "id": len(found) + 1,
                        "image_id": number + 1,
                        "category_id": label + 1,
                        "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                        "area": int(mask.sum()),
                        "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            images.append({"id": number + 1, "file_name": f"{number}.png", "width": 64, "height": 48})
        categories = [{"id": place, "name": name} for place, name in enumerate(COLOURS, 1)]
        content = {"images": images, "annotations": found, "categories": categories}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def clip(tiny_model: ClipConfig) -> Clip:
    torch.manual_seed(0)
    found = tiny_model.build()
    assert isinstance(found, Clip)
    return found.eval()


def test_a_linear_layer_tells_halves_apart_and_cannot_learn_what_fills_no_cell(data: Path, clip: Clip) -> None:
    train, test = open_annotations(data, "train"), open_annotations(data, "test")
    eye = clip.image
    said: list[str] = []
    (row,) = probe_segments(eye, train, test, model="tiny", c=10.0, side_px=64, replicates=20, note=said.append)
    assert (row.model, row.task, row.split, row.metric, row.n) == ("tiny", "probe_segment", "all", "miou", 6)
    assert said == ["1 of 3 classes fill half of no cell of training, and count as 0 where they are"]
    assert row.value > 0.5  # two of three: the dot has 0
    assert row.value <= 2 / 3
    assert row.run is not None
    assert row.run["c"] == 10.0
    assert row.run["train"]["classes"] == 3  # red, blue, and nothing
    (again,) = probe_segments(eye, train, test, model="tiny", side_px=64, replicates=20)
    assert again.run is not None
    assert again.run["c"] in (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    assert row.run["samples"] == again.run["samples"]
    (less,) = probe_segments(eye, train.some(range(len(train) - 1)), test, model="tiny", c=10.0, side_px=64)
    assert less.run is not None
    assert (less.run["data"], less.run["samples"] == row.run["samples"]) == (row.run["data"], False)
    other = replace(test, categories=test.categories[::-1])
    with pytest.raises(DataError, match="has other classes than"):
        probe_segments(eye, train, other, model="tiny")


def test_the_verb_writes_whose_number_it_is(
    data: Path, clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "eye", clip)
    words = ["probe", str(tmp_path / "eye"), "--train", str(data), "--head", "segment", "--c", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "mIoU" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "out" / "results.jsonl")
    assert (row.model, row.task, row.metric) == (str(tmp_path / "eye"), "probe_segment", "miou")
    assert main([*words, "--shots", "2"]) == 2
    assert "leave out shots" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="side_px: has no meaning"):
        ProbePlan(train="x", side_px=64)
