"""The image towers of transformers' models as encoders."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.foreign.packages import package_version
from eyesmith.models.foreign.sequence import SequenceEncoder
from eyesmith.models.foreign.transformers_model import DISTRIBUTION, IMAGES, longest_list, make_config, make_module


@dataclass(frozen=True, kw_only=True)
class TransformersImageConfig:
    """The image tower of a model that transformers builds."""

    model_name: str
    """What the model is called, for messages."""
    settings: str
    """The library's own config as JSON: its model_type and sizes."""
    image_size: tuple[int, int]
    """Height and width of the input, pixels; multiples of the stride."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then the tower's)."""
    preprocess: PreprocessConfig
    """How pictures are prepared for these weights, at any size."""

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of the pixels per channel, in 0..1."""
        return self.preprocess.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of the pixels per channel, in 0..1."""
        return self.preprocess.std

    def build(self) -> "TransformersImage":
        """A new encoder with the library's random weights. Raises MissingDependencyError without transformers."""
        return TransformersImage(self)


class TransformersImage(SequenceEncoder):
    """An image tower of transformers. Its feature is get_image_features's, or the pooler's of an encoder alone."""

    is_mean_pooled = False

    def __init__(self, config: TransformersImageConfig) -> None:
        super().__init__()
        self.config, self.package = config, package_version(DISTRIBUTION)
        made = make_config(config.settings, config.model_name)
        self._kind: str = made.model_type
        vision: Any = made if self._kind in IMAGES else made.vision_config
        self.tower: Any = make_module(config.settings, config.model_name, "image")
        root = self.tower if self._kind in IMAGES else self.tower.vision_model
        self.mean, self.std, self.pictures = config.mean, config.std, config.preprocess
        self.image_size = config.image_size
        width = feature_dim(config.settings, config.model_name)
        self.head: nn.Module = nn.Identity()
        if self._kind in IMAGES:
            self.head = nn.Linear(width, config.embed_dim, bias=False) if config.embed_dim else self.head
        elif config.embed_dim not in (0, width):
            raise ConfigError(f"embed_dim: {config.model_name} projects to {width}, got {config.embed_dim}")
        elif not config.embed_dim and hasattr(self.tower, "visual_projection"):
            width = self.tower.visual_projection.in_features
            self.tower.visual_projection = nn.Identity()
        self.embed_dim = config.embed_dim or width
        self._blocks_name = longest_list(root)
        target = self.tower.forward if self._kind in IMAGES else self.tower.get_image_features
        self._takes_any_size = "interpolate_pos_encoding" in inspect.signature(target).parameters
        side = getattr(vision, "image_size", None)
        self._native_size = (side, side) if isinstance(side, int) else tuple(side or config.image_size)
        self.stride = int(vision.patch_size)
        registers = int(getattr(vision, "num_register_tokens", 0) or 0)
        self.num_prefix = registers + (0 if self._kind == "siglip" else 2 if self._kind == "deit" else 1)
        self.describe(width=vision.hidden_size)
        self._check_fixed(*self.image_size)

    def run(self, pixels: Tensor) -> Tensor:
        other = self._takes_any_size and tuple(self.image_size) != self._native_size
        call = self.tower if self._kind in IMAGES else self.tower.get_image_features
        found = call(pixel_values=pixels, **({"interpolate_pos_encoding": True} if other else {}))
        return self.head(found.pooler_output)

    def project(self, vectors: Tensor) -> Tensor:
        projected = self.head(_TAILS[self._kind](self.tower, vectors.reshape(-1, vectors.shape[-1])))
        return projected.view(*vectors.shape[:-1], -1)

    def blocks(self) -> list[nn.Module]:
        root = self.tower if self._kind in IMAGES else self.tower.vision_model
        return list(root.get_submodule(self._blocks_name))

    def set_image_size(self, height: int, width: int) -> None:
        """The library resamples its position table in every forward, by its own rule; no tensor changes."""
        self.check_size(height, width)
        self._check_fixed(height, width)
        self.image_size = (height, width)

    def _check_fixed(self, height: int, width: int) -> None:
        # these resample, or rotate, by the size of the picture, and have no argument for it
        is_free = self._takes_any_size or self._kind.startswith("dinov")
        if not is_free and (height, width) != self._native_size:
            raise ConfigError(f"image_size: transformers' {self._kind} takes {self._native_size} alone")


def _clip_tail(tower: Any, cells: Tensor) -> Tensor:
    return tower.visual_projection(tower.vision_model.post_layernorm(cells))


def _siglip_tail(tower: Any, cells: Tensor) -> Tensor:
    return tower.vision_model.head(tower.vision_model.post_layernorm(cells[:, None]))  # a set of one patch


_TAILS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "chinese_clip": _clip_tail,
    "altclip": _clip_tail,
    "clip": _clip_tail,
    "metaclip_2": _clip_tail,
    "siglip": _siglip_tail,
    "dinov2": lambda tower, cells: tower.layernorm(cells),
    "dinov2_with_registers": lambda tower, cells: tower.layernorm(cells),
    "dinov3_vit": lambda tower, cells: tower.norm(cells),
    "vit": lambda tower, cells: tower.pooler(tower.layernorm(cells)[:, None]),
    "deit": lambda tower, cells: tower.pooler(tower.layernorm(cells)[:, None]),
}


def feature_dim(settings: str, name: str) -> int:
    """Width of the image feature of a model with these settings, projected where it has a projection."""
    config = make_config(settings, name)
    if config.model_type in IMAGES:
        width = getattr(config, "pooler_output_size", None) or config.hidden_size
    else:
        width = config.vision_config.hidden_size if config.model_type == "siglip" else config.projection_dim
    if not isinstance(width, int) or width < 1:
        raise ConfigError(f"settings: {name}: expected the width of an image feature, got {width!r}")
    return width


def native_size(settings: str, name: str) -> tuple[int, int]:
    """Height and width, in pixels, that the settings name; the library's own where they name none."""
    found = json.loads(settings)
    side = (found.get("vision_config") or found).get("image_size")
    if side is None:
        config = make_config(settings, name)
        side = getattr(getattr(config, "vision_config", config), "image_size", 224)
    sides = [side, side] if isinstance(side, int) else side
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(isinstance(one, int) for one in sides):
        raise ConfigError(f"image_size: {name} has {side!r}, expected pixels: one number, or height and width")
    return sides[0], sides[1]
