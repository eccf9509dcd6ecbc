"""Runs that end in minutes on two CPU cores."""

from dataclasses import replace

from eyesmith.images.augment import AugmentConfig
from eyesmith.losses.config import LossConfig
from eyesmith.models.registry import config as model
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.regions import RegionsConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig

_SPLITS = ("unseen_drawing", "unseen_concept")


def quickstart() -> TrainConfig:
    """ViTamin-Nano from nothing on drawings in ten styles, by Locked-Text Tuning against a frozen MiniLM."""
    run = quickstart_small()
    pair = replace(run.model, image=replace(run.model.image, drop_path_prob=0.05), init_scale=30.0)
    return replace(
        run,
        model=pair,
        loss=LossConfig(kind="names", neighbours=0.6),
        augment=replace(run.augment, scale=(0.6, 1.5), outline_prob=0.5),
        optim=OptimConfig(name="muon", muon_momentum=0.9, peak_lr=3e-3, weight_decay=0.1),
        eval=replace(run.eval, splits=(*_SPLITS, "choose_drawing"), curve_splits=("choose_drawing",)),
        epochs=60,
    )


def quickstart_small() -> TrainConfig:
    """The same on the small world's four styles, with the recipe that its numbers in the docs were measured with."""
    pair = model("ViTamin-Nano")
    text = HuggingFaceTextConfig()
    return TrainConfig(
        model=replace(
            pair,
            image=replace(pair.image, embed_dim=384),  # MiniLM's width
            text=text,
            lock_text=True,
            prompts=("{}", "a drawing of a {}", "an emoji of a {}"),
            init_scale=20.0,
        ),
        data=DataConfig(path="data/emoji", split="train"),
        augment=AugmentConfig(
            scale=(0.6, 1.2),
            ratio=(0.87, 1.15),
            rotation_degrees=12,
            shear_degrees=3,
            translate_frac=0.05,
            horizontal_flip_prob=0.5,
            brightness=0.3,
            contrast=0.3,
            saturation=0.3,
            hue=0.05,
        ),
        optim=OptimConfig(peak_lr=1.5e-3, weight_decay=0.2),
        eval=EvalConfig(splits=_SPLITS, curve_splits=_SPLITS[:1]),
        batch_size=128,
        epochs=78,
    )


def quickstart_vit() -> TrainConfig:
    """The baseline beside it: a plain ViT of equal parameters, everything else equal."""
    run = quickstart()
    pair = model("ViT-Nano")
    return replace(run, model=replace(run.model, name=pair.name, image=replace(pair.image, embed_dim=384)))


def quickstart_small_vit() -> TrainConfig:
    """The baseline beside the small world's run, everything else equal."""
    run = quickstart_small()
    return replace(run, model=quickstart_vit().model)


def lab_ltt() -> TrainConfig:
    """What the lab trains its encoders by: AdamW and CLIP's loss at 64 pixels, against a frozen MiniLM."""
    run = quickstart_small()
    side = (64, 64)
    pair = replace(
        run.model,
        image=replace(run.model.image, image_size=side),
        preprocess=replace(run.model.preprocess, image_size=side),
    )
    return replace(run, model=pair, data=replace(run.data, decode_px=96), eval=EvalConfig())


def lab_names() -> TrainConfig:
    """What the lab trains by on the large world: the quick start's loss by names and Muon, at 64 pixels."""
    run, names = lab_ltt(), quickstart()
    model = replace(run.model, init_scale=names.model.init_scale)
    return replace(run, model=model, loss=names.loss, optim=names.optim)


def lab_joint() -> TrainConfig:
    """The same with a small text tower from random weights that trains too."""
    run = lab_ltt()
    own = model("ViTamin-Nano")
    image = replace(run.model.image, embed_dim=own.image.embed_dim)
    return replace(run, model=replace(run.model, image=image, text=own.text, lock_text=False))


def dense_eye() -> RegionsConfig:
    """An eye that sees in scenes, for heads of detection and segmentation: give `--from` a trained quick start."""
    run = quickstart()
    return RegionsConfig(
        model=replace(run.model, image=replace(run.model.image, drop_path_prob=0.0)),
        data=replace(DataConfig(path="data/emoji-scenes", split="train"), decode_px=run.data.decode_px),
        drawings="data/emoji",
        augment=quickstart_small().augment,  # without outlines: as docs/dense-eye.md was measured
        scene_augment=AugmentConfig(horizontal_flip_prob=0.5, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        distill_weight=0.5,
        optim=OptimConfig(name="muon", muon_momentum=0.9, peak_lr=2e-3, weight_decay=0.1),
        eval=EvalConfig(
            splits=("validation", "test"), curve_splits=("validation",), curve_data=("data/emoji",), every_epochs=0.5
        ),
        batch_size=24,
        epochs=2,
    )


def pairs() -> TrainConfig:
    """The quick start's model and settings on pairs of your own: set data.path, and eval.splits to measure."""
    run = quickstart_small()
    return replace(
        run,
        model=replace(run.model, prompts=("a photo of a {}.",)),
        data=DataConfig(path="pairs.csv"),
        eval=EvalConfig(),
    )


def debug() -> TrainConfig:
    """The quick start's run cut to seconds, both towers from nothing, on scenes drawn here: needs no other package."""
    run = quickstart_small()
    own = model("ViTamin-Nano")
    assert isinstance(own.text, ClipTextConfig)
    text = own.text.of_bytes()  # CLIP's vocabulary comes with a package
    return replace(
        run,
        model=replace(run.model, image=own.image, text=text, lock_text=False),
        data=DataConfig(path="data/scenes", split="train"),
        eval=EvalConfig(splits=("test",)),
        optim=replace(run.optim, peak_lr=3e-4, clip_norm=1.0),  # two towers from nothing, and hardly a warm-up
        health=HealthConfig(ignore=("memory",)),  # so few steps show how it fills, not whether it grows
        epochs=2,
        log_every_steps=1,
        save_every_steps=4,
    )
