"""What the command prints: text of strangers in one line, and only through one door."""

import ast
import json
import re
from pathlib import Path

import pytest
from PIL import Image

import eyesmith as package
from eyesmith.cli.output import show_run
from eyesmith.hub.run_folder import CHAT_KIND, DETECT_KIND, SEGMENT_KIND
from eyesmith.runs.train import RunSummary

EVIL = "a\x1b[31m\nb\r\t\x9b2J\u202ec\u2028d"
OWN = re.compile("_overview|factors|steps of|memory of|fits into|FLOP|GPU-hours|fetched|a state is|a failure|saving")
SHOWN = r"a\x1b[31m\nb\r\t\x9b2J\u202ec\u2028d"


def test_names_of_files_and_classes_come_out_of_the_command_in_one_line(eyesmith, tmp_path: Path) -> None:
    for name in ("cat", EVIL.replace("/", "")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / name / f"{EVIL}.png")
        (tmp_path / "photos" / name / f"{EVIL}2.png").write_bytes(b"no picture")
    for words in (("data", "check", tmp_path / "photos"), ("data", "check", tmp_path / EVIL)):
        _, out, err = eyesmith(*map(str, words))
        assert SHOWN in out + err
        assert (out + err).replace("\n", "").isprintable()
        assert len(err.splitlines()) <= 1


def test_only_doors_print() -> None:
    """In the command, text goes out through `cli/output.py`, which shows it plain; but for numbers of a plan."""
    root = Path(package.__file__).parent
    may_print = {"output.py", "failures.py", "main.py", "dispatch.py"}
    for path in (root / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert name != "Console", path
            if name == "print" and path.name not in may_print:
                said = ast.unparse(node)
                assert OWN.search(said) or "plain_json(" in said, f"{path.name}: {said}"


@pytest.mark.parametrize(
    ("kind", "use"),
    [
        (DETECT_KIND, "detect {} IMAGE"),
        (SEGMENT_KIND, "segment {} IMAGE"),
        (CHAT_KIND, "chat {} IMAGE QUESTION"),
        ("ClassifierConfig", "classify {} IMAGE`"),
        ("ViTaminConfig", "train RECIPE initial.weights={} initial.part=image"),
        (None, "classify {} IMAGE --names ..."),
    ],
)
def test_a_run_that_measured_nothing_says_how_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str | None, use: str
) -> None:
    """By what the folder holds: a segmenter without a split to measure was called an encoder."""
    (tmp_path / "model.safetensors").touch()
    model = {} if kind is None else {"kind": kind}
    (tmp_path / "config.json").write_text(json.dumps({"eyesmith_version": "0", "model": model}))
    show_run(lambda _: RunSummary(folder=tmp_path, rows=[], train_s=1.0))
    assert f"eyesmith {use.format(tmp_path)}" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"eyesmith_version": "0"}', b"\xff"])
def test_a_finished_run_is_no_error_whatever_became_of_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes | None
) -> None:
    """Another process may move it away, or damage its config.json, before the last line is printed."""
    run = tmp_path / "run"

    def work(_: object) -> RunSummary:
        if content is not None:
            run.mkdir()
            (run / "model.safetensors").touch()
            (run / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        return RunSummary(folder=run, rows=[], train_s=1.0)

    show_run(work)
    out, err = capsys.readouterr()
    assert out == f"{run}: trained 1 s\n"
    assert err.startswith(f"how to use it is not known: {run}")
