"""Ways to train that the newest encoders use, each as a small run: see docs/abilities.md."""

from dataclasses import fields, replace

from eyesmith.data.buckets import BucketConfig
from eyesmith.losses.config import LossConfig
from eyesmith.models.captioner import CaptionerConfig
from eyesmith.models.lora import LoraConfig
from eyesmith.models.registry import config as model
from eyesmith.recipes.finetune import finetune
from eyesmith.recipes.laptop import lab_joint, lab_ltt, pairs, quickstart
from eyesmith.tasks.caption import CaptionTaskConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.distill import DistillTaskConfig
from eyesmith.train.config import EvalConfig


def distill() -> DistillTaskConfig:
    """One small encoder out of several models, on the pictures of the quick start: set `teachers`."""
    run = quickstart()
    return DistillTaskConfig(
        name="ViTamin-Nano-of-many",
        model=replace(model("ViTamin-Nano").image, embed_dim=0),
        data=run.data,
        optim=run.optim,
        eval=EvalConfig(splits=run.eval.splits),
        batch_size=run.batch_size,
        epochs=run.epochs,
    )


def caption() -> CaptionTaskConfig:
    """The quick start with a text tower that trains, and captions told word by word as one more loss (CoCa)."""
    run, own = quickstart(), model("ViTamin-Nano")
    pair = replace(run.model, image=own.image, text=own.text, lock_text=False)
    kept = {field.name: getattr(run, field.name) for field in fields(TrainConfig)}
    kept |= {"model": pair, "loss": LossConfig()}
    return CaptionTaskConfig(**{**kept, "caption": CaptionerConfig(width=128, depth=2, heads=4)})


def caption_only() -> CaptionTaskConfig:
    """The same by captions alone (GenLIP). The text tower does not train: measure the encoder by `eyesmith probe`."""
    run = caption()
    return replace(
        run,
        contrastive_weight=0.0,
        caption_weight=1.0,
        optim=replace(run.optim, freeze=("text.*", "logit_scale")),
        eval=EvalConfig(),
    )


def finetune_lora() -> TrainConfig:
    """`finetune` by adapters of low rank in both towers: the weights themselves stay, and a hundredth trains."""
    run = finetune()
    optim = replace(run.optim, peak_lr=5e-4, weight_decay=0.0, layer_decay=1.0, text_layer_decay=1.0)
    return replace(run, lora=LoraConfig(rank=16), optim=optim)


def pairs_buckets() -> TrainConfig:
    """`pairs` at several sizes, each picture near its own shape: set data.path."""
    return replace(pairs(), buckets=BucketConfig(cells=(9, 16)))


def lab_muon() -> TrainConfig:
    """What the lab trains by, with Muon in place of AdamW, at the same rate and decay."""
    run = lab_ltt()
    return replace(run, optim=replace(run.optim, name="muon"))


def lab_cooldown() -> TrainConfig:
    """What the lab trains by, at a constant rate that falls as 1 - sqrt in the last fifth."""
    run = lab_ltt()
    optim = replace(run.optim, schedule="constant_cooldown", cooldown_frac=0.2, cooldown_shape="sqrt")
    return replace(run, optim=optim)


def lab_joint_muon() -> TrainConfig:
    """Both towers from random weights, by Muon: what the lab sets captioning beside."""
    run = lab_joint()
    return replace(run, optim=replace(run.optim, name="muon"))


def lab_caption() -> CaptionTaskConfig:
    """The same with captions told word by word as one more loss (CoCa)."""
    run = lab_joint_muon()
    kept = {field.name: getattr(run, field.name) for field in fields(TrainConfig)}
    return CaptionTaskConfig(**kept, caption=CaptionerConfig(width=128, depth=2, heads=4))


def lab_buckets() -> TrainConfig:
    """`lab-muon` with batches of three sizes about the model's own, of as many cells each."""
    return replace(lab_muon(), buckets=BucketConfig(cells=(9, 16, 25), ratios=(1.0,)))
