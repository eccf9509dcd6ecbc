"""What hidden patches are predicted as: a frozen teacher's tokens, or their pixels."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.config import check_choices, check_least
from eyesmith.errors import ConfigError
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD, normalize
from eyesmith.losses.patch_regression import patch_pixels
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.identity import module_hash
from eyesmith.models.registry import EncoderConfig

PART_ROWS = 256  # images that a teacher sees at a time


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
        check_choices(self, "target.")
        if self.kind == "pixels" and (self.teacher or self.cache or self.dim):
            raise ConfigError("target: pixels need no teacher; leave out target.teacher, target.cache and target.dim")
        check_least(self, "target.", dim=0)


class PixelTargets:
    """The normalised pixels of each patch."""

    macs = 0  # of an image

    def __init__(self, patch_px: int) -> None:
        self._patch_px = patch_px
        self.dim = 3 * patch_px**2

    def __call__(self, pixels: Tensor) -> Tensor:
        """[b, N, dim]; pixels: uint8 [b, 3, H, W]."""
        return patch_pixels(normalize(pixels, OPENAI_MEAN, OPENAI_STD), self._patch_px)


def encode_macs(config: EncoderConfig) -> tuple[int, int]:
    """Multiply-adds of an encoder for one image, every patch projected, and its number of parameters."""
    cost = encoder_cost(config)
    with torch.device("meta"):  # the class token, or the mean, is projected in `cost` already
        width = list(shortest(config).build().taps.values())[-1].channels
    return cost.tower.macs + (cost.tokens - 1) * width * config.embed_dim, cost.tower.params


def shortest(config: EncoderConfig) -> EncoderConfig:
    """An encoder with blocks of the same size, and as few as may be."""
    return replace(config, depth=1) if isinstance(config, Eva02Config) else config


class TeacherTargets:
    """Every patch as the teacher's pooling norm and projection see it: head(norm(token)), not brought to length 1."""

    def __init__(self, teacher: Encoder, config: TargetConfig, *, grid: tuple[int, int]) -> None:
        """teacher: becomes frozen, and takes images of another size where config.match says so. grid: the student's.

        Raises ConfigError when config.dim is not the width of its features, or its size cannot change.
        """
        self.teacher = teacher.requires_grad_(False).eval()
        self._grid = grid
        wanted = (grid[0] * teacher.stride, grid[1] * teacher.stride)
        if config.match == "image" and wanted != tuple(teacher.image_size):
            teacher.set_image_size(*wanted)
        self.dim = teacher.embed_dim
        if config.dim and config.dim != self.dim:
            raise ConfigError(f"target.dim: the teacher's tokens are {self.dim} wide, expected {config.dim}")

    @property
    def macs(self) -> int | None:
        """Multiply-adds of the teacher for one image; None for an encoder whose config is not known."""
        config = getattr(self.teacher, "config", None)
        if not isinstance(config, EncoderConfig):
            return None
        return encode_macs(replace(config, image_size=tuple(self.teacher.image_size)))[0]

    def to(self, device: torch.device) -> "TeacherTargets":
        """Move the teacher."""
        self.teacher.to(device)
        return self

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """[b, N, dim] fp32; pixels: uint8 [b, 3, H, W] at the student's size, resampled where the teacher's differs."""
        return torch.cat([self._of(part) for part in pixels.split(PART_ROWS)]).float()

    def hash(self) -> str:
        """Of the teacher, and of how it is asked."""
        return f"{module_hash(self.teacher)} {list(self.teacher.image_size)} {list(self._grid)}"

    def _of(self, pixels: Tensor) -> Tensor:
        cells = on_grid(self.teacher.dense(shown_to(self.teacher, pixels)), self._grid)
        return self.teacher.project(cells.flatten(2).mT)  # [b, N, D]


Targets = PixelTargets | TeacherTargets
"""What the patches of images shall be predicted as, without gradient."""


def shown_to(teacher: Encoder, pixels: Tensor) -> Tensor:
    """uint8 [b, 3, H, W] at the teacher's image size, resampled where it differs."""
    size = tuple(teacher.image_size)
    if tuple(pixels.shape[2:]) == size:
        return pixels
    resized = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def on_grid(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map [b, C, h, w] resampled to [b, C, *grid]; itself where it is of that size."""
    if tuple(cells.shape[2:]) == grid:
        return cells
    shrinks = cells.shape[2] > grid[0] or cells.shape[3] > grid[1]
    return F.interpolate(cells.float(), grid, mode="bilinear", antialias=shrinks).to(cells.dtype)
