import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import eyesmith
from eyesmith.cli.alternate import main
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.eval import ResultRow
from eyesmith.hub import save_model
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.optim.config import OptimConfig
from eyesmith.report.alternation import StageRow, render_alternation, stage_table
from eyesmith.runs import alternate as alternation
from eyesmith.runs.alternate import AlternateConfig, alternate, clip_config


@pytest.fixture
def config(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlternateConfig:
    """A small TrV on discs, with a text tower of its own."""

    def cannot(_: str) -> None:
        raise MissingDependencyError("no package here")

    monkeypatch.setattr("eyesmith.runs.quickstart.locate", cannot)
    base = AlternateConfig(data=pairs, out=tmp_path / "out", clip_epochs=0.5, masked_epochs=0.5, batch_size=8)
    return replace(base, masked=replace(base.masked, log_every_steps=1))


def test_three_stages_in_one_command_that_goes_on(config: AlternateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []
    run = alternation.start_or_resume

    def stop_at_the_last(made: object, folder: Path, **rest: object) -> object:
        started.append(folder)
        if folder.name == "clip" and len(started) == 3:
            raise KeyboardInterrupt
        return run(made, folder, **rest)  # pyright: ignore

    monkeypatch.setattr(alternation, "start_or_resume", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        alternate(config, console=Console(quiet=True))
    stages = alternate(config, console=Console(quiet=True))
    assert [stage.name for stage in stages] == ["teacher", "masked", "clip", "scratch"]
    assert stages[-1].run.folder == stages[0].run.folder  # it is the teacher's own run
    assert isinstance(eyesmith.load(config.out / "clip"), eyesmith.Clip)
    encoder = eyesmith.load(config.out / "masked")
    assert not isinstance(encoder, eyesmith.Clip)
    monkeypatch.setattr(alternation, "alternate", lambda *_, **__: stages)
    assert main([f"data={config.data}", f"out={config.out}"], "eyesmith alternate") == 0
    page = (config.out / "alternate.html").read_text()
    assert all(name in page for name in ("teacher", "masked", "clip"))
    with pytest.raises(ConfigError, match="other settings"):
        alternate(replace(config, seed=1), console=Console(quiet=True))


def test_a_teacher_that_was_trained_anew_at_its_place_is_not_that_of_the_stages(
    config: AlternateConfig, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    for seed in (0, 1):
        torch.manual_seed(seed)
        shutil.rmtree(teacher, ignore_errors=True)
        save_model(teacher, clip_config(config, start="", note=Console(quiet=True)).model.build())
        taught = replace(config, teacher=str(teacher), scratch=False)
        if seed:
            with pytest.raises(ConfigError, match="masked: learned from another teacher than .*teacher holds now"):
                alternate(taught, console=Console(quiet=True))
            continue
        first = alternate(taught, console=Console(quiet=True))
        again = alternate(taught, console=Console(quiet=True))
        assert [stage.rows() for stage in again] == [stage.rows() for stage in first]
        assert all(stage.run.was_finished for stage in again)


def test_the_last_clip_starts_from_the_masked_run(config: AlternateConfig) -> None:
    made = clip_config(config, start="runs/masked", note=Console(quiet=True))
    assert isinstance(made.model.image, Eva02Config)
    assert (made.initial.weights, made.initial.part) == ("runs/masked", "image")


def test_the_clip_stages_take_what_they_are_given(config: AlternateConfig) -> None:
    given = replace(config, clip=replace(config.clip, optim=OptimConfig(name="muon", peak_lr=1e-3), epochs=7.0))
    assert clip_config(given, start="", note=Console(quiet=True)).optim == given.clip.optim
    assert clip_config(replace(given, clip_epochs=0.0), start="", note=Console(quiet=True)).epochs == 7.0
    assert clip_config(given, start="", note=Console(quiet=True)).epochs == config.clip_epochs


def test_what_makes_no_alternation_is_said(config: AlternateConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds: expected 1 or more, got 0"):
        replace(config, rounds=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        alternate(replace(config, out=tmp_path / "mine"), console=Console(quiet=True))


def test_the_table_has_a_line_a_stage() -> None:
    row = ResultRow(
        model="m",
        task="zero_shot",
        split="unseen_drawing",
        metric="acc1",
        value=0.25,
        low=0.2,
        high=0.3,
        n=9,
        chance=0.1,
    )
    masked = replace(row, task="masked", metric="cosine", value=0.5, low=None, high=None, chance=None)
    stages = [
        StageRow(name="masked", source="<random>", train_s=3.0, rows=[masked]),
        StageRow(name="clip", source="masked", train_s=4.0, rows=[row]),
    ]
    assert stage_table(stages).row_count == 2
    page = render_alternation(stages)
    assert "&lt;random&gt;" in page
    assert "cosine 50.0" in page


def test_a_command_that_failed_at_once_leaves_its_folder_free(config: AlternateConfig) -> None:
    with pytest.raises(DataError, match="no such file"):
        alternate(replace(config, data=config.data / "nowhere"), console=Console(quiet=True))
    alternation._claim(config)
    (config.out / "teacher").mkdir()
    with pytest.raises(ConfigError, match="other settings; choose another folder, or delete this one"):
        alternation._claim(replace(config, seed=1))
