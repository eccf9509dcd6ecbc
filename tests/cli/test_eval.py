"""`eyesmith eval` as a user types it: a stranger's folder, tasks below a folder, wrong input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.data.make import make_miniatures
from eyesmith.eval import read_rows
from eyesmith.hub import save_model
from eyesmith.models import create

Eyesmith = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "nano"
    save_model(folder, create("ViTamin-Nano").eval())
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("cat/red", "cat/blue", "dog/green", "dog/grey", "big_bird/yellow"):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 50), path.stem).save(path)
    return folder


@pytest.fixture
def eyesmith(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Eyesmith:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run


def test_a_folder_and_nothing_else_gives_a_table_with_intervals(eyesmith: Eyesmith, model: Path, photos: Path) -> None:
    status, out, err = eyesmith("eval", model, photos)
    assert status == 0, err
    assert "acc1" in out
    assert "own:photos" in out  # the key of its lines: a folder called cars is not Stanford Cars
    assert "95 %" in out
    assert " – " in out.replace("\N{NO-BREAK SPACE}", " ")
    rows = [row for row in read_rows(model / "results.jsonl") if row.task == "own:photos"]
    assert {row.metric for row in rows} == {"acc1", "mean_per_class_recall"}
    assert rows[0].n == 5
    assert rows[0].low < rows[0].high
    status, out, _ = eyesmith("eval", model, photos, "--json")
    assert status == 0
    assert json.loads(out)[0]["value"] == rows[0].value


def test_bad_folders_have_clear_answers(eyesmith: Eyesmith, model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "empty").mkdir()
    status, _, err = eyesmith("eval", model, photos)
    assert status == 2
    assert "empty/" in err
    (photos / "empty").rmdir()
    (photos / "Cat").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "Cat" / "x.png")
    status, _, err = eyesmith("eval", model, photos)
    assert status == 2
    assert "'cat'" in err
    (photos / "Cat" / "x.png").rename(photos / "dog" / "x.png")
    (photos / "Cat").rmdir()
    (photos / "dog" / "x.png").write_bytes(b"no picture")
    status, _, err = eyesmith("eval", model, photos)
    assert status == 0
    assert "left out 1 unusable samples; first: dog/x.png" in err
    (photos / "dog" / "y.png").write_bytes(b"")
    status, _, err = eyesmith("eval", model, photos)
    assert status == 2
    assert "cannot be read" in err
    one = tmp_path / "one"
    (photos / "cat").rename(tmp_path / "cat")
    one.mkdir()
    (tmp_path / "cat").rename(one / "cat")
    status, _, err = eyesmith("eval", model, one)
    assert status == 2
    assert "one class" in err
    status, _, err = eyesmith("eval", model, tmp_path / "nowhere")
    assert status == 2
    assert "nowhere: no folder, suite or task" in err


def test_tasks_below_a_folder(eyesmith: Eyesmith, model: Path, tmp_path: Path) -> None:
    make_miniatures(tmp_path / "sets", ["cifar10", "vtab/pets"])
    words = ("eval", model, "cifar10,pets,mnist", "--data", tmp_path / "sets", "--out", tmp_path / "out")
    status, out, err = eyesmith(*words)
    assert status == 0, err
    assert "CIFAR-10" in out
    assert "missing, not measured: MNIST" in err
    assert "these sets are not the test sets: CIFAR-10 (20 images, not 10,000)" in err
    status, out, err = eyesmith(*words, "--json")
    assert status == 0
    assert set(json.loads(out)["main"]) == {"cifar10", "vtab/pets"}
    assert "2 of 3 tasks were measured before" in err
    assert eyesmith("eval", model, "datacomp")[0] == 2
    assert eyesmith("eval", model, "datacomp", "--data", tmp_path)[0] == 2
