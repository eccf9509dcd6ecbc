"""Runs in processes of their own, for tests that kill one, or let several share one; and what a run left behind."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from eyesmith.runs.folder import is_finished
from eyesmith.tasks import run_to_dict
from eyesmith.train.config import RunConfig

_RUN = """
import json, sys, torch
from eyesmith.runs.train import start_or_resume
from eyesmith.tasks import run_from_dict
torch.set_num_threads(int(sys.argv[3]))
start_or_resume(run_from_dict(json.loads(sys.argv[1])), sys.argv[2])
"""


def spawn(config: RunConfig, folder: Path, size: int = 1) -> list[subprocess.Popen[bytes]]:
    """`size` processes that share the run `config` in `folder`: one thread each, or this process's where it is one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    threads = torch.get_num_threads() if size == 1 else 1
    words = [sys.executable, "-c", _RUN, json.dumps(run_to_dict(config)), str(folder), str(threads)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [subprocess.Popen(words, env=shared | rank) for rank in ranks]


def kill_after(config: RunConfig, folder: Path, *, steps: int, size: int = 1) -> None:
    """Start the run in processes that are killed with 9 after so many steps, and leave it unfinished."""
    processes = spawn(config, folder, size)
    try:
        while len(step_lines(folder)) < steps:
            assert all(process.poll() is None for process in processes), "ended before it was killed"
            time.sleep(0.002)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not is_finished(folder)


def together(config: RunConfig, folder: Path, size: int = 2, *, timeout: float = 300) -> None:
    """The run from its beginning to its end in `size` processes."""
    processes = spawn(config, folder, size)
    try:
        assert [process.wait(timeout=timeout) for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()
            process.wait()


def step_lines(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's log that tell of a step, also while it is written."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [found for line in lines if line.endswith("\n") and "loss" in (found := json.loads(line))]


def assert_same_weights(a: Path, b: Path, *, files: tuple[str, ...] = ("model.safetensors",)) -> None:
    """Every tensor of both folders, bit for bit."""
    for file in files:
        ours, theirs = load_file(a / file), load_file(b / file)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name
