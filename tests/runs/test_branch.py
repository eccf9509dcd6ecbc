"""A branch is the run that would have been planned so from its beginning, without training its first steps again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub import save_model
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.language import TinyConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.branch import branch, branched
from eyesmith.runs.train import start
from eyesmith.tasks.chat import ChatConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.callbacks.logging import read_lines
from eyesmith.train.config import DataConfig


def test_a_branch_ends_as_a_run_planned_so_from_the_start(config: TrainConfig, tmp_path: Path) -> None:
    optim = replace(config.optim, schedule="constant", warmup_steps=2)
    trunk = replace(config, optim=optim, epochs=1, save_every_steps=4, keep_states=9)
    start(trunk, tmp_path / "trunk")
    before = {path: path.read_bytes() for path in (tmp_path / "trunk").rglob("*") if path.is_file()}
    branch(tmp_path / "trunk", tmp_path / "branch", at=4, steps=3)
    assert {path: path.read_bytes() for path in before} == before
    planned = branched(trunk, 8, at=4, steps=3, shape="sqrt")
    start(planned, tmp_path / "planned")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("branch", "planned"))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    log = (tmp_path / "branch" / "log.jsonl").read_text()
    assert '"branch_of"' in log
    assert '"step": 4,' not in log.splitlines()[1]
    with pytest.raises(CheckpointError, match="keeps no state of step 5; there are: 4, 8"):
        branch(tmp_path / "trunk", tmp_path / "other", at=5, steps=3)


def test_the_rate_of_a_branch_is_the_runs_and_then_falls(config: TrainConfig) -> None:
    trunk = replace(config, optim=replace(config.optim, schedule="constant", warmup_frac=0.25), epochs=2)
    for shape in ("linear", "sqrt"):
        planned = branched(trunk, 8, at=10, steps=4, shape=shape).optim
        assert [planned.lr_at(step, 14) for step in range(11)] == [trunk.optim.lr_at(step, 16) for step in range(11)]
        falls = [planned.lr_at(step, 14) / planned.peak_lr for step in range(10, 14)]
        expected = [1, 0.75, 0.5, 0.25] if shape == "linear" else [1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5]
        assert falls == pytest.approx(expected)


def test_what_cannot_be_branched_is_said(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="falls by a cosine"):
        branched(config, 8, at=10, steps=4, shape="sqrt")
    falling = replace(config, optim=replace(config.optim, schedule="steps", step_fracs=(0.5,)))
    with pytest.raises(ConfigError, match=r"falls in steps at \(0.5,\); a branch leaves a run of"):
        branched(falling, 8, at=10, steps=4, shape="sqrt")
    trunk = replace(config, optim=replace(config.optim, schedule="constant", warmup_frac=0.25), epochs=2)
    with pytest.raises(ConfigError, match="constant from step 4 to 16, got 3"):
        branched(trunk, 8, at=3, steps=4, shape="sqrt")
    with pytest.raises(ConfigError, match="1 or more of cool-down"):
        branched(trunk, 8, at=8, steps=0, shape="sqrt")


def test_a_branch_goes_on_from_what_the_run_was_and_wrote_last(config: TrainConfig, tmp_path: Path) -> None:
    optim = replace(config.optim, schedule="constant", warmup_steps=2)
    start(replace(config, optim=optim, epochs=0.5, save_every_steps=4), tmp_path / "trunk")
    state = tmp_path / "trunk" / "state" / "step-00000004.pt"
    shutil.copy(state, state.with_name("step-00000004-2.pt"))  # as a run that found the first one damaged wrote it
    state.write_bytes(state.read_bytes()[:1000])
    branch(tmp_path / "trunk", tmp_path / "branch", at=4, steps=1)
    assert (tmp_path / "branch" / "model.safetensors").is_file()
    file = tmp_path / "trunk" / "config.json"
    file.write_text(file.read_text().replace('"peak_lr": 0.001', '"peak_lr": 0.01'))
    with pytest.raises(ConfigError, match=r"was edited since the run began: optim\.peak_lr was 0\.001, now 0\.01"):
        branch(tmp_path / "trunk", tmp_path / "other", at=4, steps=1)


def test_a_branch_counts_the_epochs_of_what_can_be_used(tmp_path: Path) -> None:
    """Of eight conversations one is too long, which shows when the run is built: an epoch has one step, not two."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    eye = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)
    save_model(tmp_path / "eye", eye.build())
    said = [f"<image> what {'very ' * (200 if place == 3 else 1)} is it" for place in range(8)]
    records = [
        {"image": "red.png", "conversations": [{"from": "human", "value": one}, {"from": "gpt", "value": "red"}]}
        for one in said
    ]
    (tmp_path / "said.json").write_text(json.dumps(records))
    trunk = ChatConfig.from_eye(
        tmp_path / "eye",
        name="small",
        tiny=TinyConfig(width=16, layers=1, heads=2, hidden=24),
        data=DataConfig(path=str(tmp_path / "said.json")),
        optim=OptimConfig(peak_lr=1e-3, schedule="constant", warmup_frac=0.0),
        max_tokens=64,
        batch_size=4,
        epochs=6,
        save_every_steps=3,
        log_every_steps=1,
    )
    start(trunk, tmp_path / "trunk")
    branch(tmp_path / "trunk", tmp_path / "branch", at=3, steps=3, shape="linear")
    rates = [line["lr"] for line in read_lines(tmp_path / "branch") if "lr" in line]
    assert rates == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])
