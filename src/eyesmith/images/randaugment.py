"""RandAugment on PIL images, timm's `rand-m9-mstd0.5-inc1`, without timm or torchvision.

Of fifteen changes two are drawn, each is made by chance, with a strength that itself varies. The pixels of each change
equal timm's; the random numbers come from the generator that is given.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps

from eyesmith.errors import ConfigError
from eyesmith.images.crop import below

MAX_MAGNITUDE = 10.0
FILL = (123, 117, 104)  # CLIP's mean colour, what timm fills with when it is given that mean


@dataclass(frozen=True, kw_only=True)
class RandAugmentConfig:
    """How much is changed. The defaults are timm's `rand-m9-mstd0.5-inc1`, the papers' RandAug (9, 0.5)."""

    num_ops: int = 2
    """Changes drawn for an image, with replacement; 0 changes nothing."""
    magnitude: float = 9.0
    """Mean strength, 0 to 10."""
    magnitude_std: float = 0.5
    """Standard deviation of the strength, which is drawn for each change and kept within 0 to 10."""
    prob: float = 0.5
    """Chance of each drawn change to be made."""

    def __post_init__(self) -> None:
        if self.num_ops < 0 or self.magnitude_std < 0 or not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise ConfigError(
                "rand_augment: expected num_ops and magnitude_std of 0 or more and a magnitude of 0 to "
                f"{MAX_MAGNITUDE:g}, got {self}"
            )
        if not 0 <= self.prob <= 1:
            raise ConfigError(f"rand_augment.prob: expected a number in 0..1, got {self.prob}")


def rand_augment(image: Image.Image, config: RandAugmentConfig, rng: random.Random) -> Image.Image:
    """`image` (mode RGB) changed at random, of the same size: a pure function of the image, `config` and `rng`."""
    names = list(OPS)
    chosen = [names[below(rng, len(names))] for _ in range(config.num_ops)]
    for name in chosen:
        is_made = rng.random() <= config.prob
        magnitude = rng.gauss(config.magnitude, config.magnitude_std) if config.magnitude_std else config.magnitude
        is_negative = rng.random() > 0.5  # drawn for all alike, so that a draw belongs to its place
        if is_made:
            image = change(image, name, magnitude, is_negative=is_negative)
    return image


def change(image: Image.Image, name: str, magnitude: float, *, is_negative: bool = False) -> Image.Image:
    """One change of OPS, at a strength of 0 to 10 (others count as the nearer bound).

    is_negative: to the left, upwards, against the clock, or away from colour, contrast, brightness and sharpness, for
    those that have a direction.
    """
    level = max(0.0, min(magnitude, MAX_MAGNITUDE)) / MAX_MAGNITUDE
    return OPS[name](image, level, -1 if is_negative else 1)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )


def _rotate(image: Image.Image, level: float, sign: int) -> Image.Image:
    return image.rotate(sign * level * 30.0, resample=Image.Resampling.BICUBIC, fillcolor=FILL)


def _solarize_add(image: Image.Image, level: float, sign: int) -> Image.Image:
    del sign
    add = min(128, int(level * 110))
    table = [min(255, value + add) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _posterize(image: Image.Image, level: float, sign: int) -> Image.Image:
    del sign
    bits = 4 - int(level * 4)
    # no bit left is black, as Pillow had it when these models were trained; today's refuses
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def _solarize(image: Image.Image, level: float, sign: int) -> Image.Image:
    del sign
    return ImageOps.solarize(image, 256 - min(256, int(level * 256)))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, float, int], Image.Image]:
    return lambda image, level, sign: kind(image).enhance(max(0.1, 1.0 + sign * level * 0.9))


OPS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "auto_contrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "invert": lambda image, level, sign: ImageOps.invert(image),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, level, sign: _affine(image, (1, sign * level * 0.3, 0, 0, 1, 0)),
    "shear_y": lambda image, level, sign: _affine(image, (1, 0, 0, sign * level * 0.3, 1, 0)),
    "translate_x": lambda image, level, sign: _affine(image, (1, 0, sign * level * 0.45 * image.size[0], 0, 1, 0)),
    "translate_y": lambda image, level, sign: _affine(image, (1, 0, 0, 0, 1, sign * level * 0.45 * image.size[1])),
}
"""timm's fifteen changes that grow with the strength, in its order: image, level 0..1, sign."""
