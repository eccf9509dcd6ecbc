"""Two trained models of one architecture stay two, in every table; a user's folder is never a published set."""

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
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for seed, name in enumerate(("run", "run2")):
        torch.manual_seed(seed)
        save_model(folder / name, create("ViTamin-Nano").eval())
    make_miniatures(folder / "sets", ["cifar10", "retrieval/flickr_1k_test_image_text_retrieval"])
    return folder


@pytest.fixture
def eyesmith(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Eyesmith:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(root)

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def test_a_report_and_a_comparison_show_two_lines_with_their_folders(eyesmith: Eyesmith, root: Path) -> None:
    for name in ("run", "run2"):
        assert eyesmith("eval", name, "cifar10", "--data", "sets")[0] == 0
    for paths in (("run/eval", "run2/eval"), ("run/eval/results.jsonl", "run2/eval/results.jsonl")):
        status, out, err = eyesmith("report", *paths, "--json")
        assert status == 0, err
        rows = [row for row in json.loads(out) if row["suite"] == "datacomp"]
        assert sorted(row["model"] for row in rows) == ["run", "run2"]
    page = (root / "leaderboard.html").read_text()
    assert ">run2<" in page
    first, second = (read_rows(root / name / "eval" / "results.jsonl")[0].run for name in ("run", "run2"))
    assert first is not None
    assert second is not None
    assert first["source"] == "run"
    assert first["weights"] != second["weights"]
    assert {"preprocess", "words", "precision", "data"} <= set(first)
    status, out, err = eyesmith("compare", "run/eval", "run2/eval")
    assert status == 0, err
    assert out.splitlines()[:2] == ["A: run", "B: run2"]
    status, out, _ = eyesmith("compare", "run/eval", "run/eval", "--json")
    assert json.loads(out)["is_same_model"]


def test_a_line_is_called_what_the_user_calls_it(eyesmith: Eyesmith, root: Path) -> None:
    for name, label in (("run", "with blocks"), ("run2", "plain")):
        assert eyesmith("eval", name, "cifar10", "--data", "sets", "--out", root / label, "--label", label)[0] == 0
    status, out, err = eyesmith("report", "with blocks", "plain", "--json")
    assert status == 0, err
    assert sorted(row["model"] for row in json.loads(out) if row["suite"] == "datacomp") == ["plain", "with blocks"]


def test_one_model_in_two_precisions_is_two_lines(eyesmith: Eyesmith, root: Path) -> None:
    for precision in ("fp32", "bf16"):
        words = ("--out", root / precision, "--precision", precision)
        assert eyesmith("eval", "run", "cifar10", "--data", "sets", *words)[0] == 0
    _, out, _ = eyesmith("report", "fp32", "bf16", "--json")
    lines = [row["model"] for row in json.loads(out) if row["suite"] == "datacomp"]
    assert sorted(lines) == ["run", "run (precision bf16)"]


def test_the_lines_that_training_writes_and_those_of_eval_are_one_model(eyesmith: Eyesmith, root: Path) -> None:
    line = {"model": "ViTamin-Nano", "task": "cars", "split": "test", "metric": "acc1", "value": 0.5}
    line |= {"low": 0.4, "high": 0.6, "n": 80, "chance": 0.005}  # as a version before wrote it
    (root / "run" / "results.jsonl").write_text(json.dumps(line) + "\n")
    assert eyesmith("eval", "run", "cifar10", "--data", "sets")[0] == 0
    _, out, _ = eyesmith("report", "run", "run/eval", "--json")
    (row,) = (row for row in json.loads(out) if row["suite"] == "datacomp")
    assert (row["model"], row["tasks"]) == ("run", 2)
    (root / "run" / "results.jsonl").unlink()


@pytest.mark.parametrize("name", ["cars", "mnist", "vtab"])
def test_a_folder_called_like_a_published_set_stays_the_users(eyesmith: Eyesmith, root: Path, name: str) -> None:
    for place in ("cat/red", "dog/blue"):
        path = root / name / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), path.stem).save(path)
    target = root / f"{name}.jsonl"
    assert eyesmith("eval", "run", name, "--out", target)[0] == 0
    assert {row.task for row in read_rows(target)} == {f"own:{name}"}
    _, out, _ = eyesmith("report", target, "--json")
    assert json.loads(out) == []  # no line of a suite
    assert f"own:{name}" in (root / "leaderboard.html").read_text()


def test_the_suite_retrieval_is_reachable_and_so_is_the_task(eyesmith: Eyesmith, root: Path) -> None:
    status, out, err = eyesmith("eval", "run", "retrieval", "--data", "sets", "--out", root / "search")
    assert status == 0, err
    assert "Flickr" in out
    assert "missing" in out  # MSCOCO and WinoGAViL
    Image.new("RGB", (9, 9), "red").save(root / "a.png")
    Image.new("RGB", (9, 9), "blue").save(root / "b.png")
    (root / "pairs.csv").write_text("image,caption\na.png,red\nb.png,blue\n")
    target = root / "pairs.jsonl"
    status, _, err = eyesmith("eval", "run", "retrieval", "--data", "pairs.csv", "--out", target)
    assert status == 0, err
    assert {row.task for row in read_rows(target)} == {"retrieval"}
    status, _, err = eyesmith("eval", "run", "retrieval")
    assert status == 2
    assert "--data" in err
