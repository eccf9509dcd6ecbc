"""ViTamin's runs (CVPR 2024, table 2, and the released settings): short, long, larger images, Locked-Text Tuning.

What all of them share: DataComp-1B, products in bfloat16, recomputed blocks, no gradient clipping, no average of the
weights, plain softmax loss where every other pair of the batch is a negative. An epoch is a number of pairs, not a pass
over all that were downloaded. The released files round the steps of an epoch up to a multiple of their loader's
workers; here an epoch has samples // batch steps.
"""

from dataclasses import replace

from eyesmith.hub.initial import InitialConfig
from eyesmith.images.transforms import TrainTransformConfig
from eyesmith.losses.config import LossConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.registry import config as model
from eyesmith.models.registry import override
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import DataConfig, ParallelConfig

LENGTHS = {"128m": 128_000_000, "512m": 512_000_000, "1280m": 1_280_000_000}
"""Pairs of the short schedule."""

_EPOCH = 1_280_000_000  # pairs of DataComp-1B that the long runs call an epoch

# global batches that the released files give; L's differ by image size
FINE_TUNES = {
    # model: (size it starts from, pairs seen, global batch, accumulate)
    "ViTamin-L-256": ("ViTamin-L-224px", 200_000_000, 90240, 1),
    "ViTamin-L-336": ("ViTamin-L-224px", 200_000_000, 90200, 1),
    "ViTamin-L-384": ("ViTamin-L-224px", 200_000_000, 90200, 1),
    "ViTamin-L2-256": ("ViTamin-L2-224px", 512_000_000, 90160, 1),
    "ViTamin-L2-336": ("ViTamin-L2-224px", 512_000_000, 90160, 1),
    "ViTamin-L2-384": ("ViTamin-L2-224px", 512_000_000, 90160, 1),
    "ViTamin-XL-256": ("", 512_000_000, 90272, 1),
    "ViTamin-XL-336": ("ViTamin-XL-256px", 512_000_000, 90270, 3),
    "ViTamin-XL-384": ("ViTamin-XL-256px", 512_000_000, 90270, 3),
}


def short(clip: ClipConfig, samples: int, *, batch_size: int = 8192) -> TrainConfig:
    """The short schedule that backbones are compared with: one pass over `samples` pairs.

    clip: the model; its size decides nothing here but the pixels. batch_size: 8192, 16384 for large models.
    """
    return _run(
        clip,
        samples=samples,
        batch_size=batch_size,
        optim=OptimConfig(peak_lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, warmup_steps=500),
    )


def vitamin_short(size: str, length: str) -> TrainConfig:
    """ViTamin-S, -B or -L by the short schedule. length: a key of LENGTHS."""
    batch_size = 16384 if size == "L" else 8192
    return short(model(f"ViTamin-{size}"), LENGTHS[length], batch_size=batch_size)


def vitamin_long(size: str, *, epochs: int = 10) -> TrainConfig:
    """ViTamin-L, -L2 or -XL by the long schedule: 10 epochs of 1.28 B pairs; XL's 40 B-pair run has 30, at 256 px.

    XL trains at 224 px in its 10 epochs, as its released file says and the paper's table 3 (12.8 + 0.5 B for 256 px)
    implies; table 2 says 256. No file of the 30-epoch run was released: it has the 10-epoch run's settings.
    """
    if size == "XL":
        clip = model("ViTamin-XL-256")
        clip = clip if epochs == 30 else replace(override(clip, {"image_size": 224}), name="ViTamin-XL")
    else:
        clip = model(f"ViTamin-{size}")
    warmup_steps = 782 if size == "L" else 4436  # the second: about 400 M pairs
    run = _run(
        clip,
        samples=_EPOCH,
        batch_size=90272 if size == "XL" else 90160,
        optim=OptimConfig(peak_lr=2e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.2, warmup_steps=warmup_steps),
    )
    views = TrainTransformConfig(
        image_size=clip.image.image_size,
        scale=(0.4, 1.0),
        color_jitter=(0.32, 0.32, 0.32, 0.08),
        color_jitter_prob=0.8,
        grayscale_prob=0.2,
    )
    return replace(run, epochs=epochs, transform=views)


def larger_images(name: str) -> TrainConfig:
    """A trained ViTamin at 256, 336 or 384 px: a constant rate of 1e-5, nothing decayed, no warm-up.

    name: one of the registry's, as ViTamin-L-384. Pairs seen are those of the paper's table 3. The released files of
    L-336 and L-384 name longer runs (512 M and 1.28 B pairs, 10 times); at a constant rate the shorter run is the
    longer one stopped. XL at 256 px starts from the 224-px run of `vitamin_long`, whose weights were not released: set
    initial.weights.
    """
    source, samples, batch_size, accumulate = FINE_TUNES[name]
    optim = OptimConfig(
        peak_lr=1e-5, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0, schedule="constant", warmup_frac=0.0
    )
    run = _run(model(name), samples=samples, batch_size=batch_size, optim=optim)
    weights = f"hf:jienengchen/{source}" if source else "runs/vitamin-xl-12.8b"
    return replace(run, accumulate=accumulate, initial=InitialConfig(weights=weights))


def locked_text(size: str, length: str) -> TrainConfig:
    """ViTamin-S or -B against the frozen text tower of ViTamin-L (Locked-Text Tuning), by the short schedule.

    The text tower, its projection included, and the temperature come from the trained ViTamin-L; the temperature
    alone of these goes on training. No file of such a run was released: it has the short schedule's settings.
    """
    run = vitamin_short(size, length)
    clip = replace(model(f"ViTamin-{size}-LTT"), lock_text=True)
    return replace(run, model=clip, initial=InitialConfig(weights="hf:jienengchen/ViTamin-L-224px", part="text"))


def datacomp_medium() -> TrainConfig:
    """ViTamin-B on a filtered subset of DataComp's medium track: 12.8 M pairs, 10 times (paper, table 4)."""
    run = replace(short(model("ViTamin-B"), 12_800_000), epochs=10)
    return replace(run, data=replace(run.data, path="data/datacomp-medium", num_workers=4))


def _run(clip: ClipConfig, *, samples: int, batch_size: int, optim: OptimConfig) -> TrainConfig:
    return TrainConfig(
        model=clip,
        data=DataConfig(path="data/datacomp1b", epoch_samples=samples, num_workers=6),
        transform=TrainTransformConfig(image_size=clip.image.image_size, scale=(0.9, 1.0)),
        optim=optim,
        loss=LossConfig(mask="none"),
        parallel=ParallelConfig(checkpoint_blocks=True),
        batch_size=batch_size,
        epochs=1,
        precision="bf16",
        log_every_steps=50,
        save_every_steps=1000,
    )
