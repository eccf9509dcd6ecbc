"""A task from a file of one's own: trained, killed and gone on with, by two processes, and never run unasked."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import eyesmith
from eyesmith.cli.main import main
from eyesmith.errors import ConfigError
from eyesmith.eval import read_rows
from eyesmith.models.classifier import Classifier
from eyesmith.report.page import write_report
from eyesmith.runs.folder import read_run_config
from eyesmith.tasks import registry, run_from_dict, run_to_dict, task, task_names, task_of
from eyesmith.tasks.registry import UnregisteredTaskError, default_config, register_task

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "rotation.py"
KILLED = """
import os, signal, sys, torch
from eyesmith.cli.main import main
from eyesmith.data.loader import Loader
torch.set_num_threads(1)
read = Loader.batch
def batch(self, step):
    if step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, step)
Loader.batch = batch
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_OWN", {})


@pytest.fixture
def arguments(pairs: Path) -> list[str]:
    """Twelve steps of four pictures."""
    return [
        f"data.path={pairs}",
        "model.image_size=16,16",
        "model.patch_px=8",
        "model.width=16",
        "model.depth=2",
        "model.num_heads=1",
        "model.hidden_dim=24",
        "data.decode_px=16",
        "batch_size=4",
        "epochs=2",
        "precision=fp32",
        "optim.eps=1e-3",
        "save_every_steps=3",
        "log_every_steps=1",
    ]


def _start(arguments: list[str], *, stop_at: int, size: int = 1) -> list[int]:
    """Exit statuses of processes that train by themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(stop_at), *arguments],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(size)
    ]
    return [process.wait(timeout=300) for process in processes]


def test_a_task_of_ones_own_trains_resumes_and_reports(arguments: list[str], tmp_path: Path, pairs: Path) -> None:
    whole, stopped, two = (tmp_path / name for name in ("whole", "stopped", "two"))
    file = f"--task={EXAMPLE}"
    assert main(["train", file, "--out", str(whole), *arguments]) == 0
    status = _start(["train", file, "--out", str(stopped), *arguments], stop_at=8)
    assert status == [-signal.SIGKILL]
    assert main(["resume", str(stopped), "--task", str(stopped / "task" / "rotation.py")]) == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    assert _start(["train", file, "--out", str(two), *arguments], stop_at=-1, size=2) == [0, 0]
    theirs = load_file(two / "model.safetensors")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5, msg=name)

    assert isinstance(eyesmith.load(whole), Classifier)
    page = write_report(whole, baseline=None, data=pairs).read_text("utf-8")
    assert "rotation" in page
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))


def test_it_is_measured_like_any_other(arguments: list[str], tmp_path: Path, pairs: Path) -> None:
    sets = tmp_path / "sets"
    for split in ("train", "val"):
        shutil.copytree(pairs, sets / split)
    run = ["train", f"--task={EXAMPLE}", "--out", str(tmp_path / "run"), *arguments, f"data.path={sets}"]
    assert main([*run, "data.split=train", "eval.splits=val", "epochs=1"]) == 0
    (row,) = read_rows(tmp_path / "run" / "results.jsonl")
    assert (row.task, row.split, row.n, row.chance) == ("rotation", "val", 96, 0.25)


def test_a_run_is_tied_to_the_bytes_of_its_file_and_never_runs_it(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.py"
    marker = tmp_path / "was-run"
    mine.write_text(EXAMPLE.read_text() + f"\nimport pathlib\n\npathlib.Path({str(marker)!r}).write_text('x')\n")
    assert main(["train", "--task", str(mine), "--out", str(tmp_path / "run"), *arguments, "epochs=0.2"]) == 0
    marker.unlink()  # it was run, which was asked for
    kept = tmp_path / "run" / "task" / "mine.py"
    assert kept.read_bytes() == mine.read_bytes()

    monkeypatch.setattr(registry, "_OWN", {})  # another process
    assert isinstance(eyesmith.load(tmp_path / "run"), Classifier)
    with pytest.raises(UnregisteredTaskError, match=r"not registered. No file is run.*--task .*run/task/mine\.py"):
        read_run_config(tmp_path / "run")
    assert not marker.exists()
    mine.write_text(mine.read_text() + "# edited\n")
    register_task(mine)
    with pytest.raises(UnregisteredTaskError, match="other bytes"):
        read_run_config(tmp_path / "run")
    register_task(kept)
    config = read_run_config(tmp_path / "run")
    assert task_of(config).__name__ == "Rotation"
    assert run_from_dict(run_to_dict(config)) == config


def test_files_that_define_no_task_are_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("empty.py", "", "expected one class derived from eyesmith.tasks.Task.*got none"),
        ("broken.py", "1 +", "defines no task: .*invalid syntax"),
        ("masked.py", "", "the file's name is the task's"),
        ("raises.py", "raise OSError('no')", "OSError: no .line 1"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=message):
            register_task(tmp_path / name)
    with pytest.raises(ConfigError, match="No such file"):
        register_task(tmp_path / "none.py")


def test_a_file_of_tasks_is_a_task() -> None:
    assert {"classify", "contrastive", "masked", "detect", "segment", "chat"} <= set(task_names())
    for name in task_names():
        found = task(name)
        assert found.config_type.__module__ == found.__module__
        assert registry.task_name(found) == name
    with pytest.raises(ConfigError, match="did you mean masked"):
        run_from_dict({"objective": "maskd"})
    with pytest.raises(ConfigError, match="expected a default for every field, model"):
        default_config(task("masked"))
