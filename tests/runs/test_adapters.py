"""A run whose towers train by adapters alone: stopped and gone on with, it leaves a plain model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.runs.breaking import start_and_break

import eyesmith
from eyesmith.data.make.scenes import make_scenes
from eyesmith.models.lora import MARK, LoraConfig
from eyesmith.runs.plan import plan
from eyesmith.runs.train import resume, start
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import EvalConfig


def test_adapters_alone_train_and_a_stopped_run_ends_as_one_never_stopped(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(config, epochs=1)
    start(plain, tmp_path / "plain")
    tuned = replace(plain, lora=LoraConfig(rank=2), save_every_steps=3, optim=replace(config.optim, name="muon"))
    start(tuned, tmp_path / "whole")

    start_and_break(tuned, tmp_path / "stopped", step=5, monkeypatch=monkeypatch)
    resume(tmp_path / "stopped")
    models = {name: load_file(tmp_path / name / "model.safetensors") for name in ("plain", "whole", "stopped")}
    assert models["whole"].keys() == models["plain"].keys()
    for name, value in models["whole"].items():
        assert torch.equal(value, models["stopped"][name]), name
    assert eyesmith.load(tmp_path / "whole").config == config.model
    began = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[0])
    assert began["parameters"]["trained"] < 0.5 * (began["parameters"]["image"] + began["parameters"]["text"])
    state = torch.load(max((tmp_path / "whole" / "state").iterdir()), weights_only=True)
    trained = [name for name in state if name.startswith("model/")]
    assert all(MARK in name or name == "model/logit_scale" for name in trained), trained
    planned = plan(tuned)
    assert sum(part.trained for part in planned.parts) == began["parameters"]["trained"]
    sizes = {part.part: part.num_bytes for part in planned.memory}
    assert sizes["gradients"] == 4 * began["parameters"]["trained"]


def test_the_best_weights_are_a_plain_model_and_the_run_goes_on(config: TrainConfig, tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", samples=16, size_px=32)
    data = replace(config.data, path=str(tmp_path / "scenes"), split="train")
    measured = EvalConfig(curve_splits=("test",), curve_tasks=("retrieval",), every_steps=1)
    start(replace(config, data=data, batch_size=4, epochs=1, lora=LoraConfig(rank=2), eval=measured), tmp_path / "run")
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert best.keys() == load_file(tmp_path / "run" / "model.safetensors").keys()
    assert eyesmith.load(tmp_path / "run" / "best").config == config.model
