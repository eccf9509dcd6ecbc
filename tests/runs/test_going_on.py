"""What a run that goes on compares, keeps and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import eyesmith
from eyesmith.cli.main import main
from eyesmith.config import to_dict
from eyesmith.errors import CheckpointError, ConfigError, DataError
from eyesmith.hub import save_model
from eyesmith.hub.initial import InitialConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.runs.folder import FROZEN_FILE, ORIGIN_FILE, is_measured, one_writer
from eyesmith.runs.train import resume, start, start_or_resume
from eyesmith.runs.work import Interrupted, MeasuringError, summary
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import StopSignal
from eyesmith.writer import LOCK_FILE, WRITER_FILE

HOLD = """
import sys, time
from pathlib import Path
from eyesmith.runs.folder import one_writer
from eyesmith.train.distributed import World
with one_writer(Path(sys.argv[1]), World()):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def short(config: TrainConfig, pairs: Path, tmp_path: Path) -> TrainConfig:
    """One epoch of eight steps on data of the test's own."""
    shutil.copytree(pairs, tmp_path / "data")
    return replace(config, data=replace(config.data, path=str(tmp_path / "data")), epochs=1)


def stopped(config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of `config` that was stopped after its first step."""
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "__call__", lambda _: True)
        with pytest.raises(Interrupted):
            start(config, folder)
    return folder


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["train"] |= changes
    path.write_text(json.dumps(content))


# ---- the model is saved before it is measured


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), DataError("gone"), MemoryError()])
def test_what_cannot_be_measured_is_saved_and_can_be_measured_later(
    short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Contrastive, "measured", fail)
        with pytest.raises(MeasuringError, match=r"trained and saved.*eyesmith resume .*eyesmith eval "):
            start(short, run)
    eyesmith.load(run)
    assert not is_measured(run)
    weights = (run / "model.safetensors").read_bytes()
    asked: list[torch.device] = []
    monkeypatch.setattr(
        Contrastive, "measured", lambda task, model, note: asked.append(next(model.parameters()).device) or []
    )
    resume(run)
    assert asked == [torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")]
    assert is_measured(run)
    assert (run / "model.safetensors").read_bytes() == weights
    assert [line["step"] for line in log(run) if "loss" in line] == list(range(1, 9))
    assert resume(run).was_finished
    assert len(asked) == 1


# ---- the data are compared


def test_other_images_captions_or_samples_are_refused_and_a_moved_or_touched_folder_is_not(
    short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(short.data.path)
    run = stopped(short, tmp_path / "run", monkeypatch)
    image = data / "red" / "0.png"
    before = image.read_bytes()
    other = bytearray(before)  # of equal size, and still an image: only a byte of its text chunk would tell
    Image.new("RGB", (40, 40), "yellow").save(image)
    with pytest.raises(DataError, match=r"1 samples with other images, the first is red/0.png.*--allow-other-data"):
        resume(run)
    other[-5] ^= 1
    image.write_bytes(bytes(other))
    with pytest.raises(DataError, match="1 samples with other images"):
        resume(run)
    image.write_bytes(before)
    shutil.copy(image, data / "red" / "9.png")
    with pytest.raises(DataError, match=r"24 samples before, now 25; 1 samples added, the first is red/9.png"):
        resume(run)
    (data / "red" / "9.png").unlink()
    (data / "pink").mkdir()
    image.rename(data / "pink" / "0.png")
    with pytest.raises(DataError, match=r"added, the first is pink/0.png; .*gone, the first is red/0.png"):
        resume(run)
    (data / "pink" / "0.png").rename(image)
    (data / "pink").rmdir()
    os.utime(image, (1, 1))
    moved = tmp_path / "moved"
    data.rename(moved)
    edit(run, data={**json.loads((run / "config.json").read_text())["train"]["data"], "path": str(moved)})
    resume(run)
    assert "other_data" not in next(line for line in log(run) if line.get("event") == "resume")


def table(folder: Path, pairs: Path, captions: dict[str, str]) -> Path:
    rows = [f"{pairs / name},{caption}" for name, caption in captions.items()]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    return folder / "pairs.csv"


def test_other_captions_are_refused_unless_allowed_and_then_logged(
    config: TrainConfig, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = {f"{color}/{number}.png": f"{color} {number}" for color in ("red", "blue") for number in range(4)}
    path = table(tmp_path, pairs, captions)
    run = stopped(replace(config, data=DataConfig(path=str(path), decode_px=40)), tmp_path / "run", monkeypatch)
    table(tmp_path, pairs, {name: caption.upper() for name, caption in captions.items()})
    with pytest.raises(DataError, match=r"8 samples with other captions"):
        resume(run)
    table(tmp_path, pairs, dict(list(captions.items())[:4]))
    with pytest.raises(DataError, match=r"8 samples before, now 4"):
        resume(run)
    assert main(["resume", str(run), "--allow-other-data"]) == 0
    line = next(line for line in log(run) if line.get("event") == "resume")
    assert "8 samples before, now 4" in line["other_data"]


def test_other_shards_or_another_window_are_refused(
    streamed: TrainConfig, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(shards, tmp_path / "shards")
    run = stopped(replace(streamed, data=replace(streamed.data, path=str(data))), tmp_path / "run", monkeypatch)
    settings = json.loads((run / "config.json").read_text())["train"]["data"]
    edit(run, data={**settings, "window": 7})
    with pytest.raises(ConfigError, match=r"data.window was \d+, now 7.*--allow-other-data"):
        resume(run)
    edit(run, data=settings)
    first, last = data / "0.tar", data / "2.tar"
    first.rename(data / "x")
    last.rename(first)
    with pytest.raises(DataError, match=r"is not the data that .* began with"):
        resume(run)


# ---- frozen weights and teachers belong to the run


@pytest.fixture
def trained(tiny_model: ClipConfig, tmp_path: Path) -> Path:
    torch.manual_seed(7)
    save_model(tmp_path / "trained", tiny_model.build().eval())
    return tmp_path / "trained"


def test_a_locked_tower_is_kept_by_the_run_and_a_changed_one_refused(
    short: TrainConfig, tiny_model: ClipConfig, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(short.model, lock_text=True)
    config = replace(short, model=model, initial=InitialConfig(weights=str(trained), part="text"))
    start(config, tmp_path / "whole")
    assert not (tmp_path / "whole" / FROZEN_FILE).exists()  # the model has them
    run = stopped(config, tmp_path / "run", monkeypatch)
    kept = trained.rename(tmp_path / "kept")
    torch.manual_seed(8)
    save_model(trained, tiny_model.build().eval())
    with pytest.raises(CheckpointError, match="frozen weights are not those that"):
        resume(run)
    shutil.rmtree(trained)
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))  # texts are encoded anew
    resume(run)
    ours, theirs = load_file(run / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert kept.is_dir()


def test_another_teacher_is_refused_and_one_that_is_gone_is_asked_for(
    short: TrainConfig, tiny_model: ClipConfig, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill = replace(short.loss.distill, teacher=str(trained), feature=1.0)
    run = stopped(replace(short, loss=replace(short.loss, distill=distill)), tmp_path / "run", monkeypatch)
    shutil.copytree(trained, tmp_path / "moved")
    torch.manual_seed(8)
    save_model(trained, tiny_model.build().eval())
    with pytest.raises(CheckpointError, match=r"loss.distill.teacher: its weights are not those"):
        resume(run)
    shutil.rmtree(trained)
    gone = rf"run: learns from \S+trained \(loss.distill.teacher\), which is gone.*put it back.*{run / 'config.json'}"
    with pytest.raises(CheckpointError, match=gone):
        resume(run)
    moved = replace(distill, teacher=str(tmp_path / "moved"))
    edit(run, loss=to_dict(replace(short.loss, distill=moved)))
    resume(run)


# ---- the verb, and edited configs


def test_train_goes_on_with_its_own_run_and_refuses_another(
    short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eyesmith.cli.train import train

    start(short, tmp_path / "whole")
    run = stopped(short, tmp_path / "run", monkeypatch)
    with pytest.raises(ConfigError, match=r"batch_size was 3, now 4, epochs was 1.0, now 9"):
        train(replace(short, batch_size=4, epochs=9), run)
    assert train(short, run) == 0
    told = capsys.readouterr()
    assert "going on with it" in told.err
    assert "trained" in told.out
    ours, theirs = load_file(run / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert train(short, run) == 0
    told = capsys.readouterr()
    assert "finished, nothing is trained" in told.err
    assert ": trained" not in told.out
    with pytest.raises(ConfigError, match=r"finished run with other settings: seed was 0, now 1"):
        train(replace(short, seed=1), run)


@pytest.mark.parametrize("changes", [{"batch_size": 6}, {"seed": 5}, {"epochs": 3.0}])
def test_an_edited_config_is_refused_finished_or_not(
    short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    run = stopped(short, tmp_path / "run", monkeypatch)
    edit(run, **changes)
    with pytest.raises(ConfigError, match=f"edited since the run began: {next(iter(changes))} was"):
        resume(run)
    edit(run, **{name: to_dict(short)[name] for name in changes}, log_every_steps=3)
    resume(run)  # how often is logged may change
    edit(run, **changes)
    with pytest.raises(ConfigError, match="edited since the run began"):
        resume(run)


def test_a_run_keeps_to_one_way_of_decoding(
    short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept in memory was decoded exactly, what is not is decoded fast: other pixels."""
    run = stopped(short, tmp_path / "run", monkeypatch)
    edit(run, data=to_dict(replace(short.data, memory_mib=0)))
    with pytest.raises(ConfigError, match=r"edited since the run began: data\.memory_mib was"):
        resume(run)


# ---- one writer a folder


def test_a_second_writer_is_refused_by_name_and_a_killed_one_holds_nobody_up(
    short: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        for begin in (start, start_or_resume):
            with pytest.raises(ConfigError, match=rf"process {child.pid} on \S+ is writing to this run folder"):
                begin(short, run)
        child.send_signal(signal.SIGKILL)
    assert (run / LOCK_FILE).exists()
    assert (run / WRITER_FILE).exists()
    parts = [run / f".{name}.{child.pid}-0a1b2c.part" for name in ("model.safetensors", "config.json")]
    for part in parts:
        part.write_bytes(b"half")
    (run / ".mine.part").write_bytes(b"a user's")
    with pytest.raises(ConfigError, match="not empty"):
        start(short, run)
    (run / ".mine.part").unlink()
    (run / ORIGIN_FILE).write_text("{}")  # of a start that was killed before it wrote its config
    start(short, run)
    left = [path.name for path in run.rglob("*") if path.name in (LOCK_FILE, WRITER_FILE) or path.suffix == ".part"]
    assert not left
    assert resume(run).was_finished


def test_a_folder_in_which_nothing_was_written_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyError), one_writer(tmp_path / "a" / "b", World()):
        raise KeyError
    assert not (tmp_path / "a").exists()


def test_measured_before_stays_when_measuring_fails(
    config: TrainConfig, pairs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EvalConfig(curve_data=(str(pairs),), keep_best="none")
    run = replace(Contrastive.from_weights(config, str(trained)), eval=settings, epochs=0.25)
    left = [Contrastive.measured]  # of the weights it begins with; those at the end are not
    with monkeypatch.context() as patch:
        patch.setattr(Contrastive, "measured", lambda *given: left.pop()(*given) if left else 1 / 0)
        with pytest.raises(MeasuringError, match="ZeroDivisionError"):
            start(run, tmp_path / "run")
    names = {row.model for row in resume(tmp_path / "run").rows}
    assert names == {"tiny", "tiny before"}


def test_a_finished_run_whose_log_is_empty_is_one_still(short: TrainConfig, tmp_path: Path) -> None:
    start(short, tmp_path / "run")
    for content in (b"", b"\xff\xfe"):
        (tmp_path / "run" / "log.jsonl").write_bytes(content)
        found = summary(tmp_path / "run")
        assert (found.train_s, found.was_finished) == (0, True)
        assert not is_measured(tmp_path / "run")
