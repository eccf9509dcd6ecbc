"""How a picture becomes the square that an encoder sees, and boxes and masks with it.

A picture is scaled so that its longer side fits, and filled with the mean colour to the right and below. Training may
scale and cut it at random (large-scale jitter, arXiv 2012.07177) and mirror it.
"""

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eyesmith.dense.boxes import flipped
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.sliding import SlidingEncoder, pad_pixels
from eyesmith.errors import ConfigError, ImageError, ShapeError
from eyesmith.models.encoder import Encoder

MAX_PIXELS = 1 << 28  # of a picture; more is refused, boxes of it would not be told from one another at any side_px
_LEAST_SIDE = 1.0  # pixels of a box in the square; what is left of one that was cut to less is not learnt


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """The square that the encoder sees, whole or in windows."""

    side_px: int = 896
    """Height and width, a multiple of the encoder's stride."""
    window_px: int = 0
    """Side of windows that slide over it, as Sliding F-ViT's 336; 0 shows it whole, with resampled positions."""
    stride_px: int = 0
    """From window to window; 0 takes half a window, rounded down to the encoder's grid."""
    off_grid: bool = False
    """Allow a stride off the encoder's grid, rounded as the release does with 168 at 16."""

    def __post_init__(self) -> None:
        if self.side_px < 1 or min(self.window_px, self.stride_px) < 0:
            raise ConfigError(f"view: side_px must be positive, window_px and stride_px not negative, got {self}")
        if self.window_px > self.side_px:
            raise ConfigError(f"view.window_px: a window of {self.window_px} does not fit into {self.side_px}")
        if self.stride_px and not self.window_px:
            raise ConfigError("view.stride_px: goes with window_px, which is 0")

    def around(self, encoder: Encoder) -> FrozenEncoder:
        """The encoder, frozen, for squares of this side. Raises ShapeError for a side off its stride."""
        side = (self.side_px, self.side_px)
        if not self.window_px:
            return FrozenEncoder(encoder.at_size(*side))
        window = (self.window_px, self.window_px)
        return SlidingEncoder(
            FrozenEncoder(encoder), side, window=window, stride=self.stride_px or None, off_grid=self.off_grid
        )


@dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Large-scale jitter: the picture scaled at random, then a square cut out of it."""

    low: float = 1.0
    """Least scale, relative to the one at which the picture fits the square."""
    high: float = 1.0
    """Greatest; 1 and 1 leave the picture as it is, which lets frozen maps be kept."""
    flip_prob: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ConfigError(f"jitter: expected 0 < low <= high, got {self.low} and {self.high}")
        if not 0 <= self.flip_prob <= 1:
            raise ConfigError(f"jitter.flip_prob: expected 0..1, got {self.flip_prob}")

    @property
    def is_still(self) -> bool:
        """Whether scale and place of pictures never change."""
        return (self.low, self.high) == (1.0, 1.0)


class Fit(NamedTuple):
    """How a picture was put into a square: scaled, cut from left and top, mirrored.

    scale_x, scale_y: pixels of the square a pixel of the picture; left, top: of the scaled picture, where the square
    begins; height, width: of what of the square shows the picture; is_flipped: what is shown was mirrored, the padding
    stays at the right.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    height: int
    width: int
    is_flipped: bool = False

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] of the picture as those of the square, cut to what is shown."""
        scale = boxes.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        moved = boxes * scale - boxes.new_tensor([self.left, self.top, self.left, self.top])
        low, high = moved.new_zeros(4), moved.new_tensor([self.width, self.height, self.width, self.height])
        moved = moved.maximum(low).minimum(high)
        return flipped(moved, self.width) if self.is_flipped else moved

    def back(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] of the square as those of the picture."""
        boxes = flipped(boxes, self.width) if self.is_flipped else boxes
        scale = boxes.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return (boxes + boxes.new_tensor([self.left, self.top, self.left, self.top])) / scale

    def mask(self, mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
        """A mask [H, W] of the picture as one of the square, [side, side]: of each pixel the nearest."""
        return self.labels(mask, side, around=False)

    def labels(self, labels: NDArray[Any], side: int, *, around: int) -> NDArray[Any]:
        """A map [H, W] of the picture, of any type, as one of the square; around: what stands beside the picture."""
        ys = ((np.arange(self.height) + self.top + 0.5) / self.scale_y).astype(np.int64).clip(0, labels.shape[0] - 1)
        xs = ((np.arange(self.width) + self.left + 0.5) / self.scale_x).astype(np.int64).clip(0, labels.shape[1] - 1)
        shown = labels[ys[:, None], xs[None]]
        found = np.full((side, side), around, labels.dtype)
        found[: self.height, : self.width] = shown[:, ::-1] if self.is_flipped else shown
        return found


def fit(size: tuple[int, int], side: int, jitter: JitterConfig | None = None, draw: random.Random | None = None) -> Fit:
    """How a picture of a size (height, width) goes into a square. jitter: drawn by `draw`; None: whole and upright.

    Raises ImageError for a picture that is too large or has no pixel.
    """
    height, width = size
    if min(size) < 1 or height * width > MAX_PIXELS:
        raise ImageError(f"a picture of {width} x {height} pixels cannot be searched; cut it into parts")
    scale = side / max(size)
    is_flipped = False
    if jitter is not None:
        assert draw is not None
        scale *= draw.uniform(jitter.low, jitter.high)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    top = left = 0
    if jitter is not None and draw is not None:
        top, left = draw.randint(0, max(0, tall - side)), draw.randint(0, max(0, wide - side))
        is_flipped = draw.random() < jitter.flip_prob
    return Fit(wide / width, tall / height, left, top, min(tall - top, side), min(wide - left, side), is_flipped)


def view_pixels(image: Image.Image, how: Fit, side: int, mean: tuple[float, float, float]) -> Tensor:
    """The square, uint8 [3, side, side]. image: of any mode; grey ones become three equal channels."""
    image = image.convert("RGB")
    tall, wide = round(image.height * how.scale_y), round(image.width * how.scale_x)
    if (wide, tall) != image.size:
        # only what is shown is computed
        box = (
            how.left / how.scale_x,
            how.top / how.scale_y,
            min((how.left + how.width) / how.scale_x, image.width),
            min((how.top + how.height) / how.scale_y, image.height),
        )
        image = image.resize((how.width, how.height), Image.Resampling.BILINEAR, box=box)
    else:
        image = image.crop((how.left, how.top, how.left + how.width, how.top + how.height))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pad_pixels(pixels.flip(2) if how.is_flipped else pixels, (side, side), mean)


class Shown(NamedTuple):
    """The objects of a picture in its square. boxes: [n, 4]; labels: int64 [n]; masks: bool [n, side, side] or None."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None


def show(boxes: Tensor, labels: Tensor, masks: list[NDArray[np.bool_]] | None, how: Fit, side: int) -> Shown:
    """Objects of a picture as those of its square; what is cut off to less than a pixel is left out."""
    moved = how.boxes(boxes)
    is_left = ((moved[:, 2:] - moved[:, :2]) >= _LEAST_SIDE).all(1)
    found = None
    if masks is not None:
        if len(masks) != len(boxes):
            raise ShapeError(f"masks: expected {len(boxes)}, one a box, got {len(masks)}")
        kept = [how.mask(masks[place], side) for place in is_left.nonzero()[:, 0].tolist()]
        found = torch.from_numpy(np.stack(kept)) if kept else torch.zeros(0, side, side, dtype=torch.bool)
    return Shown(moved[is_left], labels[is_left], found)


def mirrored(shown: Shown, how: Fit) -> Shown:
    """The objects where the square's picture is mirrored, as `Fit.is_flipped` does it."""
    masks = None
    if shown.masks is not None:
        masks = shown.masks.clone()
        masks[:, :, : how.width] = shown.masks[:, :, : how.width].flip(2)
    return Shown(flipped(shown.boxes, how.width), shown.labels, masks)
