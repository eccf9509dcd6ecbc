"""EVA-02's fine-tuning for classification (arXiv 2303.11331, tables 23 to 25), and a run for one's own class folders.

Products are bfloat16 where the paper used DeepSpeed's fp16. As the released code has it and no table says: the patch
embedding is frozen (optim.freeze= trains it), the norm before the head starts anew after masked-image pre-training
(fresh_norm=false keeps it, as timm does), and the average of the weights has one decay throughout (optim.ema_warmup).
"""

from dataclasses import dataclass, replace

from eyesmith.hub.initial import InitialConfig
from eyesmith.images.class_views import ClassViewConfig
from eyesmith.models.eva02.model import EVA02
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.classify import ALL_SPLITS, ClassifyConfig
from eyesmith.train.config import DataConfig, EvalConfig, ParallelConfig

IN21K, IN1K = (14_200_000, 21_841), (1_281_167, 1_000)  # images, classes
_SIZES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}


@dataclass(frozen=True)
class _Column:
    """A column of tables 23 to 25. epochs: all, and those of the warm-up; data: images and classes."""

    size: str
    data: tuple[int, int]
    start: str
    peak_lr: float
    layer_decay: float
    image_px: int
    batch_size: int
    epochs: tuple[int, int]
    drop_path: float
    smoothing: float
    scale: tuple[float, float]
    has_average: bool
    has_pretrained_norm: bool = False


_OPTIM = OptimConfig(
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.05,
    no_decay=("image.position", "image.class_token"),
    warmup_start="zero",
)
_EVAL = EvalConfig(splits=(ALL_SPLITS,), curve_splits=(ALL_SPLITS,), every_epochs=1.0)
_MEDIUM, _FULL = (0.2, 1.0), (0.08, 1.0)  # crops of tables 23, and 24 and 25

COLUMNS = {
    # table 23: IN-21K, between pre-training and IN-1K
    "ft-in21k-b": _Column(
        "b", IN21K, "runs/eva02-mim-b", 3e-4, 0.70, 448, 2048, (40, 1), 0.10, 0.1, _MEDIUM, has_average=False
    ),
    "ft-in21k-l": _Column(
        "l", IN21K, "runs/eva02-mim-l", 3e-4, 0.75, 448, 2048, (30, 1), 0.15, 0.1, _MEDIUM, has_average=False
    ),
    # the released command for L as pre-trained on IN-21K: another rate, batch and length than the table's
    "ft-in21k-l-in21k": _Column(
        "l", IN21K, "runs/eva02-mim-l-in21k", 2e-4, 0.75, 448, 1024, (20, 1), 0.15, 0.1, _MEDIUM, has_average=False
    ),
    # table 24: IN-1K after it
    "ft-in21k-in1k-b": _Column(
        "b", IN1K, "runs/eva02-ft-in21k-b", 5e-5, 0.80, 448, 512, (15, 2), 0.15, 0.2, _FULL, True, True
    ),
    "ft-in21k-in1k-l": _Column(
        "l", IN1K, "runs/eva02-ft-in21k-l", 2e-5, 0.85, 448, 512, (20, 2), 0.15, 0.2, _FULL, True, True
    ),
    # table 25: IN-1K at once
    "ft-in1k-ti": _Column("ti", IN1K, "runs/eva02-mim-ti", 2e-4, 0.90, 336, 1024, (100, 5), 0.10, 0.1, _FULL, True),
    "ft-in1k-s": _Column("s", IN1K, "runs/eva02-mim-s", 1e-4, 0.80, 336, 1024, (100, 5), 0.10, 0.1, _FULL, True),
    "ft-in1k-b": _Column("b", IN1K, "runs/eva02-mim-b", 1e-4, 0.70, 448, 1024, (30, 3), 0.10, 0.1, _FULL, True),
    "ft-in1k-l": _Column("l", IN1K, "runs/eva02-mim-l", 7e-5, 0.80, 448, 1024, (30, 3), 0.15, 0.2, _FULL, True),
    # the released rate for L as pre-trained on IN-21K; the table's is for Merged-38M
    "ft-in1k-l-in21k": _Column(
        "l", IN1K, "runs/eva02-mim-l-in21k", 5e-5, 0.80, 448, 1024, (30, 3), 0.15, 0.2, _FULL, True
    ),
}


def fine_tuned(name: str) -> ClassifyConfig:
    """A classifier by tables 23 to 25. name: a key of COLUMNS; `l-in21k` are released runs that have no column.

    The published best numbers use the average of the weights for L, and for B by way of IN-21K; the others the weights
    themselves, which optim.ema_decay=0 gives. SGD and Lion (table 18): optim.name=sgd or lion, with other rates.
    An epoch is the number of images; data.epoch_samples=0 counts those of other data, num_classes=0 their classes.
    """
    column = COLUMNS[name]
    images, classes = column.data
    encoder = replace(
        EVA02[_SIZES[column.size]],
        image_size=(column.image_px, column.image_px),
        drop_path_prob=column.drop_path,
        pooling="mean",
        initial="beit",
    )
    epochs, warmup = column.epochs
    return ClassifyConfig(
        name=f"EVA-02-{column.size.capitalize()}",
        model=encoder,
        data=DataConfig(
            path="data/in21k" if column.data == IN21K else "data/in1k", epoch_samples=images, num_workers=8
        ),
        num_classes=classes,
        views=ClassViewConfig(scale=column.scale),
        label_smoothing=column.smoothing,
        initial=InitialConfig(weights=column.start, part="image"),
        fresh_norm=not column.has_pretrained_norm,
        optim=replace(
            _OPTIM,
            peak_lr=column.peak_lr,
            layer_decay=column.layer_decay,
            freeze=("image.patch.*",),
            warmup_frac=warmup / epochs,
            ema_decay=0.9999 if column.has_average else 0.0,
            ema_warmup=False,
        ),
        eval=_EVAL,
        parallel=ParallelConfig(checkpoint_blocks=column.image_px > 336),
        batch_size=column.batch_size,
        epochs=epochs,
        precision="bf16",
        log_every_steps=50,
        save_every_steps=1000,
    )


def classify() -> ClassifyConfig:
    """A classifier for class folders of your own: `--from` a trained model, or a model's name for random weights."""
    encoder = replace(EVA02["nano"], embed_dim=0, pooling="mean", drop_path_prob=0.1)
    return ClassifyConfig(
        name="TrV-Nano",
        model=encoder,
        data=DataConfig(path="data/classes"),
        views=ClassViewConfig(scale=(0.25, 1.0)),
        optim=replace(_OPTIM, peak_lr=5e-4, warmup_frac=0.1, min_lr=1e-6),
        eval=_EVAL,
        fresh_norm=False,
        batch_size=32,
        epochs=20,
    )
