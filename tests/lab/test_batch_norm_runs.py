"""Encoders with batch norms in a run: what the norms have counted is saved, resumed and part of the model."""

import json
import os
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import eyesmith
from eyesmith.hub.fingerprint import fingerprint
from eyesmith.images import PreprocessConfig
from eyesmith.lab.encoders import contender
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.train import resume, start
from eyesmith.runs.work import Interrupted
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.callbacks import logging as log
from eyesmith.train.config import DataConfig
from eyesmith.train.diagnostics import HealthConfig

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    for color in ("red", "green", "blue"):
        (folder / color).mkdir()
        for size in range(4):
            image = Image.new("RGB", (64, 64), "white")
            image.paste(color, (0, 0, 20 + 8 * size, 40))
            image.save(folder / color / f"{size}.png")
    return folder


def _config(encoder: str, data: Path) -> TrainConfig:
    return TrainConfig(
        model=ClipConfig(
            name="tiny",
            image=replace(contender(encoder, "pico", image_px=32).image, embed_dim=16),
            text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
            preprocess=PreprocessConfig(image_size=(32, 32)),
            prompts=("{}",),
        ),
        data=DataConfig(path=str(data), decode_px=32),
        optim=OptimConfig(peak_lr=1e-3),
        health=HealthConfig(ignore=("waiting", "slower", "memory")),
        batch_size=4,
        epochs=2,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=2,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["CoAtNet", "ViTamin:bn-se"])
def test_a_stopped_run_ends_with_the_norms_of_one_never_stopped(
    encoder: str, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(encoder, squares)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    start(config, whole)

    write = log.append_line

    def write_and_interrupt(folder: Path, line: dict) -> None:
        write(folder, line)
        if line.get("step") == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(log, "append_line", write_and_interrupt)
    with pytest.raises(Interrupted, match="step 3 of 6"):
        start(config, stopped)
    monkeypatch.undo()
    resume(stopped)

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    counts = [value for name, value in ours.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 6 for count in counts)
    stored = json.loads((whole / "fingerprint.json").read_text())
    assert fingerprint(eyesmith.load(whole)).items() <= stored.items()
