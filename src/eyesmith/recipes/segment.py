"""Runs that train segmenters on frozen eyes: FC-CLIP with the papers' values, and a plain decoder on a laptop."""

from dataclasses import replace

from eyesmith.dense.segment.fcclip import FcClipConfig
from eyesmith.dense.segment.head import SegmentHeadConfig
from eyesmith.dense.segment.inference import PanopticRule
from eyesmith.dense.segment.losses import MaskLossConfig
from eyesmith.dense.segment.picture_segmenter import SegmentPredictConfig
from eyesmith.dense.segment.pmt import PmtConfig
from eyesmith.dense.view import JitterConfig, ViewConfig
from eyesmith.models.registry import config as model
from eyesmith.optim.config import OptimConfig
from eyesmith.recipes.laptop import quickstart
from eyesmith.tasks.segment import SegmentConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig

COCO_IMAGES = 118_000  # of COCO panoptic's training split that 368,750 steps of 16 pass over 50 times
_HEALTH = HealthConfig(ignore=("no_gradient",))  # the eye gets none

SMALL_HEAD = SegmentHeadConfig(
    decoder=PmtConfig(width=96, num_heads=4, num_blocks=3, num_queries=24, mlp_ratio=3.0),
    loss=MaskLossConfig(num_points=784, learns="things"),
)
"""For pictures of some 224 pixels with a handful of things; minutes are too few to learn hundreds of names."""


def segment() -> SegmentConfig:
    """A segmenter of masks of your own, from a few pictures on. Set data.path, and --from the eye."""
    run = segment_emoji()
    return replace(
        run,
        name="segment",
        data=DataConfig(path="masks"),
        eval=EvalConfig(),
        batch_size=4,
        epochs=40,
        test_pictures=0,
    )


def segment_emoji() -> SegmentConfig:
    """A segmenter of emoji drawings in scenes, in minutes on two cores. Give --from an eye; best one of `dense-eye`."""
    return SegmentConfig(
        name="segment-emoji",
        model=quickstart().model,
        head=SMALL_HEAD,
        view=ViewConfig(side_px=224),
        predict=SegmentPredictConfig(source="crop", rule=PanopticRule(void="half")),
        data=DataConfig(path="data/emoji-scenes", split="train"),
        optim=OptimConfig(peak_lr=1e-3, weight_decay=0.05, clip_norm=5.0),
        eval=EvalConfig(splits=("test",)),
        test_pictures=300,
        health=_HEALTH,
        batch_size=8,
        epochs=3,
        save_every_steps=200,
    )


def segment_scenes() -> SegmentConfig:
    """The same on coloured shapes, some pairs of shape and colour held out. Give --from an eye, as of `scenes-eye`."""
    return replace(
        segment_emoji(),
        name="segment-scenes",
        view=ViewConfig(side_px=128),
        eval=EvalConfig(splits=("unseen_combination",)),  # where the held-out pairs are
        data=DataConfig(path="data/scenes", split="train"),
    )


def fc_clip_coco() -> SegmentConfig:
    """Sliding FC-CLIP of ViTamin-L on COCO panoptic, 133 classes, 50 epochs at 1,344 pixels. Give --from the eye."""
    steps = 368_750
    return SegmentConfig(
        name="fc-clip-coco",
        model=model("ViTamin-L-336"),
        head=SegmentHeadConfig(decoder=FcClipConfig(position_grid=336)),
        view=ViewConfig(side_px=1344, window_px=336, stride_px=336),
        test_stride_px=112,
        jitter=JitterConfig(low=0.1, high=2.0),
        predict=SegmentPredictConfig(alpha=0.45, beta=0.7),
        prompts="fc-clip",
        data=DataConfig(path="data/coco-panoptic", split="train", epoch_samples=COCO_IMAGES, num_workers=8),
        optim=OptimConfig(
            peak_lr=1e-4,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.05,
            no_decay=(
                "head.decoder.decoder.transformer.*embed*.weight",
                "*.queries_features.weight",
                "head.classes.void",
            ),
            clip_norm=0.01,
            schedule="steps",
            step_fracs=(327_778 / steps, 355_092 / steps),
            warmup_steps=0,
            warmup_frac=0.0,
        ),
        eval=EvalConfig(splits=("val",)),
        measures=("head", "dense"),
        keep_seen=False,
        health=_HEALTH,
        batch_size=16,
        epochs=50,
        precision="bf16",
        save_every_steps=5000,
    )
