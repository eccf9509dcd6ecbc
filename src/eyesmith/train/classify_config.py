"""What a run that trains by classes is."""

from dataclasses import dataclass, field

from eyesmith.errors import ConfigError
from eyesmith.images.augment import AugmentConfig
from eyesmith.images.class_views import ClassViewConfig
from eyesmith.models.classifier import HEAD_SCALE
from eyesmith.models.families import EncoderConfig
from eyesmith.train.config import DataConfig, RunConfig

ALL_SPLITS = "all"


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(RunConfig):
    """A complete run that trains, or fine-tunes, an encoder to tell classes. Captions are not read.

    eval.splits and eval.curve_splits: names of splits, or `all` for every labelled one but that which is trained on.
    """

    model: EncoderConfig
    name: str
    """What the classifier is called in tables and results."""
    num_classes: int = 0
    """Classes that the data must have; 0 takes what they have."""
    val_frac: float = 0.1
    """Share of each class held out to measure on, where the data have no splits."""
    views: ClassViewConfig = field(default_factory=ClassViewConfig)
    """Crops, RandAugment, erasing, mixing."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    fresh_norm: bool = True
    """Start the encoder's last norm anew: it pooled otherwise before (the release); False keeps it (timm)."""
    head_scale: float = HEAD_SCALE
    """Factor on the deviation, 0.02, that a new head is drawn with."""

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def reads_texts(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ConfigError("name: expected what the classifier shall be called, got nothing")
        if self.model.embed_dim:
            raise ConfigError(
                f"model.embed_dim: a classifier's encoder has no projection, got {self.model.embed_dim}; set it to 0"
            )
        if self.augment != AugmentConfig() or self.transform is not None:
            raise ConfigError("augment and transform: a run by classes has `views` instead; leave them out")
        if (self.data.decode_px, self.data.memory_mib) != (DataConfig.decode_px, DataConfig.memory_mib):
            raise ConfigError(
                "data.decode_px and data.memory_mib: views are cut from whole images as these are read; leave them out"
            )
        if self.num_classes < 0 or self.num_classes == 1:
            raise ConfigError(f"num_classes: expected 2 or more, or 0 for those of the data, got {self.num_classes}")
        if not 0 <= self.val_frac < 1:
            raise ConfigError(f"val_frac: expected 0 <= share < 1, got {self.val_frac}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing: expected 0 <= share < 1, got {self.label_smoothing}")
        if self.head_scale < 0:
            raise ConfigError(f"head_scale: expected 0 or more, got {self.head_scale}")
        if self.eval.curve_data:
            raise ConfigError("eval.curve_data: a run by classes is measured on splits of its own data; leave it out")
        if self.initial.part == "text":
            raise ConfigError("initial.part: a run by classes has no text tower; take all or image")
