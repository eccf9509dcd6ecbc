"""`eyesmith eval` as a user types it: a stranger's folder, tasks below a folder, wrong input."""

import errno
import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.data.make import make_miniatures
from eyesmith.eval import read_rows
from eyesmith.hub import save_model
from eyesmith.hub.run_folder import DETECT_KIND
from eyesmith.models import create
from eyesmith.writer import one_writer

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


# ---- where results go


def test_a_place_that_cannot_be_written_is_said_before_any_work(
    eyesmith: Eyesmith, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_miniatures(tmp_path / "sets", ["cifar10"])
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("eyesmith.cli.eval.load_clip_or_classifier", lambda *_: pytest.fail("a model was loaded"))
    for out in ("/proc/results.jsonl", tmp_path / "file" / "results.jsonl", tmp_path / "file" / "folder"):
        for words in ((photos,), ("cifar10", "--data", tmp_path / "sets")):
            status, _, err = eyesmith("eval", model, *words, "--out", out)
            assert status == 2, err
            assert f"{out}: results cannot be written there" in err


def test_a_model_folder_that_may_not_be_written_to_is_left_alone(
    eyesmith: Eyesmith, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tempfile.TemporaryFile

    def refused(*arguments: object, **rest: Any) -> Any:
        if rest.get("dir") == model:
            raise PermissionError(errno.EACCES, "Permission denied", str(model))
        return made(*arguments, **rest)

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (model / "results.jsonl").unlink(missing_ok=True)
    before = sorted(model.rglob("*"))
    status, out, err = eyesmith("eval", model, photos)
    assert status == 0, err
    assert "acc1" in out
    assert f"{model}: may not be written to (Permission denied), so results go to results.jsonl here" in err
    assert read_rows("results.jsonl")
    assert sorted(model.rglob("*")) == before


@pytest.mark.parametrize("what", ["folder", "suite", "own set into a folder"])
def test_the_table_is_printed_whatever_happens_to_the_file(
    eyesmith: Eyesmith, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results.jsonl")

    make_miniatures(tmp_path / "sets", ["cifar10"])
    for module in ("eyesmith.cli.eval", "eyesmith.eval.engine"):
        monkeypatch.setattr(f"{module}.append_rows", full)
    words = ("cifar10", "--data", tmp_path / "sets") if what == "suite" else (photos,)
    out = tmp_path / ("results.jsonl" if what == "folder" else "results")
    status, shown, err = eyesmith("eval", model, *words, "--out", out)
    assert status == 1
    assert "acc1" in shown
    assert "disk is full" in err or "No space left" in err
    assert "lines added" not in err


@pytest.mark.parametrize("what", ["folder", "suite", "own set into a folder"])
def test_a_second_evaluation_is_refused_with_the_first_ones_process(
    eyesmith: Eyesmith, model: Path, photos: Path, tmp_path: Path, what: str
) -> None:
    make_miniatures(tmp_path / "sets", ["cifar10"])
    out = tmp_path / "results"
    words = ("cifar10", "--data", tmp_path / "sets") if what == "suite" else (photos,)
    given = () if what == "folder" else ("--out", out)
    with one_writer(model if what == "folder" else out):
        status, _, err = eyesmith("eval", model, *words, *given)
    assert status == 2
    assert f"process {os.getpid()} on {socket.gethostname()} is writing to this folder" in err
    out.mkdir(exist_ok=True)
    left = out / ".info.json.999-abcdef.part"
    left.write_text("half")  # of a process that was killed
    assert eyesmith("eval", model, *words, *given)[0] == 0
    folder = model if what == "folder" else out
    if what != "folder":
        assert not left.exists()
    assert not [path.name for path in folder.rglob(".*")]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--precision", "bf16", "--fresh"), "precision, fresh"),
        (("--explain", "1.png"), "explain"),
        (("--data", "sets"), "data"),
        (("--no-keep-features",), "keep_features"),
    ],
)
def test_a_detector_refuses_what_it_would_not_heed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], named: str
) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps({"eyesmith_version": "0", "model": {"kind": DETECT_KIND}}))
    assert main(["eval", str(tmp_path), str(tmp_path), *words]) == 2
    assert f"{named}: a detector has its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "words", "message"),
    [
        ("photos", ("--splits", "val"), "splits: PHOTOS: has no splits to choose from"),
        (
            "zero_shot",
            ("--compare-templates", "a.txt", "b.txt"),
            "compare_templates: zero_shot: a data set with splits",
        ),
        ("zero_shot", ("--format", "open_clip"), "formats: zero_shot: a data set with splits"),
        ("boxes", ("--precision", "bf16"), "precision: boxes: are named in the words and precision of the model"),
    ],
)
def test_what_would_not_be_heeded_is_refused(
    eyesmith: Eyesmith, model: Path, photos: Path, what: str, words: tuple[str, ...], message: str
) -> None:
    given = (photos,) if what == "photos" else (what, "--data", photos)
    status, out, err = eyesmith("eval", model, *given, *words)
    assert (status, out) == (2, "")
    assert message.replace("PHOTOS", str(photos)) in err
