"""Is the exported file the model? Its features of real pictures and texts beside the model's own."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyesmith.hub.parity import FP32_BOUND
from eyesmith.images import PreprocessConfig, evaluation_pixels

Run = Callable[[Tensor], Tensor]

BATCHES = (1, 7)  # rows that go through a file at once
MIN_COSINE_INT8 = 0.98  # between a feature of the 8-bit file and the model's; measured: 0.987 and more
CLASS_NAMES = (
    "cat", "dog", "bird", "fish", "car", "ship", "house", "tree", "flower", "face", "hand", "book", "phone", "sun",
    "moon", "food",
)  # fmt: skip
_TIMED_PAIRS = 9


@dataclass(frozen=True, slots=True)
class ExportRow:
    """How far the features of one exported tower are from the model's."""

    part: Literal["image", "text"]
    batch: int
    """Rows that went through the file at once."""
    samples: int
    """Pictures or texts."""
    max_difference: float
    """Largest difference of any number of the features, both of length 1."""
    min_cosine: float
    """Of the worst sample."""
    is_equal: bool
    """Within the bound of the format."""


def prepared(images: Sequence[Image.Image], preprocess: PreprocessConfig) -> Tensor:
    """uint8 [B, 3, H, W] of pictures, as the model itself prepares them."""
    return torch.stack([evaluation_pixels(image, preprocess) for image in images])


@torch.no_grad()
def compare(
    part: Literal["image", "text"], exported: Run, ours: Tensor, batch: Tensor, *, is_int8: bool
) -> list[ExportRow]:
    """One row for each of BATCHES. ours: [N, D] unit features of the N rows of `batch`, which is what the file eats."""
    rows = []
    for size in BATCHES:
        parts = [exported(batch[start : start + size]) for start in range(0, len(batch), size)]
        theirs = F.normalize(torch.cat(parts).double(), dim=-1)
        reference = F.normalize(ours.double(), dim=-1)
        difference = float((theirs - reference).abs().max())
        cosine = float((theirs * reference).sum(dim=-1).min())
        is_equal = cosine >= MIN_COSINE_INT8 if is_int8 else difference <= FP32_BOUND
        rows.append(ExportRow(part, size, len(batch), difference, cosine, is_equal))
    return rows


@torch.no_grad()
def agreement(ours: Tensor, theirs: Tensor, our_classes: Tensor, their_classes: Tensor) -> float:
    """Share of pictures that get the same best class. Features [N, D] and class vectors [K, D] of either side."""
    same = (ours @ our_classes.mT).argmax(dim=1) == (theirs @ their_classes.mT).argmax(dim=1)
    return float(same.double().mean())


@torch.no_grad()
def speed_ratio(slow: Run, fast: Run, batch: Tensor) -> float:
    """How many times faster `fast` is than `slow`: the median over pairs of runs that follow each other."""
    for run in (slow, fast):
        run(batch)
    return statistics.median(_seconds(slow, batch) / _seconds(fast, batch) for _ in range(_TIMED_PAIRS))


def _seconds(run: Run, batch: Tensor) -> float:
    start = time.perf_counter()
    run(batch)
    return time.perf_counter() - start
