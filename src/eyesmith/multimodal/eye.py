"""The eye of a language model: a frozen encoder, which of its tokens are read, and how pictures reach it."""

import os
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.hub.load import load_encoder
from eyesmith.hub.stored import read_stored
from eyesmith.images.decode import ImageSource, open_image
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class EyeConfig:
    """What a language model reads of its eye."""

    layer: int = -2
    """Block whose output is read, as a list index; -2 is the input of the last one (LLaVA)."""
    grid: tuple[int, int] = (0, 0)
    """Rows and columns of tokens that a picture becomes, averaged from the eye's own; (0, 0) takes all of them."""
    pad: bool = True
    """Fill pictures up to a square with the mean colour, so that nothing of them is cut off (LLaVA's stage 2)."""

    def __post_init__(self) -> None:
        if min(self.grid) < 0 or (0 in self.grid and self.grid != (0, 0)):
            raise ConfigError(f"eye.grid: expected two positive numbers, or 0 0 for the eye's own, got {self.grid}")


class Eye(nn.Module):
    """An encoder that nothing wakes: always in evaluation mode, no gradient, absent from every optimiser."""

    def __init__(self, encoder: Encoder, config: EyeConfig) -> None:
        """Raises ConfigError for a layer that the encoder has not, and a grid finer than its own."""
        super().__init__()
        self.encoder, self.config = encoder, config
        height, width = encoder.image_size
        self.native = (height // encoder.stride, width // encoder.stride)
        self.grid = config.grid if config.grid != (0, 0) else self.native
        if self.grid[0] > self.native[0] or self.grid[1] > self.native[1]:
            raise ConfigError(f"eye.grid: expected at most {self.native}, the eye's own grid, got {config.grid}")
        self.width = list(encoder.taps.values())[-1].channels
        self.requires_grad_(False)
        self.eval()

    @property
    def num_tokens(self) -> int:
        """Of a picture."""
        return self.grid[0] * self.grid[1]

    def train(self, mode: bool = True) -> Self:
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """[b, N, width] without class token. pixels: as the encoder takes them, [b, 3, H, W]."""
        tokens = self.encoder.tokens(pixels, self.config.layer)
        if self.grid == self.native:
            return tokens
        cells = tokens.mT.unflatten(2, self.native)
        return F.adaptive_avg_pool2d(cells, self.grid).flatten(2).mT


def open_eye(source: str | os.PathLike[str], config: EyeConfig) -> tuple[Eye, PreprocessConfig]:
    """The image tower that `source` holds, as `eyesmith.load` takes it, and how it was shown pictures."""
    found, encoder = read_stored(source).config, load_encoder(source)
    if isinstance(found, ClipConfig):
        return Eye(encoder, config), found.preprocess
    height, width = encoder.image_size
    return Eye(encoder, config), PreprocessConfig(image_size=(height, width))


def picture_pixels(image: ImageSource, preprocess: PreprocessConfig, *, pad: bool) -> Tensor:
    """What an eye sees of a picture, uint8 [3, H, W]. pad: see `EyeConfig`. Raises ImageError as `open_image` does."""
    if not pad:
        return evaluation_pixels(image, preprocess)
    return evaluation_pixels(squared(open_image(image, exif=preprocess.exif), preprocess.mean), preprocess)


def squared(image: Image.Image, mean: tuple[float, float, float]) -> Image.Image:
    """The picture in the middle of a square of its longer side, filled with the mean colour. Source: LLaVA-1.5."""
    image = image.convert("RGB")
    side = max(image.size)
    if image.size == (side, side):
        return image
    canvas = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas
