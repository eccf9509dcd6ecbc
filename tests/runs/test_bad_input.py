"""What a user may do to a run: each ends in a clear error, and nothing half-written is taken for a whole."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import eyesmith
from eyesmith import files
from eyesmith.cli.main import main
from eyesmith.errors import CheckpointError, DataError
from eyesmith.runs.folder import is_finished
from eyesmith.runs.train import resume, start
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.callbacks.logging import read_lines
from eyesmith.train.config import EvalConfig


def test_a_full_disk_while_saving_leaves_the_state_before(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    sync, calls = files.os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if (folder / "state" / "step-00000005.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        start(config, folder)
    monkeypatch.undo()
    assert not is_finished(folder)
    assert [path.name for path in (folder / "state").iterdir()] == ["step-00000005.pt"]
    with pytest.raises(CheckpointError, match="eyesmith resume"):
        eyesmith.load(folder)
    resume(folder)
    assert is_finished(folder)


def test_a_split_that_is_not_there_is_known_before_the_training(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(DataError, match="no split 'unseen'"):
        start(replace(config, eval=EvalConfig(splits=("unseen",))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_and_a_very_long_caption(tmp_path: Path, config: TrainConfig, pairs: Path) -> None:
    rows = ["image,caption"]
    for i, image in enumerate(sorted(pairs.rglob("*.png"))[:8]):
        caption = {0: "", 1: "long " * 2000, 2: "a \N{DOG FACE}\x00 emoji"}.get(i, f"disc {i}")
        rows.append(f"{image},{caption}")
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(rows))
    start(replace(config, data=replace(config.data, path=str(table)), epochs=1), tmp_path / "run")
    events = (tmp_path / "run" / "log.jsonl").read_text()
    assert '"samples": 7' in events  # the empty one is left out, and counted
    assert '"skipped": 1' in events


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["train", "debug", "--out", str(tmp_path / "run"), f"data.path={tmp_path / 'nothing.csv'}"])
    said = capsys.readouterr().err
    assert status == 2
    assert "nothing.csv: no such file or folder" in said
    assert "Traceback" not in said


def test_a_picture_that_cannot_be_read_may_leave_a_step_fewer_rows_than_parts(
    tmp_path: Path, config: TrainConfig, pairs: Path
) -> None:
    shutil.copytree(pairs, tmp_path / "pairs")
    broken = tmp_path / "pairs" / "red" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = replace(config.data, path=str(tmp_path / "pairs"), memory_mib=0, max_skipped_frac=0.2)
    for name, accumulate in (("whole", 1), ("parts", 3)):
        start(replace(config, data=data, epochs=1, accumulate=accumulate), tmp_path / name)
    losses = [[line["loss"] for line in read_lines(tmp_path / name) if "loss" in line] for name in ("whole", "parts")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
