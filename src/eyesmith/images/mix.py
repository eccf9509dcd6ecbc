"""Mixup and CutMix: each image of a batch is mixed with another, and has both their labels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.images.crop import Box


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Off as long as both strengths are 0."""

    mixup: float = 0.0
    """Both parameters of the Beta distribution that the share of the first image comes from; 0: no mixup."""
    cutmix: float = 0.0
    """The same for the area that is kept when a rectangle comes from the other image; 0: no CutMix."""
    prob: float = 1.0
    """Chance of a batch to be mixed."""
    switch_prob: float = 0.5
    """Chance of CutMix where both are on."""

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or not all(0 <= value <= 1 for value in (self.prob, self.switch_prob)):
            raise ConfigError(f"mix: expected mixup and cutmix of 0 or more, chances in 0..1, got {self}")

    @property
    def is_on(self) -> bool:
        """Whether any batch can be mixed."""
        return bool(self.prob and (self.mixup or self.cutmix))


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What happens to a batch. share: of the first image; box: what CutMix takes from the other, None for mixup."""

    share: float
    box: Box | None = None


def draw_mix(config: MixConfig, size: tuple[int, int], *, seed: int, step: int) -> Mix | None:
    """The mix of a step's batch of images of `size` (height, width), for all of them alike; None where there is none.

    CutMix's rectangle has the image's shape and its middle anywhere; it is cut at the border, and the share is that of
    the pixels that remain. Source: arXiv 1710.09412 and 1905.04899, timm's rule for whole batches.
    """
    if not config.is_on:
        return None
    rng = np.random.default_rng([seed, step, 3])
    if rng.random() >= config.prob:
        return None
    is_cut = bool(config.cutmix) and (not config.mixup or rng.random() < config.switch_prob)
    strength = config.cutmix if is_cut else config.mixup
    share = float(rng.beta(strength, strength))
    if not is_cut:
        return Mix(share=share)
    height, width = size
    side = (1 - share) ** 0.5
    tall, wide = int(height * side), int(width * side)
    middle_y, middle_x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, middle_y - tall // 2), min(height, middle_y + (tall + 1) // 2)
    left, right = max(0, middle_x - wide // 2), min(width, middle_x + (wide + 1) // 2)
    box = Box(top, left, bottom - top, right - left)
    return Mix(share=1 - box.height * box.width / (height * width), box=box)


def mix_pixels(pixels: Tensor, others: Tensor, mix: Mix) -> Tensor:
    """[B, 3, H, W] uint8, each image mixed with its other one. Mixup is rounded to whole levels."""
    if mix.box is not None:
        mixed = pixels.clone()
        mix.box.cut(mixed).copy_(mix.box.cut(others))
        return mixed
    values = pixels.float() * mix.share + others.float() * (1 - mix.share)
    return values.round_().clamp_(0, 255).to(torch.uint8)
