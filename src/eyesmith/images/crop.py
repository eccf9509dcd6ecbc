"""Where an image is cut and to what size: the rules of torchvision's Resize, CenterCrop and RandomResizedCrop."""

import math
import random
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

Rng = random.Random | np.random.Generator


class Box(NamedTuple):
    """A rectangle of whole pixels of an image."""

    top: int
    left: int
    height: int
    width: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom: Pillow's order."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def cut(self, pixels: Tensor) -> Tensor:
        """The rectangle of [..., h, w], as a view."""
        left, top, right, bottom = self.corners
        return pixels[..., top:bottom, left:right]

    def scaled(self, vertical: float, horizontal: float) -> "Box":
        """The rectangle in an image of other size, its edges rounded to whole pixels, at least one pixel large."""
        top, left = math.floor(self.top * vertical + 0.5), math.floor(self.left * horizontal + 0.5)
        bottom = math.floor((self.top + self.height) * vertical + 0.5)
        right = math.floor((self.left + self.width) * horizontal + 0.5)
        return Box(top, left, max(bottom - top, 1), max(right - left, 1))


def sample_rng(seed: int, epoch: int, sample: int | str) -> random.Random:
    """The generator of one sample (number or key) in one epoch: its draws depend on these three and nothing else."""
    return random.Random(f"{seed}/{epoch}/{sample}")  # a string is hashed with SHA-512: equal on every machine


def shortest_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to resize an image of `size` to, so that it covers `target`, both (height, width).

    A square target: the shorter side becomes it exactly, the longer is truncated (torchvision). Else both sides are
    divided by the smaller ratio and rounded half to even (open_clip's ResizeKeepRatio).
    """
    height, width = size
    if target[0] == target[1]:
        short, long = min(height, width), max(height, width)
        longer = int(target[0] * long / short)
        return (longer, target[0]) if width <= height else (target[0], longer)
    ratio = min(height / target[0], width / target[1])
    return round(height / ratio), round(width / ratio)


def center_box(size: tuple[int, int], target: tuple[int, int], *, half_px: Literal["even", "down"] = "even") -> Box:
    """The middle `target` pixels of an image of `size`, both (height, width); half a pixel is rounded to even
    (torchvision) or down (transformers)."""
    top, left = (size[0] - target[0]) / 2, (size[1] - target[1]) / 2
    if half_px == "down":
        return Box(math.floor(top), math.floor(left), target[0], target[1])
    return Box(round(top), round(left), target[0], target[1])


def random_resized_box(size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], rng: Rng) -> Box:
    """A random rectangle of whole pixels inside an image of `size` (height, width).

    scale: range of its share of the area, uniform. ratio: range of width / height, uniform in the logarithm. After
    ten draws that do not fit, the largest centred rectangle of an allowed ratio. Equals torchvision's
    RandomResizedCrop on the same uniform numbers, up to its float32 rounding of them.
    """
    height, width = size
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(10):
        area = height * width * uniform(rng, *scale)
        aspect = math.exp(uniform(rng, *log_ratio))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = below(rng, height - box_height + 1), below(rng, width - box_width + 1)
            return Box(top, left, box_height, box_width)
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    # departs: on a side of one pixel torchvision may round to nothing and fail
    box_height, box_width = max(box_height, 1), max(box_width, 1)
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def uniform(rng: Rng, low: float, high: float) -> float:
    """One number in [low, high)."""
    return low + (high - low) * rng.random()


def below(rng: Rng, stop: int) -> int:
    """One whole number in 0 .. stop - 1."""
    return min(int(rng.random() * stop), stop - 1)
