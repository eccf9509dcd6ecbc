"""Batches of one picture size each: pictures near their own shape, as many as a budget of cells allows.

A bucket is a size in pixels. Which pictures and which size a step has is a function of seed and step.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.order import batch_order, epoch_order, step_seed
from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError, ImageError
from eyesmith.images.augment import AugmentConfig, augment_batch
from eyesmith.images.formats import open_header
from eyesmith.images.mix import MixConfig
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels

MULTIPLE = 8
"""Of the pictures of every batch, so that processes and parts can share each."""


@dataclass(frozen=True, kw_only=True)
class BucketConfig:
    """Sizes that a run trains on beside the model's own; off without `cells`."""

    cells: tuple[int, ...] = ()
    """Cells of the encoder's grid that a picture may fill, one after the other over the batches."""
    ratios: tuple[float, ...] = (0.5, 0.75, 1.0, 4 / 3, 2.0)
    """Widths over heights; a picture goes to the nearest."""
    tokens: int = 0
    """Cells of a batch over all processes, never passed; 0: those of batch_size pictures of the model's own size."""

    def __post_init__(self) -> None:
        if any(cells < 1 for cells in self.cells) or self.tokens < 0:
            raise ConfigError(f"buckets: expected positive cells and tokens, got {self.cells} and {self.tokens}")
        if not self.ratios or not all(0.01 <= ratio <= 100 for ratio in self.ratios):
            raise ConfigError(f"buckets.ratios: expected widths over heights of 0.01 to 100, got {self.ratios}")
        if len(set(self.cells)) < len(self.cells) or len(set(self.ratios)) < len(self.ratios):
            raise ConfigError(f"buckets: a value stands twice, in cells {self.cells} or ratios {self.ratios}")


class Bucket(NamedTuple):
    """Pictures of one shape at one size. grid: rows and columns of cells; pictures: of a batch."""

    grid: tuple[int, int]
    pictures: int


def grid_of(cells: int, ratio: float) -> tuple[int, int]:
    """Rows and columns of the grid nearest to a width over height, of no more than so many cells: as full as can be."""
    found = [(rows, cells // rows) for rows in range(1, cells + 1)]
    return min(found, key=lambda one: (abs(math.log(one[1] / one[0] / ratio)), -one[0] * one[1]))


def buckets_of(config: BucketConfig, *, batch_size: int, native_cells: int) -> list[list[Bucket]]:
    """For each ratio a bucket for each of `cells`. Raises ConfigError where the budget is too small for a batch."""
    tokens = config.tokens or batch_size * native_cells
    made = []
    for ratio in config.ratios:
        grids = [grid_of(cells, ratio) for cells in config.cells]
        counts = [min(batch_size, tokens // (rows * columns)) // MULTIPLE * MULTIPLE for rows, columns in grids]
        for (rows, columns), count in zip(grids, counts, strict=True):
            if not count:
                raise ConfigError(
                    f"buckets.tokens: {tokens:,} cells and a batch of {batch_size} have no room for {MULTIPLE} "
                    f"pictures of {rows} x {columns}; raise them or lower buckets.cells"
                )
        made.append([Bucket(grid, count) for grid, count in zip(grids, counts, strict=True)])
    return made


class BucketPlan:
    """Which samples each step has, and at which size; as `order.BatchPlan`, with batches of different counts.

    The samples of a ratio take turns in its sizes, batch after batch; what fills no whole batch is left out of the
    epoch, others in the next. A ratio with too few samples for a batch gives them to the nearest. The batches of an
    epoch come in a random order.
    """

    def __init__(self, ratios: np.ndarray, config: BucketConfig, buckets: Sequence[Sequence[Bucket]], *, seed: int):
        """ratios: [N] of the samples, width over height. Raises DataError for fewer samples than a batch."""
        known = np.log(np.array(config.ratios))
        nearest = np.abs(np.log(ratios)[:, None] - known[None]).argmin(1)
        least = [max(bucket.pictures for bucket in row) for row in buckets]
        alive = [row for row in range(len(known)) if (nearest == row).sum() >= least[row]]
        if not alive:
            fullest = int(np.bincount(nearest, minlength=len(known)).argmax())
            if len(ratios) < least[fullest]:
                raise DataError(
                    f"the data set has {len(ratios):,} usable samples, less than one batch of {least[fullest]:,}; "
                    "lower batch_size or buckets.tokens"
                )
            alive = [fullest]
        places = np.array(alive)[np.abs(np.log(ratios)[:, None] - known[alive][None]).argmin(1)]
        self._groups = [np.flatnonzero(places == row) for row in alive]
        self._sizes: list[Bucket] = []
        self._cuts: list[tuple[int, int, int]] = []  # of each batch: its group, and where it begins and ends there
        for group, row in enumerate(alive):
            start, turn = 0, 0
            while start + (bucket := buckets[row][turn % len(buckets[row])]).pictures <= len(self._groups[group]):
                self._sizes.append(bucket)
                self._cuts.append((group, start, start + bucket.pictures))
                start, turn = start + bucket.pictures, turn + 1
        self.num_samples, self.seed = len(ratios), seed
        self.steps_per_epoch = len(self._cuts)
        self._per_epoch = sum(bucket.pictures for bucket in self._sizes)
        self._ordered = lru_cache(maxsize=3)(self._order_of)  # decoding threads ask for several epochs at a time

    def batch(self, step: int) -> np.ndarray:
        """Sample ids of a step (counted from 0), int64 [pictures of its bucket]."""
        epoch, place = self._at(step)
        orders, turns = self._ordered(epoch)
        group, start, end = self._cuts[turns[place]]
        return orders[group][start:end].copy()

    def bucket(self, step: int) -> Bucket:
        """The size of a step."""
        epoch, place = self._at(step)
        return self._sizes[self._ordered(epoch)[1][place]]

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had."""
        epoch, place = self._at(step)
        return epoch * self._per_epoch + sum(self._sizes[turn].pictures for turn in self._ordered(epoch)[1][:place])

    def _at(self, step: int) -> tuple[int, int]:
        """Epoch of a step, and its place there."""
        if step < 0:
            raise ConfigError(f"step: expected 0 or more, got {step}")
        return divmod(step, self.steps_per_epoch)

    def _order_of(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The samples of each group in an epoch's order, and which batch stands at each place."""
        whole = epoch_order(self.num_samples, seed=self.seed, epoch=epoch)
        rank = np.empty_like(whole)
        rank[whole] = np.arange(len(whole))
        orders = [group[np.argsort(rank[group], kind="stable")] for group in self._groups]
        return orders, batch_order(self.steps_per_epoch, seed=self.seed, epoch=epoch)


class BucketViews:
    """Pictures bent to the size of their step, with room for views to move, of which `augment_batch` cuts them."""

    mix = MixConfig()

    def __init__(
        self, plan: BucketPlan, augment: AugmentConfig, stride: int, *, room: float, batch_size: int, seed: int
    ) -> None:
        """room: sides of what is decoded over those of a view. batch_size: the most rows of any step."""
        self._plan, self._augment, self._stride, self._room = plan, augment, stride, room
        self._batch_size, self._seed = batch_size, seed

    def size(self, step: int) -> tuple[int, int]:
        """Height and width of a step's pictures."""
        rows, columns = self._plan.bucket(step).grid
        return rows * self._stride, columns * self._stride

    def decode(self, content: bytes, step: int, row: int) -> Tensor:
        del row
        height, width = self.size(step)
        whole = (max(height, round(height * self._room)), max(width, round(width * self._room)))
        return evaluation_pixels(content, PreprocessConfig(image_size=whole, resize="squash"), mode="fast")

    def finish(self, pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        draws = torch.Generator().manual_seed(step_seed(self._seed, step))
        return augment_batch(pixels, self._augment, self.size(step), draws, rows=rows, num_rows=self._batch_size)


def picture_ratios(source: Source, indices: Sequence[int], *, num_workers: int = 2) -> np.ndarray:
    """Width over height of pictures, [N] fp64, from their headers; 1 for one that cannot be read."""

    def ratio(index: int) -> float:
        try:
            with open_header(source.image_bytes(index), source.where(index)) as picture:
                return picture.width / picture.height
        except (ImageError, DataError, ZeroDivisionError):
            return 1.0

    with ThreadPoolExecutor(num_workers, thread_name_prefix="headers") as pool:
        return np.array(list(pool.map(ratio, indices)), np.float64)
