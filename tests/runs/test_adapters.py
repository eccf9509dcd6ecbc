"""A run whose towers train by adapters alone: stopped and gone on with, it leaves a plain model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.runs.breaking import start_and_break

import eyesmith
from eyesmith.models.lora import MARK, LoraConfig
from eyesmith.runs.plan import plan
from eyesmith.runs.train import resume, start
from eyesmith.tasks.contrastive import TrainConfig


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
