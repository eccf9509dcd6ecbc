"""A class for every pixel, by names alone and without training: windows, a map in text space, cosines, interpolation.

K classes, h w cells, H W pixels of the picture.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eyesmith.data.annotations.types import VOID
from eyesmith.dense.result import ClassMap
from eyesmith.dense.sliding import SlidingEncoder, pad_pixels
from eyesmith.dense.training_free.paths import Path, dense_encoder, unit_map
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.heads.score import Link, link_of
from eyesmith.images import ImageSource, open_image
from eyesmith.images.decode import to_rgb
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.clip import Clip

_STRIP_BYTES = 64 * 2**20  # of scores that are computed at once
_LARGEST_BYTES = 2 * 2**30  # of scores that are given whole


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How pictures are looked at."""

    path: Path | Literal["auto"] = "auto"
    """Way through the last block; see `dense_encoder`."""
    sliding: bool = True
    """Windows of the encoder's own size. Otherwise the whole picture at once, its position table resampled."""
    short_side: float = 2.0
    """Shorter side of the picture in windows."""
    long_side: float = 6.0
    """Longer side in windows at most; a longer strip gets a smaller scale."""
    overlap: float = 0.5
    """Which part of a window the next one shows again."""
    threshold: float = 0.0
    """Pixels whose likeliest class has a lower probability belong to none."""

    def __post_init__(self) -> None:
        if not 0 < self.short_side <= self.long_side <= 100:
            raise ConfigError(f"short_side, long_side: expected 0 < short <= long <= 100 windows, got {self}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap: expected 0 <= part < 1, got {self.overlap}")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: expected a probability, got {self.threshold}")


class TrainingFreeSegmenter:
    """Pictures to classes of a vocabulary; `vocabulary` may be exchanged at any time."""

    def __init__(self, clip: Clip, vocabulary: Vocabulary, config: SegmentConfig | None = None) -> None:
        """Warns (PatchSpaceWarning) where the cells of the encoder are not in text space; see `dense_encoder`."""
        self.config = config or SegmentConfig()
        self.encoder = dense_encoder(clip.image, self.config.path)
        self.link, self.preprocess = link_of(clip), clip.preprocess
        self.vocabulary = vocabulary

    def __call__(self, image: ImageSource) -> "CellScores":
        """The cosines of a picture's cells. Raises ImageError as `open_image` does."""
        picture = to_rgb(open_image(image, exif=self.preprocess.exif))
        size = (picture.height, picture.width)
        shown = self.shown_size(size)
        pixels = evaluation_pixels(
            picture,
            PreprocessConfig(image_size=shown, resize="squash", interpolation=self.preprocess.interpolation),
        )
        encoder = self._encoder_of(shown)
        padded = pad_pixels(pixels, encoder.image_size, self.preprocess.mean)
        cells = unit_map(encoder, padded[None].to(self.encoder.device))[0]  # [h, w, D]
        stride = encoder.stride
        cells = cells[: math.ceil(shown[0] / stride), : math.ceil(shown[1] / stride)]  # what is padding alone goes
        return CellScores(
            cosines=self.vocabulary.scores(cells).permute(2, 0, 1).cpu(),
            names=self.vocabulary.names,
            size=size,
            cell_px=(size[0] / shown[0] * stride, size[1] / shown[1] * stride),
            link=self.link,
            threshold=self.config.threshold,
        )

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that a picture of `size` is brought to; both keep their ratio, but for a last pixel."""
        window = min(self.encoder.image_size)
        scale = min(self.config.short_side * window / min(size), self.config.long_side * window / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _encoder_of(self, shown: tuple[int, int]) -> SlidingEncoder:
        """One for pictures of this size, filled up to whole cells, and to a window."""
        stride, window = self.encoder.stride, self.encoder.image_size
        cells = [math.ceil(side / stride) * stride for side in shown]
        if not self.config.sliding:
            whole = (cells[0], cells[1])
            return SlidingEncoder(self.encoder.at_size(*whole), whole)
        step = [max(stride, int(side * (1 - self.config.overlap)) // stride * stride) for side in window]
        height, width = (max(side, own) for side, own in zip(cells, window, strict=True))
        return SlidingEncoder(self.encoder, (height, width), stride=(step[0], step[1]))


@dataclass(frozen=True, kw_only=True)
class CellScores:
    """What a picture's cells say of each class, and how that becomes scores of its pixels.

    cosines: fp32 [K, h, w]. size: H, W of the picture. cell_px: height and width of a cell in its pixels; the first
    begins in the corner. Cosines are interpolated (bilinear) before they become probabilities by the model's own link.
    """

    cosines: Tensor
    names: tuple[str, ...]
    size: tuple[int, int]
    cell_px: tuple[float, float]
    link: Link
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.cosines.ndim != 3 or len(self.cosines) != len(self.names):
            raise ShapeError(f"cosines: expected [{len(self.names)}, h, w], got {list(self.cosines.shape)}")

    def scores(self) -> Tensor:
        """Probabilities of the pixels: fp32 [K, H, W]. Raises DataError where they would fill the memory."""
        needed = 4 * len(self.names) * self.size[0] * self.size[1]
        if needed > _LARGEST_BYTES:
            raise DataError(
                f"scores of {len(self.names)} classes for {self.size[1]} x {self.size[0]} pixels are "
                f"{needed / 2**30:.1f} GiB; take class_map(), which needs a strip of them at a time"
            )
        return torch.cat(list(self._strips()), dim=1)

    def class_map(self) -> ClassMap:
        """The likeliest class of each pixel, void where its probability is below the threshold."""
        labels, scores = [], []
        for strip in self._strips():
            best, places = strip.max(dim=0)
            labels.append(places.masked_fill(best < self.threshold, VOID))
            scores.append(best)
        return ClassMap(labels=torch.cat(labels), scores=torch.cat(scores), names=self.names)

    def _strips(self) -> Iterator[Tensor]:
        """[K, rows, W] from top to bottom."""
        height, width = self.size
        down, across = (
            _interpolation(side, cells, cell)
            for side, cells, cell in zip(self.size, self.cosines.shape[1:], self.cell_px, strict=True)
        )
        rows = max(1, _STRIP_BYTES // (4 * len(self.names) * width))
        for top in range(0, height, rows):
            fine = down[top : top + rows] @ self.cosines @ across.mT  # [K, rows, W]
            probabilities = self.link.probabilities(fine.flatten(1).mT)  # [rows * W, K]
            yield probabilities.mT.reshape(fine.shape)


def _interpolation(side: int, cells: int, cell_px: float) -> Tensor:
    """Bilinear weights of the cells for each pixel of one axis: fp32 [side, cells], rows of sum 1.

    Middles of pixels between middles of cells; beyond the last middle its cell alone.
    """
    place = ((torch.arange(side, dtype=torch.float64) + 0.5) / cell_px - 0.5).clamp(0, cells - 1)
    low = place.floor().long().clamp(max=max(cells - 2, 0))
    part = (place - low).float()
    weights = torch.zeros(side, cells)
    weights.scatter_(1, low[:, None], 1 - part[:, None])
    return weights.scatter_add_(1, (low + 1).clamp(max=cells - 1)[:, None], part[:, None])
