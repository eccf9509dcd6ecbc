"""Colour changes of a PIL image with torchvision's maths on PIL, bit for bit, without torchvision."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from eyesmith.images.crop import Rng, below, uniform


class JitterDraw(NamedTuple):
    """What one colour jitter does: factors (1 = unchanged), hue in turns (0 = unchanged), and their order.

    order: a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue. None: this change is left out.
    """

    order: tuple[int, ...]
    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None


def draw_jitter(strengths: Sequence[float], rng: Rng) -> JitterDraw:
    """Draw a jitter of strengths s: brightness, contrast, saturation in [max(0, 1 - s), 1 + s], hue in [-s, s]."""
    order = [0, 1, 2, 3]
    for last in (3, 2, 1):
        other = below(rng, last + 1)
        order[last], order[other] = order[other], order[last]
    factors: list[float | None] = []
    for strength in strengths[:3]:
        factor = uniform(rng, max(0.0, 1 - strength), 1 + strength)
        factors.append(factor if strength > 0 else None)
    hue = uniform(rng, -strengths[3], strengths[3])
    return JitterDraw(tuple(order), factors[0], factors[1], factors[2], hue if strengths[3] > 0 else None)


def apply_jitter(image: Image.Image, draw: JitterDraw) -> Image.Image:
    """`image` (mode RGB) with the drawn changes, in the drawn order. Equals torchvision's ColorJitter on PIL."""
    for change in draw.order:
        if change == 0 and draw.brightness is not None:
            image = ImageEnhance.Brightness(image).enhance(draw.brightness)
        elif change == 1 and draw.contrast is not None:
            image = ImageEnhance.Contrast(image).enhance(draw.contrast)
        elif change == 2 and draw.saturation is not None:
            image = ImageEnhance.Color(image).enhance(draw.saturation)
        elif change == 3 and draw.hue is not None:
            image = shift_hue(image, draw.hue)
    return image


def shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """`image` (mode RGB) with its hue turned by `turns` in -0.5 .. 0.5, in 8-bit HSV, the hue wrapping round."""
    hue, saturation, value = image.convert("HSV").split()
    levels = np.asarray(hue).astype(np.int16) + int(turns * 255)  # truncated toward zero, like torchvision's cast
    shifted = Image.fromarray((levels % 256).astype(np.uint8))
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")


def to_gray(image: Image.Image) -> Image.Image:
    """`image` (mode RGB) without colour: its ITU-R 601 luma in all three channels."""
    luma = image.convert("L")
    return Image.merge("RGB", (luma, luma, luma))
