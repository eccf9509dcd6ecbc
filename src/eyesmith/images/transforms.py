"""Pictures to the uint8 pixels a tower eats: open_clip's evaluation and training transforms, without torchvision.

`mode="exact"` gives open_clip's pixels, bit for bit; `mode="fast"` decodes a JPEG at 1/2, 1/4 or 1/8 where that keeps
enough pixels, and computes the pixels of the crop only. docs/images.md states how far the two are apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.images.color import apply_jitter, draw_jitter, to_gray
from eyesmith.images.crop import Box, Rng, center_box, random_resized_box, shortest_size
from eyesmith.images.decode import (
    Exif,
    ImageSource,
    decode,
    image_size,
    is_jpeg,
    open_image,
    plain_source,
    read_file,
    to_rgb,
)
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD

Mode = Literal["exact", "fast"]

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_FAST_MARGIN = 1.5  # source pixels per output pixel that a scaled decode keeps; 1 costs 2 to 12 dB more
_WHOLE_RESIZE_PIXELS = 1 << 24  # 64 MB of RGB in Pillow; a 224-px shorter side reaches it at 1 : 334


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How pictures become the pixels of one model when it is used."""

    image_size: tuple[int, int]  # height, width in pixels
    mean: tuple[float, float, float] = OPENAI_MEAN  # of the channels, values in 0..1
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize: Literal["shortest", "squash"] = "shortest"  # cover the size and cut the middle, or bend to the size
    exif: Exif = "ignore"  # whether a picture is turned as its EXIF orientation says; open_clip does not
    crop_frac: float = 1.0  # sides of the middle that is cut, of those resized to (rounded down): timm's crop_pct
    half_px: Literal["even", "down"] = "even"  # where half a pixel goes when the middle is cut; transformers': down
    rgb: Literal["last", "first"] = "last"  # other modes become RGB after the resize (open_clip), or before it

    def __post_init__(self) -> None:
        _check_image_size(self.image_size)
        _check_choice("interpolation", self.interpolation, tuple(_RESAMPLE))
        _check_choice("resize", self.resize, ("shortest", "squash"))
        _check_choice("exif", self.exif, ("ignore", "apply"))
        _check_choice("half_px", self.half_px, ("even", "down"))
        _check_choice("rgb", self.rgb, ("last", "first"))
        if not 0 < self.crop_frac <= 1:
            raise ConfigError(f"crop_frac: expected 0 < share <= 1, got {self.crop_frac}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean, std: expected 3 numbers each, std > 0, got {self.mean} and {self.std}")


@dataclass(frozen=True, kw_only=True)
class TrainTransformConfig:
    """open_clip's training transform: random resized crop, then colour jitter and greyscale by chance."""

    image_size: tuple[int, int]  # height, width in pixels
    scale: tuple[float, float] = (0.9, 1.0)  # share of the area that is kept
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop
    color_jitter: tuple[float, float, float, float] | None = None  # strengths: brightness, contrast, saturation, hue
    color_jitter_prob: float = 0.0
    grayscale_prob: float = 0.0
    horizontal_flip_prob: float = 0.0  # CLIP does not flip: captions name left and right, pictures hold text
    exif: Exif = "ignore"  # as of the model's preprocessing

    def __post_init__(self) -> None:
        _check_image_size(self.image_size)
        _check_choice("exif", self.exif, ("ignore", "apply"))
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"scale: expected 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"ratio: expected 0 < low <= high, got {self.ratio}")
        for name in ("color_jitter_prob", "grayscale_prob", "horizontal_flip_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected a number in 0..1, got {getattr(self, name)}")
        jitter = self.color_jitter
        if self.color_jitter_prob > 0 and jitter is None:
            raise ConfigError("color_jitter_prob: set without color_jitter, the four strengths")
        if jitter is not None and (len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5):
            raise ConfigError(f"color_jitter: expected 4 strengths >= 0, the last (hue) <= 0.5, got {jitter}")


def evaluation_pixels(image: ImageSource, config: PreprocessConfig, *, mode: Mode = "exact") -> Tensor:
    """The pixels a model sees of one picture, [3, H, W] uint8 RGB, (H, W) = config.image_size.

    image: as `open_image` takes it. "exact" equals open_clip's evaluation transform before its
    conversion to float, in every PIL mode (the resize comes before the conversion to RGB, and transparency is
    dropped), with two departures: 16-bit greyscale is scaled, not clipped; of a strip so long that its resized form
    would pass 2^24 pixels only the crop is computed, equal within 2 levels.
    Raises ImageError as `open_image` does.
    """
    _check_choice("mode", mode, ("exact", "fast"))
    source, size = _peek(image, mode, config.exif)
    target = config.image_size
    whole = (math.floor(target[0] / config.crop_frac), math.floor(target[1] / config.crop_frac))
    resized = shortest_size(size, whole) if config.resize == "shortest" else whole
    # open_clip passes no interpolation to the resize of a size that is not square, which leaves it bicubic
    is_always_bicubic = config.resize == "shortest" and target[0] != target[1]
    interpolation = "bicubic" if is_always_bicubic else config.interpolation
    box = center_box(resized, target, half_px=config.half_px)
    if resized[0] * resized[1] > _WHOLE_RESIZE_PIXELS:
        return _tensor(_resize_middle(_open(source, config), resized, box, _RESAMPLE[interpolation]))
    if mode == "fast":
        pixels = _load_fast(source, fast_decode_px(size, size, resized), config.exif)
        if pixels is not None:
            return box.cut(_resize_pixels(pixels, resized, interpolation)).contiguous()
    picture = _open(source, config).resize((resized[1], resized[0]), _RESAMPLE[interpolation])
    return _tensor(picture.crop(box.corners))


def training_pixels(image: ImageSource, config: TrainTransformConfig, rng: Rng, *, mode: Mode = "exact") -> Tensor:
    """A random view of one picture, [3, H, W] uint8 RGB: a pure function of the picture, `config` and `rng`.

    rng: every draw comes from it; `sample_rng(seed, epoch, sample)` makes one whose draws depend on nothing else. Both
    modes draw the same. With equal draws "exact" equals open_clip's training transform (the crop's box is drawn by
    the same rule); "fast" rounds the box to whole pixels of the scaled picture.
    Raises ImageError as `open_image` does.
    """
    _check_choice("mode", mode, ("exact", "fast"))
    source, size = _peek(image, mode, config.exif)
    box = random_resized_box(size, config.scale, config.ratio, rng)
    jitter = None
    if rng.random() < config.color_jitter_prob and config.color_jitter is not None:
        jitter = draw_jitter(config.color_jitter, rng)
    is_gray = rng.random() < config.grayscale_prob
    is_flipped = rng.random() < config.horizontal_flip_prob

    pixels = None
    if mode == "fast":
        pixels = _load_fast(source, fast_decode_px(size, (box.height, box.width), config.image_size), config.exif)
    if pixels is not None:
        box = box.scaled(pixels.shape[1] / size[0], pixels.shape[2] / size[1])
        pixels = _resize_pixels(box.cut(pixels), config.image_size, "bicubic")
        if jitter is None and not is_gray:
            return pixels.flip(-1) if is_flipped else pixels
        view = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    else:
        cut = open_image(source, exif=config.exif).crop(box.corners)
        view = to_rgb(cut.resize((config.image_size[1], config.image_size[0]), Image.Resampling.BICUBIC))
    view = view if jitter is None else apply_jitter(view, jitter)
    view = to_gray(view) if is_gray else view
    view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_flipped else view
    return _tensor(view)


def _peek(image: ImageSource, mode: Mode, exif: Exif) -> tuple[bytes | Image.Image, tuple[int, int]]:
    """What to load from, and the picture's (height, width); a JPEG of the fast mode is not decoded yet."""
    image = plain_source(image)
    if mode == "fast" and not isinstance(image, Image.Image):
        image = read_file(image)
        if is_jpeg(image):
            return image, image_size(image, exif=exif)
    picture = open_image(image, exif=exif)
    return picture, (picture.height, picture.width)


def _open(source: bytes | Image.Image, config: PreprocessConfig) -> Image.Image:
    picture = open_image(source, exif=config.exif)
    return to_rgb(picture) if config.rgb == "first" else picture


def _load_fast(source: bytes | Image.Image, at_least_px: int, exif: Exif) -> Tensor | None:
    """[3, h, w] uint8, a view of channels-last memory; None where only Pillow's own resize knows the mode."""
    if isinstance(source, bytes):
        return torch.from_numpy(decode(source, at_least_px=at_least_px, exif=exif)).permute(2, 0, 1)
    return torch.from_numpy(np.array(source)).permute(2, 0, 1) if source.mode == "RGB" else None


def fast_decode_px(size: tuple[int, int], part: tuple[int, int], resized: tuple[int, int]) -> int:
    """The shorter side, in pixels, at which the fast mode decodes a picture of `size` whose `part` becomes `resized`.

    All (height, width). Part and result keep `_FAST_MARGIN` source pixels per output pixel.
    """
    return math.ceil(min(size) * max(resized[0] / part[0], resized[1] / part[1]) * _FAST_MARGIN)


def _resize_pixels(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """[3, h, w] uint8 to [3, H, W] uint8, antialiased like Pillow: its coefficients, within 1 level of its pixels."""
    batch = pixels[None].contiguous(memory_format=torch.channels_last)  # the memory order with vector code
    return F.interpolate(batch, size, mode=interpolation, antialias=True)[0]


def _resize_middle(picture: Image.Image, resized: tuple[int, int], box: Box, resample: Image.Resampling) -> Image.Image:
    """The `box` of the picture resized to `resized`, without computing the rest."""
    step_y, step_x = picture.height / resized[0], picture.width / resized[1]
    left, top, right, bottom = box.corners
    source_box = (left * step_x, top * step_y, min(right * step_x, picture.width), min(bottom * step_y, picture.height))
    return picture.resize((box.width, box.height), resample, box=source_box)


def _tensor(image: Image.Image) -> Tensor:
    pixels = np.array(to_rgb(image))  # [H, W, 3], a copy that torch may own
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _check_image_size(size: Sequence[int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"image_size: expected (height, width), both at least 1, got {size}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
