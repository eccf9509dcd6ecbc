from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

import eyesmith
from eyesmith.cli.quickstart import main
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.eval import read_rows
from eyesmith.runs.machine import keep_freed_memory
from eyesmith.runs.quickstart import QuickstartConfig, quickstart

SPLITS = {"test", "unseen_combination"}


def _absent(*_: object, **__: object) -> None:
    raise MissingDependencyError("not to be had here")


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No npm and no packaged text encoder: scenes are drawn, and a text tower of our own is trained."""
    module = "eyesmith.runs.quickstart"
    monkeypatch.setattr(f"{module}.make_emoji", _absent)
    monkeypatch.setattr(f"{module}.locate", _absent)
    monkeypatch.setattr(f"{module}.make_scenes", partial(make_scenes, samples=260, size_px=32))


def test_the_whole_job_on_a_bare_machine(
    tmp_path: Path, bare_machine: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    config = QuickstartConfig(folder=tmp_path / "run", data=tmp_path / "data", epochs=1)
    assert main([f"folder={config.folder}", f"data={config.data}", "epochs=1"], "eyesmith quickstart") == 0
    said = capsys.readouterr().out
    assert "the emoji drawings cannot be had: not to be had here" in said
    assert "training a small text tower too" in said
    table = said[said.rindex("\nsplit ") :]  # comes last
    assert "ViT-Nano" in table
    assert "text R@10" in table.splitlines()[-1]

    assert "<html" in (tmp_path / "run" / "report.html").read_text("utf-8")
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert {row.split for row in rows if row.task == "zero_shot"} == SPLITS
    assert {row.metric for row in rows if row.task == "retrieval"} >= {
        "image_retrieval_recall@1",
        "text_retrieval_recall@10",
    }
    assert {row.task for row in rows if row.model == "nearest pixels"} == {"pixel_neighbour"}

    clip = eyesmith.load(tmp_path / "run")
    assert clip.encode_text(["red circle"]).shape == (1, clip.image.embed_dim)

    before = (tmp_path / "run" / "log.jsonl").read_text()
    again = quickstart(config, console=Console(quiet=True))  # finds everything done
    assert (tmp_path / "run" / "log.jsonl").read_text() == before
    assert again.run.rows == rows
    assert again.baseline is not None
    assert {row.model for row in again.baseline.rows} == {"ViT-Nano"}
    with pytest.raises(ConfigError, match="other settings"):
        quickstart(
            QuickstartConfig(folder=tmp_path / "run", data=tmp_path / "data", epochs=2), console=Console(quiet=True)
        )


def test_keeping_freed_memory_is_harmless() -> None:
    keep_freed_memory()
    keep_freed_memory()
