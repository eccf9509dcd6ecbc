"""`eyesmith report`: result files in, page and CSV out; a user's mistake is one message."""

import json
from pathlib import Path

import pytest

from eyesmith.cli.main import main
from eyesmith.eval.results import append_eval_result


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in (("one", 0.5), ("two", 0.25)):
        for key, shown in (("mnist", "MNIST"), ("cifar10", "CIFAR-10")):
            append_eval_result(
                tmp_path / name / "eval_results.jsonl", key=key, name=shown, metrics={"acc1": value}, main=value
            )
    return tmp_path


def test_a_page_and_its_csv(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "one", "two/eval_results.jsonl", "--compare", "two", "one"]) == 0
    output = capsys.readouterr()
    assert "datacomp" in output.out
    assert "leaderboard.html and leaderboard.csv written: 2 models" in output.err
    assert "two against one" in (results / "leaderboard.html").read_text()
    assert (results / "leaderboard.csv").is_file()


def test_json_names_what_is_missing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "one", "--no-published", "--json", "--out", "page.html"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["tasks"], len(row["missing"]), row["averages"]) == ("one", 2, 36, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no such result file"),
        (["one", "--out", "page.pdf"], "ends in .html"),
        (["one", "--compare", "one"], "expected two models"),
        (["one", "--compare", "one", "three"], "no model 'three'"),
    ],
)
def test_mistakes(results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (results / "leaderboard.html").exists()
