"""The runs that are taken through the fake GPU: each task with all that it can be asked for, tiny."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from rich.console import Console

from eyesmith.data.make.scenes import make_scenes
from eyesmith.hub import save_model
from eyesmith.images import AugmentConfig, PreprocessConfig, TrainTransformConfig
from eyesmith.images.class_views import ClassViewConfig
from eyesmith.images.mix import MixConfig
from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.replay import replay
from eyesmith.runs.train import resume, start
from eyesmith.runs.work import open_work, save_replay
from eyesmith.tasks import register_task
from eyesmith.tasks.classify import ClassifyConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.masked import MaskedConfig
from eyesmith.tasks.registry import default_config
from eyesmith.train.config import DataConfig, EvalConfig, ParallelConfig
from eyesmith.train.replay import NonFiniteError
from eyesmith.train.teacher import TargetConfig

COLORS = ("red", "green", "blue", "black")
TRV = Eva02Config(
    image_size=(32, 32),
    patch_px=8,
    width=24,
    depth=2,
    num_heads=2,
    hidden_dim=48,
    embed_dim=0,
    pooling="normed_mean",
    drop_path_prob=0.2,
)


def discs(folder: Path) -> Path:
    """A folder of class folders: discs of four colours, each at six sizes."""
    for color in COLORS:
        (own := folder / color).mkdir(parents=True)
        for size in range(6):
            image = Image.new("RGB", (40, 40), "white")
            ImageDraw.Draw(image).ellipse((8 - size, 8 - size, 30 + size, 30 + size), fill=color)
            image.save(own / f"{size}.png")
    return folder


def tiny_model() -> ClipConfig:
    """A ViTamin and a text tower."""
    return ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
        prompts=("{}",),
    )


def contrastive(folder: Path) -> TrainConfig:
    """Four steps, bfloat16, all that draws random numbers switched on."""
    make_scenes(folder / "scenes", samples=16, size_px=32)
    return TrainConfig(
        model=tiny_model(),
        data=DataConfig(path=str(folder / "scenes"), split="train", decode_px=40),
        augment=AugmentConfig(scale=(0.6, 1.0), rotation_degrees=10, horizontal_flip_prob=0.5, brightness=0.2),
        optim=OptimConfig(peak_lr=1e-3, ema_decay=0.9, clip_norm=1.0),
        batch_size=4,
        epochs=1,
        log_every_steps=3,
        save_every_steps=2,
    )


MEASURED = EvalConfig(curve_splits=("test",), curve_tasks=("zero_shot", "retrieval"))


def masked(folder: Path, **changes: Any) -> MaskedConfig:
    """The same for a TrV from masked images; changes: of the target."""
    base = contrastive(folder)
    torch.manual_seed(9)
    if changes.get("kind") != "pixels":
        changes["teacher"] = teacher(folder)
    return MaskedConfig(
        name="TrV-tiny",
        model=TRV,
        data=base.data,
        augment=AugmentConfig() if changes.get("cache") else base.augment,
        target=TargetConfig(**changes),
        optim=base.optim,
        eval=EvalConfig(curve_splits=("test",)),
        batch_size=4,
        epochs=1,
        log_every_steps=3,
        save_every_steps=2,
    )


def teacher(folder: Path) -> str:
    """An untrained model to learn from."""
    model = tiny_model().build()
    save_model(folder / "teacher", model.eval())
    return str(folder / "teacher")


def train(config: Any, folder: Path) -> None:
    """The whole run."""
    start(config, folder / "run", console=Console(stderr=True, quiet=True))


def _contrastive(folder: Path, **changes: Any) -> None:
    train(replace(contrastive(folder), **changes), folder)


def _locked(folder: Path, **changes: Any) -> None:
    config = contrastive(folder)
    data = replace(config.data, **changes)
    measured = EvalConfig() if changes else MEASURED
    train(replace(config, model=replace(config.model, lock_text=True), data=data, eval=measured), folder)


def _dropped_patches(folder: Path) -> None:
    config = contrastive(folder)
    image = replace(TRV, embed_dim=16, pooling="token")
    train(replace(config, model=replace(config.model, image=image), patch_drop_prob=0.5), folder)


def _distilled(folder: Path) -> None:
    loss = LossConfig(distill=DistillConfig(teacher=teacher(folder), feature=1.0, affinity=1.0, logit=1.0))
    _contrastive(folder, loss=loss)


def _classify(folder: Path) -> None:
    base = contrastive(folder)
    config = ClassifyConfig(
        name="tiny",
        model=replace(TRV, pooling="mean"),
        data=DataConfig(path=str(discs(folder / "discs"))),
        views=ClassViewConfig(scale=(0.5, 1.0), mix=MixConfig(mixup=0.8, cutmix=1.0, prob=0.5)),
        optim=replace(base.optim, layer_decay=0.8, freeze=("image.patch.*",)),
        eval=EvalConfig(curve_splits=("all",)),
        batch_size=4,
        epochs=1,
        log_every_steps=3,
        save_every_steps=2,
    )
    train(config, folder)


def _streamed(folder: Path) -> None:
    """From shards, through a decoder's processes."""
    config = contrastive(folder)
    views = TrainTransformConfig(image_size=(32, 32), scale=(0.5, 1.0))
    data = DataConfig(path=str(folder / "scenes" / "train"))
    train(replace(config, data=data, augment=AugmentConfig(), transform=views), folder)


def _resumed(folder: Path) -> None:
    """A finished run whose last state and weights are taken away goes on from the state before."""
    train(contrastive(folder), folder)
    (folder / "run" / "model.safetensors").unlink()
    max((folder / "run" / "state").glob("step-*")).unlink()
    resume(folder / "run", console=Console(stderr=True, quiet=True))


def _replayed(folder: Path) -> None:
    """A step that is kept as if it had broken, run again and looked into."""
    config, quiet = contrastive(folder), Console(stderr=True, quiet=True)
    work = open_work(config, folder / "run", quiet)
    error = NonFiniteError("as if", step=1, keys=(), loss=float("nan"), grad_norm=float("nan"))
    kept = save_replay(folder / "run", work.state, config, error)
    work.batches.close()
    replay(kept, console=quiet)


def _own_task(folder: Path) -> None:
    """The task of docs/own-training-task.md."""
    own = register_task(Path(__file__).parents[2] / "docs" / "examples" / "rotation.py")
    base = contrastive(folder)
    train(replace(default_config(own), data=base.data, batch_size=4, epochs=1.0, save_every_steps=2), folder)


PARTS: dict[str, Callable[[Path], None]] = {
    "contrastive": partial(_contrastive, eval=MEASURED),
    "streamed": _streamed,
    "resumed": _resumed,
    "replayed": _replayed,
    "own task": _own_task,
    "contrastive in parts": partial(_contrastive, accumulate=2),
    "contrastive, recomputed blocks": partial(_contrastive, parallel=ParallelConfig(checkpoint_blocks=True)),
    "sigmoid": partial(_contrastive, loss=LossConfig(kind="sigmoid")),
    "tiles of logits": partial(_contrastive, loss=LossConfig(tile_rows=2)),
    "fp16": partial(_contrastive, precision="fp16"),
    "lamb": partial(_contrastive, optim=OptimConfig(name="lamb", peak_lr=1e-3)),
    "lion": partial(_contrastive, optim=OptimConfig(name="lion", peak_lr=1e-3)),
    "sgd": partial(_contrastive, optim=OptimConfig(name="sgd", peak_lr=1e-3)),
    "locked text, kept": _locked,
    "locked text, passing": partial(_locked, epoch_samples=16),
    "dropped patches": _dropped_patches,
    "teacher": _distilled,
    "masked": lambda folder: train(masked(folder), folder),
    "masked, pixels": lambda folder: train(masked(folder, kind="pixels"), folder),
    "masked, kept targets": lambda folder: train(masked(folder, cache=True), folder),
    "masked in parts": lambda folder: train(replace(masked(folder, match="features"), accumulate=2), folder),
    "classify": _classify,
}
