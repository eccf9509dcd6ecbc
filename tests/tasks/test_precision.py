"""Everything beside the training pass computes in the run's precision too: a teacher, texts, what is measured."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from eyesmith.data.loader import Batch
from eyesmith.hub import save_model
from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks import RunContext, task_of
from eyesmith.tasks.classify import ClassifyConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.masked import MaskedConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import new_state, train
from eyesmith.train.teacher import TargetConfig

TRV = Eva02Config(image_size=(32, 32), patch_px=8, width=16, depth=1, num_heads=1, hidden_dim=24, embed_dim=0)


class Given:
    """One batch for all steps."""

    steps_per_epoch = 5

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def samples(self, step: int) -> int:
        return step * len(self._batch)

    def batch(self, step: int) -> Batch:
        del step
        return self._batch


def _configs(config: TrainConfig, shards: Path, folder: Path) -> dict[str, Any]:
    teacher = folder / "teacher"
    torch.manual_seed(9)
    save_model(teacher, config.model.build().eval())
    shutil.copytree(shards, folder / "sets" / "held")
    shared = replace(config, epochs=0.2, eval=EvalConfig(curve_data=(config.data.path,), every_steps=1))
    assert isinstance(shared.model.image, ViTaminConfig)
    plain: dict[str, Any] = {"optim": shared.optim, "batch_size": 4, "epochs": 0.2}
    return {
        "contrastive": shared,
        "distilled": replace(shared, loss=LossConfig(distill=DistillConfig(teacher=str(teacher), feature=1.0))),
        "locked": replace(shared, model=replace(shared.model, lock_text=True)),
        "passing": replace(
            shared, model=replace(shared.model, lock_text=True), data=replace(shared.data, epoch_samples=12)
        ),
        "masked": MaskedConfig(
            name="m",
            model=TRV,
            target=TargetConfig(teacher=str(teacher), match="features"),
            data=DataConfig(path=str(folder / "sets"), split="held", decode_px=40),
            eval=EvalConfig(curve_splits=("held",)),
            **plain,
        ),
        "classify": ClassifyConfig(
            name="c",
            model=replace(shared.model.image, embed_dim=0),
            data=DataConfig(path=shared.data.path),
            eval=EvalConfig(curve_splits=("val",)),
            **plain,
        ),
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["contrastive", "distilled", "locked", "passing", "masked", "classify"])
def test_all_towers_compute_in_the_run_s_precision(
    config: TrainConfig, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, precision: Any
) -> None:
    """Every layer norm's surroundings are looked at: in building, in a step, and in measuring while training."""
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    run = replace(_configs(config, shards, tmp_path)[name], precision=precision)
    seen: dict[str, set[bool]] = {}
    place = "building"
    forward = nn.LayerNorm.forward

    def look(self: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        seen.setdefault(place, set()).add(torch.is_autocast_enabled("cpu"))
        return forward(self, x)

    monkeypatch.setattr(nn.LayerNorm, "forward", look)
    context = RunContext(folder=tmp_path / "run", world=World(), console=Console(quiet=True))
    kind = task_of(run)
    rows = kind.open_rows(run, World())
    task = kind.build(run, rows, context)
    state = new_state(task, run)
    place = "step"
    batch = rows.begin(0)().batch
    assert batch is not None
    batch = batch.with_extra(task.prepare(batch, 0))
    train(state, task, Given(batch), run)
    place = "measuring"
    measure = task.curve(context, ())
    assert measure is not None
    values = measure(task.model)
    rows.close()
    assert values
    assert seen.pop("step") == {precision == "bf16"}
    assert seen.pop("measuring") == {precision == "bf16"}
    assert seen.pop("building", {precision == "bf16"}) == {precision == "bf16"}
