"""Runs of a language model with an eye."""

from dataclasses import replace

from eyesmith.images.augment import AugmentConfig
from eyesmith.models.registry import config as model
from eyesmith.multimodal.eye import EyeConfig
from eyesmith.multimodal.language import SMOLLM2
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.chat import ChatConfig
from eyesmith.tasks.things import ThingsConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig

_HEALTH = HealthConfig(ignore=("no_gradient",))  # the eye gets none
_SHORT = HealthConfig(ignore=("no_gradient", "memory"))  # so few steps show how it fills, not whether it grows
_WORDS = "text.model.embed_tokens.weight"
_SIDE = (64, 64)  # 16 tokens of an eye whose stride is 16


def scenes_eye() -> ThingsConfig:
    """An eye for scenes: ViTamin-Nano at 64 pixels, from nothing, by what is where in `data make scenes`."""
    return ThingsConfig(
        name="scenes-eye",
        model=replace(model("ViTamin-Nano").image, image_size=_SIDE, embed_dim=0),
        data=DataConfig(path="data/scenes", split="train"),
        # neither flipped nor recoloured: cells and colours are what is told
        augment=AugmentConfig(brightness=0.15, contrast=0.15),
        optim=OptimConfig(name="muon", peak_lr=3e-3, weight_decay=0.05, clip_norm=1.0),
        eval=EvalConfig(splits=("test",)),
        batch_size=64,
        epochs=2,
    )


def chat_scenes() -> ChatConfig:
    """A small language model, from nothing, that answers questions about scenes: minutes on two cores. Give --from."""
    pair = model("ViTamin-Nano")
    return ChatConfig(
        name="chat-scenes",
        model=replace(pair.image, image_size=_SIDE, embed_dim=0),
        preprocess=replace(pair.preprocess, image_size=_SIDE),
        eye=EyeConfig(pad=True),
        data=DataConfig(path="data/scenes", split="train"),
        optim=OptimConfig(name="muon", peak_lr=3e-3, weight_decay=0.0, clip_norm=1.0, clip_by="part", warmup_frac=0.05),
        eval=EvalConfig(splits=("test",)),
        health=_SHORT,
        batch_size=16,
        epochs=1,
        save_every_steps=500,
    )


def smollm2_stage1() -> ChatConfig:
    """SmolLM2-135M learns to read an eye, by describing 800 scenes. Give --from an eye of scenes."""
    run = chat_scenes()
    return replace(
        run,
        name="smollm2-stage1",
        lm=SMOLLM2,
        captions_only=True,
        # trained weights take small steps; the table of words stays, as what is said here has no new ones
        optim=replace(run.optim, name="adamw", peak_lr=1e-3, text_lr_scale=0.3, freeze=(_WORDS,)),
        eval=EvalConfig(),
        epochs=0.0667,
    )


def smollm2_stage2() -> ChatConfig:
    """Then it answers questions about 320 scenes. Give --from the same eye, and start=RUN of the first stage."""
    run = smollm2_stage1()
    return replace(
        run,
        name="smollm2-stage2",
        captions_only=False,
        optim=replace(run.optim, peak_lr=3e-4, text_lr_scale=1.0),
        eval=EvalConfig(splits=("test",)),
        batch_size=8,
        epochs=0.0267,
    )


def llava_1_5_stage1() -> ChatConfig:
    """LLaVA-1.5's first stage: the projector alone, on captions. Set lm, data.path, images, and --from the eye."""
    return ChatConfig(
        name="llava-1.5-stage1",
        model=replace(model("ViTamin-L-384").image, embed_dim=0),
        preprocess=model("ViTamin-L-384").preprocess,
        eye=EyeConfig(pad=False),
        lm="vicuna-7b-v1.5",
        template="plain",
        trains="projector",
        data=DataConfig(path="blip_laion_cc_sbu_558k.json", epoch_samples=558_128),
        optim=OptimConfig(
            peak_lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, clip_norm=1.0, warmup_frac=0.03
        ),
        batch_size=256,
        epochs=1,
        keep_seen=False,
        health=_HEALTH,
        precision="bf16",
        save_every_steps=24_000,
    )


def llava_1_5_stage2() -> ChatConfig:
    """LLaVA-1.5's second stage: projector and language model, on the instruction mix. Set start to the first stage."""
    run = llava_1_5_stage1()
    return replace(
        run,
        name="llava-1.5-stage2",
        eye=EyeConfig(pad=True),
        template="vicuna_v1",
        trains="all",
        data=DataConfig(path="llava_v1_5_mix665k.json", epoch_samples=665_298),
        optim=replace(run.optim, peak_lr=2e-5),
        batch_size=128,
        save_every_steps=50_000,
    )
