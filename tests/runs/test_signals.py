"""SIGTERM as launchers deliver it, to every process of a group: the state is saved, whatever the run does then."""

import io
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.shards import ShardWriter
from eyesmith.runs import Interrupted, resume, start
from eyesmith.runs.folder import is_finished
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.checkpoint import states
from eyesmith.train.loop import StopSignal
from eyesmith.train.state import TrainState

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

PROGRAM = """
import pickle, sys
from pathlib import Path
from eyesmith.data.shards import ShardWriter
from eyesmith.runs import Interrupted, start

try:
    start(pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2])
except Interrupted as stopped:
    print(stopped)
"""


def decoders() -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                is_decoder = b"eyesmith.data.stream.worker" in (status.parent / "cmdline").read_bytes()
                found += [int(status.parent.name)] if is_decoder else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("moment", ["decoders begin", "steps are made"])
def test_a_signal_to_the_whole_group_saves_the_state(
    moment: str, tmp_path: Path, streamed: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send() -> None:
        while not is_caught.is_set() or len(decoders()) < 2:
            time.sleep(0.01)
        while moment == "steps are made" and not states(tmp_path / "run"):
            time.sleep(0.01)
        for process in [*decoders(), os.getpid(), os.getpid()]:  # srun and torchrun both send it
            os.kill(process, signal.SIGTERM)

    is_caught, enter = threading.Event(), StopSignal.__enter__
    monkeypatch.setattr(StopSignal, "__enter__", lambda self: (enter(self), is_caught.set())[0])
    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Interrupted, match="stopped after step"):
        start(replace(streamed, epochs=1000), tmp_path / "run")
    sender.join()
    assert states(tmp_path / "run")
    assert not decoders()


@pytest.mark.slow
def test_groups_killed_at_random_moments_save_their_state(tmp_path: Path, streamed: TrainConfig) -> None:
    rng, noise = random.Random(0), np.random.default_rng(0)
    with ShardWriter(tmp_path / "large", shard_samples=99) as writer:
        for number in range(16):
            content = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (1400, 1400, 3), dtype=np.uint8)).save(content, "PNG")
            writer.write(f"{number}", {"png": content.getvalue(), "txt": f"noise {number}".encode()})
    computes = replace(streamed, epochs=100_000, save_every_steps=10**6)
    waits = replace(computes, data=replace(streamed.data, path=str(tmp_path / "large"), num_workers=1))
    for number in range(20):
        given, folder = tmp_path / f"{number}.pickle", tmp_path / f"run-{number}"
        given.write_bytes(pickle.dumps((waits, computes)[number % 2]))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(given), str(folder)],
            start_new_session=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        while not (folder / "log.jsonl").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3 + rng.random() * 3)
        os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert "stopped after step" in said, (number, said)
        assert states(folder), number


def test_a_signal_while_the_state_is_saved_does_no_harm(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = TrainState.save

    def interrupted(self: TrainState, *arguments: object, **rest: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, *arguments, **rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(TrainState, "save", interrupted)
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(replace(config, save_every_steps=2), folder)
    monkeypatch.undo()
    resume(folder)
    assert is_finished(folder)
