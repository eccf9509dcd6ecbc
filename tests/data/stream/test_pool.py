import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eyesmith.data.stream import ShardStream
from eyesmith.errors import TrainingError
from eyesmith.images import PreprocessConfig

CONFIG = PreprocessConfig(image_size=(16, 16))

# prints the keys of each batch from the step its state says; state and keys are written in one go, as a trainer would
PROGRAM = """
import json, os, sys
from eyesmith.data.stream import ShardStream
from eyesmith.images import TrainTransformConfig

folder, log, state, workers, last = sys.argv[1:]
if __name__ == "__main__":
    stream = ShardStream(folder, 8, transform=TrainTransformConfig(image_size=(8, 8)), seed=4, window=40,
                         num_workers=int(workers))
    step = 0
    if os.path.exists(state):
        stream.load_state_dict(json.load(open(state)))
        step = stream.state_dict()["step"]
    while step < int(last):
        batch = stream.batch(step)
        with open(log, "a") as file:
            file.write(json.dumps([step, batch.keys, int(batch.pixels.sum())]) + "\\n")
        if step % 4 == 3:
            with open(state + ".part", "w") as file:
                json.dump(stream.state_dict(), file)
            os.replace(state + ".part", state)
        step += 1
    stream.close()
"""


def start(folder: Path, log: Path, state: Path, workers: int, last: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, (folder, log, state, workers, last))])


def children(process: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ids_after_kill_9_and_resume_equal_those_of_a_run_never_stopped(shards, tmp_path) -> None:
    folder = shards(30, 21, 18, 25)
    state, log, whole = tmp_path / "state.json", tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    process = start(folder, log, state, 2, 10**6)
    try:
        while not (state.exists() and len(log.read_bytes().splitlines()) > 9):
            assert process.poll() is None
            time.sleep(0.02)
        workers = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert len(workers) == 2
    last = 4 + int(log.read_bytes().splitlines()[-1].split(b",")[0][1:])
    assert start(folder, log, state, 1, last).wait() == 0
    # with no worker at all and from the start: the run never stopped
    assert start(folder, whole, tmp_path / "other.json", 0, last).wait() == 0
    # what came between the last saved state and the kill was done twice, equally
    assert set(log.read_bytes().splitlines()) == set(whole.read_bytes().splitlines())
    assert len(whole.read_bytes().splitlines()) == last
    while any(Path(f"/proc/{worker}").exists() for worker in workers):  # nobody is left behind
        time.sleep(0.05)


def test_a_decoding_process_that_dies_is_an_error_and_nothing_hangs(shards) -> None:
    with ShardStream(shards(40), 8, transform=CONFIG, num_workers=2) as stream:
        stream.batch(0)
        assert stream._line is not None
        os.kill(stream._line._pool._processes[0].pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match="decoding process 0 was killed by signal 9"):
            for step in range(1, 20):
                stream.batch(step)
        with pytest.raises(TrainingError, match="signal 9"):
            stream.batch(0)


def test_closing_ends_the_processes(shards) -> None:
    stream = ShardStream(shards(40), 8, transform=CONFIG, num_workers=1)
    stream.batch(0)
    assert stream._line is not None
    (process,) = stream._line._pool._processes
    stream.close()
    assert process.poll() is not None


def test_processes_import_nothing_of_the_folder_they_are_started_in(
    shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, here = tmp_path / "mark", tmp_path / "here"
    here.mkdir()
    for name in ("numpy", "torch", "PIL", "json", "eyesmith"):
        (here / f"{name}.py").write_text(f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\n")
    folder = shards(8)
    monkeypatch.chdir(here)
    with ShardStream(folder, 4, transform=CONFIG, num_workers=1) as stream:
        assert len(stream.batch(0).keys) == 4
    assert not mark.exists()
