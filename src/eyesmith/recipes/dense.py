"""Runs that make an eye for dense prediction: one that sees in scenes."""

from dataclasses import replace

from eyesmith.images.augment import AugmentConfig
from eyesmith.recipes.laptop import quickstart
from eyesmith.tasks.regions import RegionsConfig
from eyesmith.train.config import DataConfig, EvalConfig, OptimConfig


def dense_eye() -> RegionsConfig:
    """An eye that sees in scenes, for heads of detection and segmentation: give `--from` a trained quick start."""
    run = quickstart()
    return RegionsConfig(
        model=replace(run.model, image=replace(run.model.image, drop_path_prob=0.0)),
        data=replace(DataConfig(path="data/emoji-scenes", split="train"), decode_px=run.data.decode_px),
        drawings="data/emoji",
        augment=run.augment,
        scene_augment=AugmentConfig(horizontal_flip_prob=0.5, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        distill_weight=0.5,
        optim=OptimConfig(name="muon", muon_momentum=0.9, peak_lr=2e-3, weight_decay=0.1),
        eval=EvalConfig(
            splits=("validation", "test"), curve_splits=("validation",), curve_data=("data/emoji",), every_epochs=0.5
        ),
        batch_size=24,
        epochs=2,
    )
