"""States that are whole or not there, whatever happens while they are written."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.train import TrainState
from eyesmith.train.checkpoint import consolidate, read_into, states, write_file, write_sharded
from eyesmith.train.distributed import World

WRITERS = {"file": write_file, "sharded": write_sharded}
SAVER = """
import sys, time, torch
from pathlib import Path
from eyesmith.train import World
from eyesmith.train.checkpoint import states, write_file, write_sharded
torch.set_num_threads(1)
folder, kind, in_background = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
if in_background:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
write = write_file if kind == "file" else write_sharded
for step in range(int(sys.argv[4]), 10**6):
    content = {f"model/{i}": torch.full((200_000,), float(step)) for i in range(8)}
    content["step"] = torch.tensor(step)
    writing = write(folder, content, step=step, world=World(), in_background=in_background)
    if writing is not None:
        writing.result()
    print(step, flush=True)
"""


def _content(step: int) -> dict[str, Tensor]:
    return {"weight": torch.full((1000,), float(step)), "step": torch.tensor(step)}


def _write(folder: Path, kind: str, step: int, **how: Any) -> None:
    writing = WRITERS[kind](folder, _content(step), step=step, world=World(), in_background=False, **how)
    assert writing is None


def _newest(folder: Path) -> int:
    found = _content(-1)
    read_into(states(folder)[0], found)
    assert set(found["weight"].tolist()) == {float(found["step"])}
    return int(found["step"])


@pytest.mark.parametrize("kind", WRITERS)
def test_the_last_few_are_kept(tmp_path: Path, kind: str) -> None:
    for step in range(1, 6):
        _write(tmp_path, kind, step, keep=3)
    assert [path.name.removesuffix(".pt") for path in states(tmp_path)] == [f"step-0000000{step}" for step in (5, 4, 3)]
    assert len(list((tmp_path / "state").iterdir())) == 3


@pytest.mark.parametrize("kind", WRITERS)
def test_a_state_of_the_same_step_replaces_none(tmp_path: Path, kind: str) -> None:
    """Written again, as by a replay: the older one is not touched, and the newer one is the newest."""
    _write(tmp_path, kind, 4)
    (old,) = states(tmp_path)
    files = sorted(path for path in (old, *old.rglob("*")) if path.is_file())
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    _write(tmp_path, kind, 4)
    assert before == [(path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    new = states(tmp_path)[0]
    assert new.name.removesuffix(".pt") == "step-00000004-2"
    assert _newest(tmp_path) == 4


class _Cut(Exception):
    """The process ends here."""


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("seed", range(6))
def test_a_write_that_is_cut_short_leaves_the_states_before(
    tmp_path: Path, kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any of the system calls by which a state gets to the disk; nothing is tidied up behind it, as after a kill."""
    for step in (1, 2):
        _write(tmp_path, kind, step)
    calls: list[str] = []
    cut_at = 10**6

    def counted(name: str, call: Any) -> Any:
        def made(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) >= cut_at:
                raise _Cut(name)
            return call(*arguments, **named)

        return made

    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "rename"), (Path, "unlink"), (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    trial = tmp_path / "trial"
    shutil.copytree(tmp_path / "state", trial / "state")
    calls.clear()
    _write(trial, kind, 3)
    cut_at = random.Random(seed).randint(1, len(calls))
    calls.clear()
    with pytest.raises(BaseException) as cut:  # torch wraps what its writers raise
        _write(tmp_path, kind, 3)
    assert "_Cut" in repr(cut.value) or cut.type is _Cut or "rename" in str(cut.value) or "fsync" in str(cut.value)
    monkeypatch.undo()
    assert _newest(tmp_path) in (2, 3)
    _write(tmp_path, kind, 4)  # and goes on
    assert _newest(tmp_path) == 4
    names = [path.name for path in (tmp_path / "state").iterdir()]
    assert len(names) == 2
    assert not [name for name in names if name.startswith(".")]


@pytest.mark.parametrize(
    ("kind", "in_background"),
    [("file", False), ("sharded", True), pytest.param("file", True, marks=pytest.mark.slow), ("sharded", False)],
)
def test_a_process_killed_while_it_writes_loses_no_whole_state(tmp_path: Path, kind: str, in_background: bool) -> None:
    """kill -9 at moments of its own choice, again and again on the same folder."""
    moments, told = random.Random(), 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path), kind, str(in_background), str(told + 1)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(3):
            told = int(process.stdout.readline())
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        told = int(rest[-1]) if rest else told
        found = {"step": torch.tensor(0)} | {f"model/{i}": torch.zeros(200_000) for i in range(8)}
        read_into(states(tmp_path)[0], found)
        step = int(found["step"])
        assert step in (told, told + 1)
        assert all(bool((value == step).all()) for value in found.values())
        told = step


def test_what_was_not_finished_and_what_is_damaged_is_passed_over_with_a_sentence(tmp_path: Path) -> None:
    def new() -> TrainState:
        model = torch.nn.Linear(3, 2)
        return TrainState(model=model, optimizer=torch.optim.AdamW(model.parameters()), average={})

    state = new()
    for state.step in (1, 2):
        state.save(tmp_path)
    newest = states(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-50])
    (tmp_path / "state" / ".step-00000003.part").mkdir()
    other, said = new(), []
    other.load(tmp_path, note=said.append)
    assert other.step == 1
    assert torch.equal(other.model.weight, state.model.weight)  # pyright: ignore
    assert said[0] == ".step-00000003.part: a state that was never written to its end is passed over"
    assert "step-00000002.pt: cannot be read" in said[1]
    assert said[1].endswith("; the state before it is taken")
    states(tmp_path)[1].write_bytes(b"")
    with pytest.raises(CheckpointError, match="there is no older state; delete the run"):
        new().load(tmp_path)


def test_a_name_in_a_state_that_is_no_utf8_is_damage(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    TrainState(model=model, optimizer=torch.optim.AdamW(model.parameters()), average={}).save(tmp_path)
    file = states(tmp_path)[0]
    content = file.read_bytes()
    assert content.count(b"model/weight") >= 1
    file.write_bytes(content.replace(b"model/weight", b"model/\x89eight"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        TrainState(model=model, optimizer=torch.optim.AdamW(model.parameters()), average={}).load(tmp_path)


def test_a_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    state = TrainState(model=model, optimizer=torch.optim.AdamW(model.parameters()), average={}, step=7)
    state.save(tmp_path)
    content = torch.load(states(tmp_path)[0], weights_only=True)
    content.pop("rng_version")
    torch.save(content, tmp_path / "state" / "last.pt")
    states(tmp_path)[0].unlink()
    state.step = 0
    state.load(tmp_path)
    assert state.step == 7


def test_other_random_numbers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyesmith.models.drop_path import DropPath

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), DropPath(0.1))
    state = TrainState(model=model, optimizer=torch.optim.AdamW(model.parameters()), average={}, step=7)
    state.save(tmp_path)
    said: list[str] = []
    state.load(tmp_path, note=said.append)
    assert said == []
    monkeypatch.setattr("eyesmith.train.rng.VERSION", 3)
    state.load(tmp_path, note=said.append)
    assert "it goes on with other random numbers" in said[0]


def test_one_file_of_a_state_in_parts(tmp_path: Path) -> None:
    for step in (3, 4):
        _write(tmp_path, "sharded", step)
    made = tmp_path / "state" / "step-00000004-2.pt"
    assert consolidate(tmp_path) == consolidate(tmp_path) == made
    assert list((tmp_path / "state").iterdir()) == [made]
    assert _newest(tmp_path) == 4
