import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.models import create

COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "owl": (60, 60, 200)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, create("ViTamin-Nano").eval())
    return folder


def photos(folder: Path, count: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (16, 20, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_probes_write_what_compare_reads(model, tmp_path, capsys):
    train, test = photos(tmp_path / "train", 4, 0), photos(tmp_path / "test", 5, 1)
    data = ["--train", str(train), "--test", str(test), "--out"]
    assert main(["probe", str(model), *data, str(tmp_path / "a"), "--shots", "1", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["head"], one["shots"], one["n"], len(one["fits"])) for one in found] == [
        ("linear", 1, 15, 3),
        ("linear", 2, 15, 3),
    ]
    assert found[0]["fits"][0]["settings"]["c"] > 0
    assert main(["probe", str(model), *data, str(tmp_path / "b"), "--head", "gaussian", "--shots", "2"]) == 0
    shown = capsys.readouterr().out
    assert "gaussian" in shown
    assert "shrinkage" in shown
    rows = read_rows(tmp_path / "a" / "results.jsonl")
    assert {row.task for row in rows} == {"probe_linear_1_shot", "probe_linear_2_shots"}
    assert {row.metric for row in rows} == {"acc1", "mean_per_class_recall"}
    (tmp_path / "b" / "predictions" / "probe_gaussian_2_shots.npz").rename(
        tmp_path / "b" / "predictions" / "probe_linear_2_shots.npz"
    )
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shown = capsys.readouterr()
    assert "B is better on" in shown.out
    assert "of 1 task " in shown.out
    assert "probe_linear_1_shot: only" in shown.err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["result"]["difference"]["value"] for one in found["tasks"]] == [0, 0]


def test_wrong_arguments_are_the_users(model, tmp_path, capsys):
    train = photos(tmp_path / "train", 2, 0)
    for words, message in (
        (["--train", str(train)], "trained and tested on the same images"),
        (["--train", str(train), "--test", str(train), "--test-split", "val"], "no split 'val'"),
        (["--train", str(train), "--test", str(tmp_path / "none")], "no such file or folder"),
        (["--train", str(train), "--test", str(train / "cat")], "needs labelled images"),
        (["--train", str(train), "--alpha", "1"], "no meaning for the head 'linear'"),
    ):
        assert main(["probe", str(model), *words]) == 2, words
        assert message in capsys.readouterr().err
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "no prediction files" in capsys.readouterr().err


def test_the_same_picture_in_both_sets_is_told(model, tmp_path, capsys):
    train, test = photos(tmp_path / "train", 3, 0), photos(tmp_path / "test", 2, 1)
    (test / "cat" / "0.png").write_bytes((train / "cat" / "1.png").read_bytes())
    assert main(["probe", str(model), "--train", str(train), "--test", str(test), "--c", "1"]) == 0
    assert "1 of 6 test images have the features of a training image" in capsys.readouterr().err


def test_a_caption_test_is_a_folder_to_evaluate(model, tmp_path, capsys):
    folder = photos(tmp_path / "test", 1, 0)
    item = {"image": "cat/0.png", "caption": "a cat", "negatives": ["a dog", "an owl"], "category": "animal"}
    (folder / "negatives.jsonl").write_text(json.dumps(item))
    assert main(["eval", str(model), str(folder), "--out", str(tmp_path / "rows.jsonl")]) == 0
    assert "accuracy" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert (row.task, row.metric, row.n, row.chance) == ("own:test", "accuracy", 1, pytest.approx(1 / 3))
