"""Random erasing: a rectangle of an image loses its pixels."""

import math
import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.images.crop import Box, below, uniform
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD

_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class EraseConfig:
    """Which rectangle is erased, and by what. Off as long as `prob` is 0."""

    prob: float = 0.0
    """Chance of an image to be hit."""
    scale: tuple[float, float] = (0.02, 1 / 3)
    """Share of the area, uniform."""
    aspect: float = 0.3
    """Flattest rectangle, height over width; the tallest is its inverse."""
    fill: Literal["mean", "noise"] = "mean"
    """The mean colour, or normal noise about it, of each pixel and channel."""

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise ConfigError(f"erase.prob: expected a number in 0..1, got {self.prob}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.aspect <= 1:
            raise ConfigError(f"erase: expected 0 < scale <= 1, low to high, and 0 < aspect <= 1, got {self}")
        if self.fill not in ("mean", "noise"):
            raise ConfigError(f"erase.fill: expected mean or noise, got {self.fill!r}")


def erase_box(size: tuple[int, int], config: EraseConfig, rng: random.Random) -> Box | None:
    """The rectangle to erase of an image of `size` (height, width); None where chance spares it.

    Ten rectangles are tried; the first that is smaller than the image on both sides is taken, anywhere inside.
    Source: Zhong et al. (arXiv 1708.04896), timm's rule.
    """
    if rng.random() > config.prob or not config.prob:
        return None
    height, width = size
    log_aspect = (math.log(config.aspect), -math.log(config.aspect))
    for _ in range(_ATTEMPTS):
        area = uniform(rng, *config.scale) * height * width
        aspect = math.exp(uniform(rng, *log_aspect))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < tall < height and 0 < wide < width:
            return Box(below(rng, height - tall + 1), below(rng, width - wide + 1), tall, wide)
    return None


def erase(pixels: Tensor, config: EraseConfig, rng: random.Random) -> Tensor:
    """[3, H, W] uint8 with one rectangle erased by chance; `pixels` itself, changed in place."""
    box = erase_box((pixels.shape[1], pixels.shape[2]), config, rng)
    if box is None:
        return pixels
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    fill = mean.expand(3, box.height, box.width)
    if config.fill == "noise":
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        fill = fill + std * torch.randn(3, box.height, box.width, generator=generator)
    box.cut(pixels).copy_((255 * fill).round().clamp(0, 255).to(torch.uint8))
    return pixels
