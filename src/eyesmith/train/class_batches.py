"""Batches of labelled views: cut from whole images, each by random numbers of its own, one step ahead of the loop."""

import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.data.labelled import LabelledSets, open_labelled
from eyesmith.data.order import BatchPlan
from eyesmith.data.sample import Finding
from eyesmith.errors import ConfigError, DataError, ImageError
from eyesmith.images.class_views import class_view
from eyesmith.images.mix import draw_mix, mix_pixels
from eyesmith.train.batches import Batch
from eyesmith.train.classify_config import ClassifyConfig
from eyesmith.train.distributed import World

_View = Tensor | Finding


@dataclass(frozen=True, kw_only=True)
class ClassBatch(Batch):
    """A batch in which images may be mixed: partners int64 [b], the second label of each; share fp32 [b], of the
    first. Both None where nothing is mixed."""

    partners: Tensor | None = None
    share: Tensor | None = None


@dataclass(frozen=True)
class ClassPlan:
    """How long an epoch is, and how many images there are."""

    steps_per_epoch: int
    num_samples: int


class ClassBatches:
    """The batches of a run by classes. `batch(step)` depends on nothing but the data, the config, step and `world`.

    The view of a row is a function of (seed, step, row in the global batch), so the rows of all processes are those
    that one would have. Where images are mixed, row i of B takes row B - 1 - i, which a process decodes too if it is
    another's. An image that cannot be read is left out and listed in `skipped`; above the config's share of them
    DataError stops the run.
    """

    def __init__(self, config: ClassifyConfig, *, world: World | None = None) -> None:
        """Raises ConfigError when the processes cannot share a batch evenly, or for another number of classes."""
        data = config.data
        if data.more_paths or data.weights:
            raise ConfigError("data.more_paths and data.weights: a run by classes reads one data set; leave them out")
        self._config, self._own = config, (world or World()).share(config.batch_size)
        self.sets: LabelledSets = open_labelled(data.path, split=data.split, val_frac=config.val_frac)
        if config.num_classes not in (0, len(self.sets.classes)):
            raise ConfigError(
                f"num_classes: {data.path} has {len(self.sets.classes)} classes, expected {config.num_classes}; "
                "set num_classes=0 to take those of the data"
            )
        source = self.sets.train
        assert source.labels is not None
        self._source, self._labels = source, torch.tensor(source.labels)
        self.skipped: list[Finding] = []
        self._order = BatchPlan(len(source), config.batch_size, seed=config.seed)
        steps = data.epoch_samples // config.batch_size or self._order.steps_per_epoch
        self.plan = ClassPlan(steps, len(source))
        self._pool = ThreadPoolExecutor(data.num_workers, thread_name_prefix="views")
        self._ahead: dict[int, dict[int, Future[_View]]] = {}
        self._seen = 0

    @property
    def problems(self) -> list[Finding]:
        """What opening the data found unusable."""
        return self._source.problems

    def fingerprint(self) -> str:
        """Of the images that are trained on."""
        return self._source.fingerprint()

    def captions(self) -> list[str]:
        """None: a run by classes reads no texts."""
        return []

    def close(self) -> None:
        """Drop what is decoded ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> ClassBatch:
        """This process's rows of a global step, counted from 0."""
        waiting = self._ahead.pop(step, None) or self._begin(step)
        for other in self._ahead.values():
            for future in other.values():
                future.cancel()
        self._ahead = {step + 1: self._begin(step + 1)}
        views = {row: future.result() for row, future in waiting.items()}
        own = range(self._own.start, self._own.stop)
        self._count([views[row] for row in own])
        rows = [row for row in own if isinstance(views[row], Tensor)]
        everyone = self._order.batch(step)
        places = torch.from_numpy(everyone[rows])
        pixels = torch.stack([view for row in rows if isinstance(view := views[row], Tensor)])
        partners, share = None, None
        mix = draw_mix(self._config.views.mix, self._config.image_size, seed=self._config.seed, step=step)
        if mix is not None:
            others = [self._partner(row) for row in rows]
            is_read = [isinstance(views[other], Tensor) for other in others]
            used = [other if good else row for row, other, good in zip(rows, others, is_read, strict=True)]
            pixels = mix_pixels(pixels, torch.stack([v for row in used if isinstance(v := views[row], Tensor)]), mix)
            partners = self._labels[torch.from_numpy(everyone[used])]
            share = torch.full((len(rows),), mix.share)
        return ClassBatch(
            pixels=pixels,
            texts=[],
            labels=self._labels[places],
            keys=tuple(str(self._source.keys[index]) for index in places.tolist()),
            rows=torch.tensor(rows),
            indices=places,
            partners=partners,
            share=share,
        )

    def _begin(self, step: int) -> dict[int, Future[_View]]:
        """The views of this process's rows, and of those they are mixed with, by row."""
        everyone = self._order.batch(step)
        rows = list(range(self._own.start, self._own.stop))
        if self._config.views.mix.is_on:
            rows = sorted({*rows, *(self._partner(row) for row in rows)})
        return {row: self._pool.submit(self._view, int(everyone[row]), step, row) for row in rows}

    def _partner(self, row: int) -> int:
        return self._config.batch_size - 1 - row

    def _view(self, index: int, step: int, row: int) -> _View:
        rng = random.Random(f"view/{self._config.seed}/{step}/{row}")
        try:
            content = self._source.image_bytes(index)
            return class_view(content, self._config.views, self._config.image_size, rng)
        except ImageError as error:
            return Finding("undecodable", "error", self._source.keys[index], self._source.where(index), str(error))

    def _count(self, views: Sequence[_View]) -> None:
        """Note what is broken. Raises DataError where it is too much."""
        self._seen += len(views)
        broken = [view for view in views if isinstance(view, Finding)]
        self.skipped += [finding for finding in broken if finding not in self.skipped]
        allowed = max(1, self._config.data.max_skipped_frac * self._seen)
        if len(broken) == len(views) or len(self.skipped) > allowed:
            raise DataError(
                f"{self._source.name}: {len(self.skipped):,} of {self._seen:,} images read cannot be used; first: "
                f"{self.skipped[0].key}: {self.skipped[0].detail}; `eyesmith data check` lists them all"
            )
