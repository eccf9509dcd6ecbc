"""What a masked-image run is."""

from dataclasses import dataclass, field
from typing import Literal

from eyesmith.errors import ConfigError
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.eva02.masked import PATCH_GRAD_SCALE
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.train.config import RunConfig
from eyesmith.train.masks import MaskConfig


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What the hidden patches are predicted as."""

    kind: Literal["teacher", "pixels"] = "teacher"
    """teacher: a frozen model's projected patch tokens, by negative cosine (EVA-02); pixels: the normalised pixels
    themselves, by L1 (SimMIM)."""
    teacher: str = ""
    """A model as `eyesmith.load` takes it: run folder, weight file or hf:owner/name; its image tower is used."""
    dim: int = 0
    """Width of the teacher's tokens; 0 takes what the teacher has."""
    match: Literal["image", "features"] = "image"
    """Where the teacher's grid differs from the student's: show it a larger or smaller image, so that both have the
    same grid, or resample its features."""
    cache: bool = False
    """Compute the teacher's features once and keep them on disk, in half precision; needs views that do not change."""

    def __post_init__(self) -> None:
        if self.kind not in ("teacher", "pixels") or self.match not in ("image", "features"):
            raise ConfigError(
                "target: expected kind teacher or pixels, and match image or features, "
                f"got {self.kind!r} and {self.match!r}"
            )
        if self.kind == "pixels" and (self.teacher or self.cache or self.dim):
            raise ConfigError("target: pixels need no teacher; leave out target.teacher, target.cache and target.dim")
        if self.dim < 0:
            raise ConfigError(f"target.dim: expected 0 or more, got {self.dim}")


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(RunConfig):
    """A complete masked-image run: a TrV learns to tell hidden patches from the others. Captions are not read."""

    model: Eva02Config
    name: str
    """What the encoder is called in tables and results."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    patch_grad_scale: float = PATCH_GRAD_SCALE
    """Factor on the gradient of the patch embedding; 1 leaves it as it is."""

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def reads_texts(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ConfigError("name: expected what the encoder shall be called, got nothing")
        if self.model.embed_dim:
            raise ConfigError(
                f"model.embed_dim: a masked-image run trains no projection, got {self.model.embed_dim}; set it to 0"
            )
        if not 0 <= self.patch_grad_scale <= 1:
            raise ConfigError(f"patch_grad_scale: expected 0..1, got {self.patch_grad_scale}")
        if self.target.cache and (self.transform is not None or self.augment != AugmentConfig()):
            raise ConfigError(
                "target.cache: features can be kept only where an image has one view; take away `augment` and "
                "`transform`, or set target.cache=false"
            )
        if self.initial.part == "text":
            raise ConfigError("initial.part: a masked-image run has no text tower; take all or image")
