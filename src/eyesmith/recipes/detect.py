"""Runs that train detectors on frozen eyes: F-ViT with the papers' values, and the same in minutes on a laptop."""

from dataclasses import replace

from eyesmith.dense.detect.detector import DetectorConfig
from eyesmith.dense.detect.predict import PredictConfig
from eyesmith.dense.detect.roi import BoxHeadConfig, MaskHeadConfig
from eyesmith.dense.detect.rpn import RpnConfig
from eyesmith.dense.view import JitterConfig, ViewConfig
from eyesmith.models.registry import config as model
from eyesmith.optim.config import OptimConfig
from eyesmith.recipes.laptop import quickstart
from eyesmith.tasks.detect import DetectConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig

COCO_IMAGES = 107_761  # of OV-COCO's training file, with an object of a base class (published)
LVIS_IMAGES = 100_170  # of LVIS v1's training file
_HEALTH = HealthConfig(ignore=("no_gradient",))  # the eye gets none

SMALL_HEAD = DetectorConfig(
    width=64,
    num_levels=3,
    has_extra=False,
    rpn=RpnConfig(width=64, num_convs=1, anchor_cells=(7.0,), samples=128, before_nms=300, after_nms=150),
    box=BoxHeadConfig(width=64, num_convs=2, fc_dim=256, finest_px=40.0, samples=64, background_weight=0.6),
    mask=MaskHeadConfig(width=64, num_convs=2),
    has_masks=True,
)
"""For pictures of some 224 pixels: levels at strides 4, 8 and 16, anchors of 28, 56 and 112 pixels."""


def detect_emoji() -> DetectConfig:
    """A detector of emoji drawings in scenes, in minutes on two cores. Give --from an eye; best one of `dense-eye`."""
    return DetectConfig(
        name="detect-emoji",
        model=quickstart().model,
        head=SMALL_HEAD,
        view=ViewConfig(side_px=224),
        predict=PredictConfig(alpha=0.35, beta=0.65, white=True),
        data=DataConfig(path="data/emoji-scenes", split="train"),
        optim=OptimConfig(peak_lr=8e-4, weight_decay=0.05, clip_norm=5.0),
        eval=EvalConfig(splits=("test",)),
        health=_HEALTH,
        batch_size=4,
        epochs=1,
        save_every_steps=200,
    )


def detect() -> DetectConfig:
    """A detector for boxes of your own, in COCO's form, YOLO's or another. Set data.path, and --from the eye.

    Where the data have masks, head.has_masks=true learns them too. view.side_px is what the eye sees a picture at;
    larger sees smaller things, view.window_px slides the eye's own size over it.
    """
    run = detect_emoji()
    return replace(
        run,
        name="detect",
        head=replace(run.head, has_masks=False),
        predict=PredictConfig(),
        data=DataConfig(path="data/boxes"),
        eval=EvalConfig(),
        epochs=40,
    )


def detect_scenes() -> DetectConfig:
    """The same on coloured shapes, some pairs of shape and colour held out. Give --from an eye, as of `scenes-eye`."""
    run = detect_emoji()
    return replace(
        run,
        name="detect-scenes",
        view=ViewConfig(side_px=128),
        eval=EvalConfig(splits=("unseen_combination",)),  # where the held-out pairs are
        head=replace(run.head, box=replace(run.head.box, finest_px=24.0)),
        data=DataConfig(path="data/scenes", split="train"),
    )


def f_vit_coco() -> DetectConfig:
    """Sliding F-ViT of ViTamin-L on OV-COCO, 48 base classes of 65: boxes, 3 epochs. Give --from the eye."""
    pair = model("ViTamin-L-336")
    return DetectConfig(
        name="f-vit-coco",
        model=pair,
        head=DetectorConfig(box=BoxHeadConfig(relu_embedding=True, background_weight=0.6)),
        # the release's stride of 168 is off the grid of 16; view.stride_px=168 view.off_grid=true is exactly it
        view=ViewConfig(side_px=896, window_px=336, stride_px=160),
        jitter=JitterConfig(low=0.1, high=2.0),
        predict=PredictConfig(alpha=0.1, beta=0.8, temperature=75.0, background="class", nms=0.4, floor=0.01),
        prompts="f-vit",
        data=DataConfig(path="data/ov-coco", split="train", epoch_samples=COCO_IMAGES, num_workers=8),
        optim=OptimConfig(
            peak_lr=1e-4,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.1,
            clip_norm=1.0,
            schedule="constant",
            warmup_steps=250,
        ),
        eval=EvalConfig(splits=("val",)),
        measures=("detector", "dense"),
        keep_seen=False,
        health=_HEALTH,
        batch_size=64,
        epochs=3,
        precision="bf16",
        save_every_steps=1000,
    )


def f_vit_lvis() -> DetectConfig:
    """The same on OV-LVIS, 866 base classes of 1,203: boxes and masks, 48 epochs, two steps down."""
    run = f_vit_coco()
    box = replace(run.head.box, background_weight=0.9)
    return replace(
        run,
        name="f-vit-lvis",
        head=replace(run.head, has_masks=True, box=box, rpn=replace(run.head.rpn, norm="group")),
        predict=replace(run.predict, beta=0.4, temperature=50.0, nms=0.5, floor=1e-4, per_image=300),
        data=replace(run.data, path="data/ov-lvis", epoch_samples=LVIS_IMAGES),
        optim=replace(run.optim, schedule="steps", step_fracs=(32 / 48, 44 / 48)),
        epochs=48,
    )
