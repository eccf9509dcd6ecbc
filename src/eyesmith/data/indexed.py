"""Rows of a data set that is known sample by sample: image-text pairs, and labelled images of class folders."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.buckets import BucketPlan
from eyesmith.data.loader import Batch, Read
from eyesmith.data.memory import decode_all, decoded_bytes
from eyesmith.data.order import BatchPlan, step_seed
from eyesmith.data.sample import Finding, Source
from eyesmith.errors import DataError, ImageError
from eyesmith.images.augment import AugmentConfig, augment_batch
from eyesmith.images.class_views import ClassViewConfig, class_view
from eyesmith.images.mix import MixConfig, draw_mix, mix_pixels
from eyesmith.images.transforms import Mode, PreprocessConfig, evaluation_pixels

View = Tensor | Finding  # uint8 [3, H, W], or why there is none


class Views(Protocol):
    """How an image becomes the pixels that a step sees: decoded row by row, then finished for the whole batch."""

    mix: MixConfig
    """Of labelled images."""

    def size(self, step: int) -> tuple[int, int]:
        """Height and width that a step's pixels end with."""
        ...

    def decode(self, content: bytes, step: int, row: int) -> Tensor:
        """uint8 [3, h, w] of one row of a step's global batch. Raises ImageError."""
        ...

    def finish(self, pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        """uint8 [b, 3, H, W] from decoded [b, 3, h, w]; rows: int64 [b], their places in the global batch."""
        ...


class Squares:
    """Whole images bent to squares, of which `augment_batch` cuts views; small sets are kept as such squares."""

    mix = MixConfig()

    def __init__(
        self, augment: AugmentConfig, image_size: tuple[int, int], *, decode_px: int, batch_size: int, seed: int
    ) -> None:
        """batch_size: of all processes; views are drawn for all of its rows, whoever computes them."""
        self._image_size, self.decode_px = image_size, decode_px
        self._augment, self._batch_size, self._seed = augment, batch_size, seed
        self._size = PreprocessConfig(image_size=(decode_px, decode_px), resize="squash")

    def size(self, step: int) -> tuple[int, int]:
        del step
        return self._image_size

    def decode(self, content: bytes, step: int, row: int) -> Tensor:
        del step, row
        return evaluation_pixels(content, self._size, mode="fast")

    def finish(self, pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        draws = torch.Generator().manual_seed(step_seed(self._seed, step))
        return augment_batch(pixels, self._augment, self._image_size, draws, rows=rows, num_rows=self._batch_size)

    def still(self, pixels: Tensor) -> Tensor:
        """What `finish` gives where nothing is augmented."""
        return augment_batch(pixels, AugmentConfig(), self._image_size, torch.Generator())


class ClassViews:
    """Crops and RandAugment while an image is decoded, each by random numbers of its own row."""

    def __init__(self, config: ClassViewConfig, image_size: tuple[int, int], *, seed: int) -> None:
        self._image_size, self.mix = image_size, config.mix
        self._config, self._seed = config, seed

    def size(self, step: int) -> tuple[int, int]:
        del step
        return self._image_size

    def decode(self, content: bytes, step: int, row: int) -> Tensor:
        rng = random.Random(f"view/{self._seed}/{step}/{row}")
        return class_view(content, self._config, self._image_size, rng)

    def finish(self, pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        del rows, step
        return pixels


def usable(source: Source, *, require_text: bool) -> tuple[int, ...]:
    """The samples of a source that have a caption, or all where none is read."""
    return tuple(index for index in range(len(source)) if not require_text or source.texts(index))


class IndexedRows:
    """Rows whose order is a permutation of all samples an epoch. A step's rows depend on nothing but its number.

    Each process decodes its own rows of the global batch; captions and views are drawn so that the rows of all
    processes are those that one would have. Where images are mixed, row i of B takes row B - 1 - i, which a process
    decodes too if it is another's; `extra` then has partners, int64 [b], the second label of each, and share, fp32 [b],
    of the first. A sample that cannot be used makes its batch one shorter and is listed in `skipped`.
    """

    def __init__(
        self,
        source: Source,
        views: Views,
        batch_size: int,
        *,
        own: slice,
        seed: int,
        require_text: bool,
        num_workers: int = 2,
        keep_mib: int = 0,
        max_skipped_frac: float = 0.01,
        epoch_steps: int = 0,
        order: BatchPlan | BucketPlan | None = None,
    ) -> None:
        """own: rows of the global batch that this process computes, and of a shorter one as large a share. order: of
        all samples with a caption; None: a `BatchPlan`. require_text: samples without a caption are of no
        use. keep_mib: a set whose decoded squares need no more is decoded once, now. epoch_steps: that count as one
        epoch; 0: those of all samples. Raises DataError for too many unusable samples, or too few for a batch.
        """
        self.source, self.skipped = source, list[Finding]()
        self._views, self._own, self._seed, self._require_text = views, own, seed, require_text
        self._frac, self._batch_size, self._seen = max_skipped_frac, batch_size, 0
        self._kept: Tensor | None = None
        if isinstance(views, Squares) and decoded_bytes(len(source), views.decode_px) <= keep_mib * 2**20:
            decoded = decode_all(
                source,
                views.decode_px,
                max_skipped_frac=max_skipped_frac,
                num_workers=num_workers,
                require_text=require_text,
            )
            self.skipped += decoded.skipped
            self.indices = decoded.indices
            # channels last is what sampling views reads fastest
            self._kept = decoded.pixels.contiguous(memory_format=torch.channels_last)
        else:
            self.indices = usable(source, require_text=require_text)
        self._labels = None if source.labels is None else torch.tensor(source.labels)
        self._order = BatchPlan(len(self.indices), batch_size, seed=seed) if order is None else order
        self.num_samples = len(self.indices)
        self.steps_per_epoch = epoch_steps or self._order.steps_per_epoch
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")

    @property
    def decoding(self) -> Mode:
        """How images become pixels: exactly where they are kept in memory, else fast, which differs by a few levels."""
        return "fast" if self._kept is None else "exact"

    @property
    def problems(self) -> list[Finding]:
        """What opening the source found unusable."""
        return self.source.problems

    def fingerprint(self) -> str:
        """The source's own."""
        return self.source.fingerprint()

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included; none where texts are not read."""
        return [text for index in self.indices for text in self.source.texts(index)] if self._require_text else []

    def begin(self, step: int) -> Callable[[], Read]:
        everyone = self._order.batch(step)  # int64 [B], places among the usable samples
        if self._kept is not None:
            return partial(self._finish, step, everyone, None)
        rows = list(self._own_rows(everyone))
        if self._views.mix.is_on:
            rows = sorted({*rows, *(self._partner(row) for row in rows)})
        jobs = {row: self._pool.submit(self._decode, self.indices[everyone[row]], step, row) for row in rows}
        return partial(self._finish, step, everyone, jobs)

    def samples(self, step: int) -> int:
        """How many the steps before this one had, those that could not be used included."""
        return self._order.samples(step)

    def count(self, read: Read) -> None:
        if self._kept is None:  # else they were counted when all was decoded
            self._note(read.seen, read.broken, is_empty=read.batch is None)

    def close(self) -> None:
        """Drop what is decoded ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def fixed_views(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All usable samples in the order of the data set, unaugmented: indices int64 [b] and pixels uint8.

        They are what a batch has where nothing is augmented; for `Squares` only.
        """
        assert isinstance(self._views, Squares)
        for start in range(0, len(self.indices), batch_size):
            chosen = self.indices[start : start + batch_size]
            if self._kept is not None:
                yield torch.tensor(chosen), self._views.still(self._kept[start : start + batch_size])
                continue
            found = list(self._pool.map(lambda index: self._decode(index, 0, 0), chosen))
            broken = [one for one in found if isinstance(one, Finding)]
            self._note(len(chosen), broken, is_empty=len(broken) == len(chosen))
            good = [index for index, one in zip(chosen, found, strict=True) if isinstance(one, Tensor)]
            yield torch.tensor(good), self._views.still(torch.stack([one for one in found if isinstance(one, Tensor)]))

    def _finish(self, step: int, everyone: np.ndarray, jobs: dict[int, Future[View]] | None) -> Read:
        own = self._own_rows(everyone)
        extra: dict[str, Tensor] = {}
        if jobs is None:
            assert self._kept is not None
            rows, broken = list(own), []
            pixels = self._kept[torch.from_numpy(everyone[self._own])]
        else:
            found = {row: job.result() for row, job in jobs.items()}
            views = {row: one for row, one in found.items() if isinstance(one, Tensor)}
            broken = [one for row in own if isinstance(one := found[row], Finding)]
            rows = [row for row in own if row in views]
            if not rows:
                return Read(None, len(own), broken)
            pixels = torch.stack([views[row] for row in rows])
            pixels, extra = self._mixed(pixels, views, rows, everyone, step)
        places = torch.tensor(rows)
        indices = [self.indices[everyone[row]] for row in rows]
        batch = Batch(
            pixels=self._views.finish(pixels, places, step),
            texts=self._texts(everyone, rows, step) if self._require_text else [],
            labels=None if self._labels is None else self._labels[indices],
            keys=tuple(str(self.source.keys[index]) for index in indices),
            rows=places,
            indices=torch.tensor(indices),
            extra=extra,
        )
        return Read(batch, len(own), broken)

    def _mixed(
        self, pixels: Tensor, views: dict[int, Tensor], rows: list[int], everyone: np.ndarray, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        mix = draw_mix(self._views.mix, self._views.size(step), seed=self._seed, step=step)
        if mix is None:
            return pixels, {}
        assert self._labels is not None
        used = [other if (other := self._partner(row)) in views else row for row in rows]
        partners = self._labels[[self.indices[everyone[row]] for row in used]]
        pixels = mix_pixels(pixels, torch.stack([views[row] for row in used]), mix)
        return pixels, {"partners": partners, "share": torch.full((len(rows),), mix.share)}

    def _own_rows(self, everyone: np.ndarray) -> range:
        """Of a batch that may be shorter than the longest."""
        start, stop = (end * len(everyone) // self._batch_size for end in (self._own.start, self._own.stop))
        return range(start, stop)

    def _partner(self, row: int) -> int:
        return self._batch_size - 1 - row

    def _texts(self, everyone: np.ndarray, rows: list[int], step: int) -> list[str]:
        """A caption of each row, drawn for all rows up to this process's last, so that several draw what one would."""
        words = np.random.default_rng([self._seed, step])
        texts = []
        for row in everyone[: self._own_rows(everyone).stop]:
            known = self.source.texts(self.indices[row])
            texts.append(known[int(words.integers(len(known)))])
        return [texts[row] for row in rows]

    def _note(self, seen: int, broken: list[Finding], *, is_empty: bool) -> None:
        self._seen += seen
        self.skipped += [finding for finding in broken if finding not in self.skipped]
        if is_empty or len(self.skipped) > max(1, self._frac * self._seen):
            raise DataError(
                f"{self.source.name}: {len(self.skipped):,} of {self._seen:,} samples read cannot be used; first: "
                f"{self.skipped[0].key}: {self.skipped[0].detail}; `eyesmith data check` lists them all"
            )

    def _decode(self, index: int, step: int, row: int) -> View:
        try:
            return self._views.decode(self.source.image_bytes(index), step, row)
        except ImageError as error:
            return Finding("undecodable", "error", self.source.keys[index], self.source.where(index), str(error))
