import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs.processes import assert_same_weights

import eyesmith
from eyesmith.config import to_dict
from eyesmith.errors import CheckpointError, ConfigError, DataError, TrainingError
from eyesmith.runs.folder import is_finished
from eyesmith.runs.train import resume, start, start_or_resume
from eyesmith.runs.work import Interrupted
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.loop import StopSignal

RUN_IN_CHILD = """
import json, sys, torch
from eyesmith.config import from_dict
from eyesmith.runs.train import start
from eyesmith.tasks.contrastive import TrainConfig
torch.set_num_threads(int(sys.argv[3]))
start(from_dict(TrainConfig, json.loads(sys.argv[1])), sys.argv[2])
"""


def _log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _steps(folder: Path) -> list[int]:
    return [line["step"] for line in _log(folder) if "loss" in line]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start(config, folder)
    return folder


def test_a_run_leaves_a_model(finished: Path, config: TrainConfig) -> None:
    assert _steps(finished) == list(range(1, 25))
    events = [line["event"] for line in _log(finished) if "event" in line]
    assert events == ["start", "end"]
    clip = eyesmith.load(finished)
    assert clip.config == config.model
    stored = json.loads((finished / "config.json").read_text())
    assert stored["train"] == json.loads(json.dumps(to_dict(config)))


def test_the_first_loss_is_near_that_of_chance(finished: Path) -> None:
    first = next(line for line in _log(finished) if "loss" in line)
    assert first["loss"] == pytest.approx(math.log(3), abs=1.0)  # three pairs, random features, scale 14


@pytest.mark.parametrize("killed_at", [2, 7, 13])
def test_a_killed_run_ends_with_the_weights_of_one_never_stopped(
    tmp_path: Path, config: TrainConfig, finished: Path, killed_at: int
) -> None:
    folder = tmp_path / "killed"
    arguments = [json.dumps(to_dict(config)), str(folder), str(torch.get_num_threads())]
    with subprocess.Popen([sys.executable, "-c", RUN_IN_CHILD, *arguments]) as child:
        while not (folder / "log.jsonl").is_file() or len(_log_lines(folder)) <= killed_at:
            assert child.poll() is None or is_finished(folder)
            if child.poll() is not None:
                break
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not is_finished(folder)
    with pytest.raises(CheckpointError, match="eyesmith resume"):
        eyesmith.load(folder)
    resume(folder)
    assert _steps(folder) == list(range(1, 25))  # each step once in the log
    assert_same_weights(folder, finished)


def _log_lines(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()


def test_ctrl_c_saves_between_two_steps_and_resume_goes_on(
    tmp_path: Path, config: TrainConfig, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eyesmith.train.callbacks import logging as log

    write = log.append_line

    def write_and_interrupt(folder: Path, line: dict) -> None:
        write(folder, line)
        if line.get("step") == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(log, "append_line", write_and_interrupt)
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted, match=r"step 7 of 24, saved.*eyesmith resume"):
        start(config, folder)
    monkeypatch.undo()
    resume(folder)
    assert _steps(folder) == list(range(1, 25))
    assert_same_weights(folder, finished)


def test_logging_saving_and_measuring_do_not_change_the_weights(
    tmp_path: Path, config: TrainConfig, finished: Path
) -> None:
    start(replace(config, log_every_steps=7, save_every_steps=1), tmp_path / "other")
    assert_same_weights(tmp_path / "other", finished)


def test_a_finished_run_is_returned_as_it_is(finished: Path, config: TrainConfig) -> None:
    before = (finished / "model.safetensors").stat().st_mtime_ns
    assert resume(finished).train_s > 0
    assert start_or_resume(config, finished).folder == finished
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_with_another_run_is_refused(finished: Path, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not empty; go on with it by `eyesmith resume"):
        start(config, finished)
    with pytest.raises(ConfigError, match="other settings"):
        start_or_resume(replace(config, seed=1), finished)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty; choose another"):
        start(config, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run folder"):
        resume(tmp_path)


def test_a_damaged_state_is_named(tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(StopSignal, "__call__", lambda _: True)
    with pytest.raises(Interrupted):
        start(config, folder)
    monkeypatch.undo()
    (state,) = (folder / "state").iterdir()
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"step-00000000\.pt: cannot be read .*there is no older state"):
        resume(folder)


def test_a_loss_that_is_not_finite_stops_before_the_update(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eyesmith.tasks import contrastive

    healthy, seen = contrastive.contrast, []

    def sick(*arguments: Any, **rest: Any) -> torch.Tensor:
        seen.append(1)
        return healthy(*arguments, **rest) * (math.nan if len(seen) == 6 else 1.0)

    monkeypatch.setattr(contrastive, "contrast", sick)
    with pytest.raises(TrainingError, match=r"step 6: loss nan.*Samples: .*resume"):
        start(config, tmp_path / "run")
    assert _steps(tmp_path / "run") == [1, 2, 3, 4, 5]
    monkeypatch.undo()
    resume(tmp_path / "run")
    assert is_finished(tmp_path / "run")


def test_less_data_than_a_batch_is_an_error(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(DataError, match="lower the batch size"):
        start(replace(config, batch_size=100), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_loss_falls(tmp_path: Path, config: TrainConfig) -> None:
    start(replace(config, epochs=12, optim=replace(config.optim, peak_lr=3e-3)), tmp_path / "run")
    losses = [line["loss"] for line in _log(tmp_path / "run") if "loss" in line]
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])
