"""What a run is: one value that, with the data, determines every weight it ends with."""

from dataclasses import dataclass, field
from typing import Literal

from eyesmith.errors import ConfigError
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.clip import ClipConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pairs come from."""

    path: str
    """A made data set, shards, a table or a folder; see docs/data.md."""
    split: str | None = None
    """The split to train on, where the data set has several."""
    image_column: str = "image"
    """Column of a table that names the image file."""
    text_column: str = "caption"
    """Column of a table that holds the caption."""
    decode_px: int = 72
    """Side of the squares that images are decoded to, before augmentation cuts and bends them."""
    memory_mib: int = 1024
    """Decoded images are kept in memory when all of them need no more than this; otherwise decoded at each use."""
    max_skipped_frac: float = 0.01
    """Share of unusable samples above which the run stops."""
    num_workers: int = 2
    """Decoding threads."""

    def __post_init__(self) -> None:
        if self.decode_px < 1 or self.memory_mib < 0 or self.num_workers < 1:
            raise ConfigError(f"data: decode_px and num_workers must be positive, memory_mib not negative, got {self}")
        if not 0 <= self.max_skipped_frac <= 1:
            raise ConfigError(f"data.max_skipped_frac: expected 0..1, got {self.max_skipped_frac}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and a cosine to zero."""

    peak_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.2
    """Of matrices and tables; biases, norms and the temperature are never decayed."""
    warmup_frac: float = 0.05
    """Share of all steps."""
    clip_norm: float = 0.0
    """Gradient norm above which gradients are scaled down; 0 never does."""
    ema_decay: float = 0.0
    """Decay a step of the average of the weights that the run ends with; 0 ends with the weights themselves."""

    def __post_init__(self) -> None:
        if self.peak_lr <= 0 or self.eps <= 0 or self.weight_decay < 0 or self.clip_norm < 0:
            raise ConfigError(
                f"optim: peak_lr and eps must be positive, weight_decay and clip_norm not negative: {self}"
            )
        if not all(0 <= beta < 1 for beta in (*self.betas, self.ema_decay)):
            raise ConfigError(f"optim: betas and ema_decay must lie in 0..1, got {self.betas} and {self.ema_decay}")
        if not 0 <= self.warmup_frac < 1:
            raise ConfigError(f"optim.warmup_frac: expected 0..1, got {self.warmup_frac}")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measuring on other splits of the training data set; the maths of the run does not depend on it."""

    splits: tuple[str, ...] = ()
    """Splits to measure at the end, written to results.jsonl; none measures nothing."""
    curve_splits: tuple[str, ...] = ()
    """Splits whose zero-shot accuracy is also measured while training, for the curve in log.jsonl."""
    every_epochs: float = 10.0
    """Epochs between two such measurements."""

    def __post_init__(self) -> None:
        if self.every_epochs <= 0:
            raise ConfigError(f"eval.every_epochs: expected a positive number, got {self.every_epochs}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete contrastive run."""

    model: ClipConfig
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    batch_size: int = 128
    epochs: float = 80.0
    """Passes over the data; the last samples of each that fill no batch wait for the next."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of products inside the towers; auto is bf16 where the machine computes in it, else fp32. The rest is fp32."""
    seed: int = 0
    log_every_steps: int = 10
    save_every_steps: int = 100

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: a contrastive loss needs at least 2 pairs, got {self.batch_size}")
        if self.epochs <= 0:
            raise ConfigError(f"epochs: expected a positive number, got {self.epochs}")
        if self.log_every_steps < 1 or self.save_every_steps < 1:
            raise ConfigError("log_every_steps and save_every_steps: expected 1 or more")
        if self.seed < 0:
            raise ConfigError(f"seed: expected 0 or more, got {self.seed}")
