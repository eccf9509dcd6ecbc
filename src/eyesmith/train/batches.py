"""Batches of image-text pairs, each a pure function of the seed and the step."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.memory import decode_all, decoded_bytes
from eyesmith.data.order import BatchPlan
from eyesmith.data.sample import Finding, Source
from eyesmith.errors import DataError, ImageError
from eyesmith.images.augment import AugmentConfig, augment_batch
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.train.config import DataConfig, RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.rng import step_seed


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one step that this process computes. Row i of every field is one of them.

    pixels: [b, 3, H, W] uint8; texts: one caption each, none where the run reads no texts; labels: [b] int64 class of
    each, or None; keys: for messages; rows: [b] int64 place of each in the batch of all processes; indices: [b] int64
    place of each in the data set, None where they stream by.
    """

    pixels: Tensor
    texts: list[str]
    labels: Tensor | None
    keys: tuple[str, ...]
    rows: Tensor
    indices: Tensor | None = None


class Plan(Protocol):
    """How long an epoch is."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the data."""
        ...

    @property
    def num_samples(self) -> int:
        """Usable samples, as far as is known before they are read."""
        ...


class BatchReader(Protocol):
    """Where the loop gets its batches from."""

    @property
    def plan(self) -> Plan:
        """The order of the data."""
        ...

    @property
    def skipped(self) -> list[Finding]:
        """Samples left out so far."""
        ...

    @property
    def problems(self) -> list[Finding]:
        """What opening the data found unusable."""
        ...

    def fingerprint(self) -> str:
        """A hash of the data, independent of its place on disk."""
        ...

    def batch(self, step: int) -> Batch:
        """This process's rows of a global step, counted from 0: a pure function of the step."""
        ...

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included."""
        ...

    def close(self) -> None:
        """End what works in the background."""
        ...


class Batches:
    """The batches of a run. `batch(step)` depends on nothing but the source, the config, the step and `world`.

    Each process reads and decodes its own rows of the global batch; captions and views are drawn for all of them, so
    that the rows of all processes together are those that one process would have.

    Small data sets are decoded once and kept; of larger ones each batch is decoded when it is asked for. Samples that
    cannot be used are left out and listed in `skipped`; above the config's share of them DataError stops the run.
    """

    def __init__(
        self, source: Source, config: RunConfig, *, image_size: tuple[int, int], world: World | None = None
    ) -> None:
        """Raises ConfigError when the processes of `world` cannot share a batch evenly."""
        self.source = source
        self._own = (world or World()).share(config.batch_size)
        self.skipped: list[Finding] = []
        self._augment, self._seed, self._image_size = config.augment, config.seed, image_size
        self._reads_texts = config.reads_texts
        self._reader = _reader(source, config, self.skipped)
        self._labels = None if source.labels is None else torch.tensor(source.labels)
        self.plan = BatchPlan(len(self._reader.indices), config.batch_size, seed=config.seed)

    @property
    def problems(self) -> list[Finding]:
        """What opening the source found unusable."""
        return self.source.problems

    def fingerprint(self) -> str:
        """The source's own."""
        return self.source.fingerprint()

    def close(self) -> None:
        """Nothing works in the background."""

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included."""
        return [text for index in self._reader.indices for text in self.source.texts(index)]

    def batch(self, step: int) -> Batch:
        """The batch of a global step, counted from 0."""
        everyone = self.plan.batch(step)
        texts: list[str] = []
        if self._reads_texts:
            words = np.random.default_rng([self._seed, step])
            texts = [self._caption(self._reader.indices[row], words) for row in everyone[: self._own.stop]]
        read, pixels = self._reader.read(everyone[self._own])
        rows = torch.from_numpy(read) + self._own.start
        indices = [self._reader.indices[everyone[row]] for row in rows]
        views = torch.Generator().manual_seed(step_seed(self._seed, step))
        return Batch(
            pixels=augment_batch(
                pixels, self._augment, self._image_size, views, rows=rows, num_rows=self.plan.batch_size
            ),
            texts=[texts[row] for row in rows] if self._reads_texts else [],
            labels=None if self._labels is None else self._labels[indices],
            keys=tuple(self.source.keys[index] for index in indices),
            rows=rows,
            indices=torch.tensor(indices),
        )

    def fixed_views(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All usable samples in the order of the data set, unaugmented: indices int64 [b] and pixels uint8.

        They are what `batch` gives where `augment` does nothing.
        """
        still, places = AugmentConfig(), np.arange(len(self._reader.indices))
        for start in range(0, len(places), batch_size):
            some = places[start : start + batch_size]
            read, pixels = self._reader.read(some)
            indices = [self._reader.indices[some[row]] for row in read]
            yield torch.tensor(indices), augment_batch(pixels, still, self._image_size, torch.Generator())

    def _caption(self, index: int, words: np.random.Generator) -> str:
        texts = self.source.texts(index)
        return texts[int(words.integers(len(texts)))]


def _reader(source: Source, config: RunConfig, skipped: list[Finding]) -> "_Kept | _Decoding":
    data = config.data
    is_small = decoded_bytes(len(source), data.decode_px) <= data.memory_mib * 2**20
    return (_Kept if is_small else _Decoding)(source, data, skipped, reads_texts=config.reads_texts)


class _Kept:
    """Decoded once: the usable samples are known before the first step."""

    def __init__(self, source: Source, config: DataConfig, skipped: list[Finding], *, reads_texts: bool) -> None:
        decoded = decode_all(
            source,
            config.decode_px,
            max_skipped_frac=config.max_skipped_frac,
            num_workers=config.num_workers,
            require_text=reads_texts,
        )
        skipped += decoded.skipped
        self.indices = decoded.indices
        # channels last is what sampling views reads fastest
        self._pixels = decoded.pixels.contiguous(memory_format=torch.channels_last)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return np.arange(len(rows)), self._pixels[torch.from_numpy(rows)]


class _Decoding:
    """Decoded at each use: a broken sample shows, and makes its batch one shorter, when it is read."""

    def __init__(self, source: Source, config: DataConfig, skipped: list[Finding], *, reads_texts: bool) -> None:
        self.indices = tuple(index for index in range(len(source)) if not reads_texts or source.texts(index))
        self._source, self._config, self._skipped = source, config, skipped
        self._seen = 0
        self._size = PreprocessConfig(image_size=(config.decode_px, config.decode_px), resize="squash")

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        chosen = [self.indices[row] for row in rows]
        with ThreadPoolExecutor(self._config.num_workers) as pool:
            read = list(pool.map(self._decode, chosen))
        usable = [(place, pixels) for place, pixels in enumerate(read) if isinstance(pixels, Tensor)]
        self._seen += len(rows)
        broken = [finding for finding in read if isinstance(finding, Finding)]
        self._skipped += [finding for finding in broken if finding not in self._skipped]
        if not usable or len(self._skipped) > max(1, self._config.max_skipped_frac * self._seen):
            raise DataError(
                f"{self._source.name}: {len(self._skipped):,} of {self._seen:,} samples read cannot be used; first: "
                f"{self._skipped[0].key}: {self._skipped[0].detail}; `eyesmith data check` lists them all"
            )
        return np.array([place for place, _ in usable]), torch.stack([pixels for _, pixels in usable])

    def _decode(self, index: int) -> Tensor | Finding:
        try:
            return evaluation_pixels(self._source.image_bytes(index), self._size, mode="fast")
        except ImageError as error:
            return Finding("undecodable", "error", self._source.keys[index], self._source.where(index), str(error))
