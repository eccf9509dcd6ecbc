"""A run of two processes, killed and gone on with."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.runs.processes import assert_same_weights

from eyesmith.config import to_dict
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.folder import is_finished
from eyesmith.runs.train import resume, start
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import ParallelConfig

RUN = """
import json, sys, torch, warnings
from eyesmith.config import from_dict
from eyesmith.runs.train import start_or_resume
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.data.loader import Loader
torch.set_num_threads(1)
ids = open(sys.argv[3], "a")
def told(kind):
    read = kind.batch
    def batch(self, step):
        found = read(self, step)
        print(step, *found.keys, file=ids, flush=True)
        return found
    kind.batch = batch
if __name__ == "__main__":
    told(Loader)
    start_or_resume(from_dict(TrainConfig, json.loads(sys.argv[1])), sys.argv[2])
"""
TIMES = {"time_s", "images_per_s", "wait_frac", "mfu", "peak_mib", "wall_s"}


@pytest.fixture(scope="module")
def shared_config(config: TrainConfig) -> TrainConfig:
    """Twelve steps of four pairs, saved every third."""
    return replace(
        config,
        batch_size=4,
        epochs=2,
        save_every_steps=3,
        optim=OptimConfig(peak_lr=1e-3, eps=1e-3, ema_decay=0.9),
    )


def _start(config: TrainConfig, folder: Path, ids: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(to_dict(config)), str(folder), f"{ids}.{rank}"],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]


def _run(config: TrainConfig, folder: Path, ids: Path) -> None:
    processes = _start(config, folder, ids)
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def _run_and_kill(config: TrainConfig, folder: Path, ids: Path, *, at_step: int) -> None:
    """Kill -9 both, one a moment after the other, when the log has reached a step."""
    processes = _start(config, folder, ids)
    while at_step not in _steps(folder):
        assert all(process.poll() is None for process in processes), "ended before it was killed"
        time.sleep(0.002)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()
    assert not is_finished(folder)


def _log(folder: Path) -> list[dict]:
    path = folder / "log.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _steps(folder: Path) -> list[int]:
    return [line["step"] for line in _log(folder) if "loss" in line]


def _step_lines(folder: Path) -> list[dict]:
    lines = [line for line in _log(folder) if "loss" in line]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def _ids(path: Path) -> dict[int, set[str]]:
    """Of each step all rows of keys that were read; a step that was run twice must have read the same."""
    found: dict[int, set[str]] = {}
    for line in path.read_text().splitlines():
        step, keys = line.split(" ", 1)
        found.setdefault(int(step), set()).add(keys)
    return found


def _assert_same_run(one: Path, other: Path) -> None:
    assert _step_lines(one) == _step_lines(other)
    assert_same_weights(one, other)


@pytest.mark.parametrize(
    ("read", "strategy", "kills"),
    [
        ("stream", "ddp", 1),
        pytest.param("stream", "ddp", 3, marks=pytest.mark.slow),
        pytest.param("stream", "fsdp", 3, marks=pytest.mark.slow),
        pytest.param("memory", "ddp", 3, marks=pytest.mark.slow),
        pytest.param("memory", "fsdp", 3, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_of_two_processes_goes_on_as_one_never_stopped(
    tmp_path: Path, shared_config: TrainConfig, streamed: TrainConfig, read: str, strategy: str, kills: int
) -> None:
    """stream: each process has two decoding workers of its own, which die with it."""
    config = replace(shared_config, parallel=ParallelConfig(strategy=strategy, async_save=kills > 1))  # pyright: ignore
    if read == "stream":
        config = replace(config, data=streamed.data, augment=streamed.augment, transform=streamed.transform)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _run(config, whole, tmp_path / "whole_ids")
    steps = _steps(whole)
    assert steps == list(range(1, 13))
    for at_step in sorted(random.Random().sample(steps[1:-1], kills)):
        _run_and_kill(config, killed, tmp_path / "killed_ids", at_step=at_step)
    _run(config, killed, tmp_path / "killed_ids")
    _assert_same_run(whole, killed)
    for rank in range(2):
        ours, theirs = _ids(tmp_path / f"killed_ids.{rank}"), _ids(tmp_path / f"whole_ids.{rank}")
        assert ours == theirs
        assert all(len(keys) == 1 for keys in ours.values())
    if kills == 1:
        _assert_one_process_reaches_the_same(config, whole, tmp_path)


def _assert_one_process_reaches_the_same(config: TrainConfig, whole: Path, folder: Path) -> None:
    start(replace(config, parallel=ParallelConfig()), folder / "one")
    one, two = load_file(folder / "one" / "model.safetensors"), load_file(whole / "model.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_a_run_of_two_processes_is_gone_on_with_by_one(tmp_path: Path, shared_config: TrainConfig) -> None:
    config = replace(shared_config, parallel=ParallelConfig(strategy="fsdp"))
    _run_and_kill(config, tmp_path / "run", tmp_path / "ids", at_step=8)
    resume(tmp_path / "run")
    assert _steps(tmp_path / "run") == list(range(1, 13))
    start(replace(config, parallel=ParallelConfig()), tmp_path / "one")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "run"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-3)


@pytest.mark.slow
def test_torchrun_starts_it(tmp_path: Path, shared_config: TrainConfig) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    arguments = [json.dumps(to_dict(shared_config)), str(tmp_path / "run"), str(tmp_path / "ids")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, str(script), *arguments], check=True)
    assert is_finished(tmp_path / "run")
    assert _steps(tmp_path / "run") == list(range(1, 13))
