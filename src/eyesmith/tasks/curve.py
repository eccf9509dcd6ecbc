"""Splits measured again and again while a model trains: images decoded once, encoded once for all tasks.

Each process encodes its share of the images (and of the texts, unless the text tower is locked and its features are
known), so that a measurement stalls a run as little as it can.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.eval import (
    BrokenImage,
    ImageFeatures,
    Measurement,
    SuiteEvaluator,
    TextFeatures,
    choose_splits,
    split_tasks,
)
from eyesmith.eval.features.precision import TowerPrecision
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import World

KEEP_BYTES = 1 << 30  # decoded pixels of all splits that a process keeps between measurements


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Tasks that share their images. prefix: of the names of their values."""

    prefix: str
    images: "_Images"
    tasks: tuple[Measurement, ...]


class Curve:
    """Measures an image-text model on the same splits each time: values by SPLIT/METRIC. True if there are any."""

    def __init__(
        self,
        data: str,
        splits: Sequence[str],
        *,
        further: Sequence[str] = (),
        tasks: Sequence[str],
        suites: Sequence[str] = (),
        suite_data: str = "",
        suite_limit: int = 0,
        preprocess: PreprocessConfig,
        precision: TowerPrecision | None = None,
        evaluators: Sequence[Any] = (),
        world: World | None = None,
    ) -> None:
        """splits: of `data`; further: data sets of which all splits but train are measured, as SET:SPLIT. tasks: what
        is measured of a split, where it allows. suites: of `eyesmith eval`, with their sets in suite_data, of each the
        first suite_limit images; they and `evaluators` (with `run(clip)`, names and fractions) run in the first
        process. precision: what the towers compute in. Raises DataError for a split that is not there or can carry
        no task.
        """
        self._tasks, self._preprocess, self._world = tuple(tasks), preprocess, world or World()
        self._precision = precision or TowerPrecision()
        self._room_bytes = KEEP_BYTES
        self._splits = [
            *(self._split(data, split, "") for split in splits),
            *(self._split(path, split, f"{Path(path).name}:") for path in further for split in choose_splits(path)),
        ]
        own = (SuiteEvaluator(name, suite_data, limit=suite_limit) for name in suites)
        self._evaluators = (*own, *evaluators)
        self._texts: TextFeatures | None = None

    def __bool__(self) -> bool:
        return bool(self._splits or self._evaluators)

    def measure(self, clip: Clip) -> dict[str, float]:
        """The values of `clip`; every process must call it, and gets the same."""
        if self._texts is None or not self._texts.is_current(clip):
            world = None if clip.config.lock_text else self._world
            self._texts = TextFeatures(clip, precision=self._precision, world=world)
        texts, found = self._texts, {}
        for split in self._splits:
            images = split.images.features(clip, self._precision)

            def measure(split: _Split = split, images: ImageFeatures = images) -> dict[str, float]:
                return {
                    name: value
                    for task in split.tasks
                    for name, value in _values(task, split.prefix, clip, images, texts)
                }

            # the texts of a locked tower are on this disk or not, so only one process may decide what to encode
            found |= self._world.once(measure) if clip.config.lock_text else measure()
        own = lambda: {name: value for one in self._evaluators for name, value in one.run(clip)}  # noqa: E731
        return found | (self._world.once(own) if self._evaluators else {})

    def _split(self, path: str, split: str | None, prefix: str) -> _Split:
        found = split_tasks(path, split)
        tasks = tuple(task for task in found.tasks if task.key in self._tasks)
        if not tasks:
            has = ", ".join(task.key for task in found.tasks)
            raise DataError(
                f"{path}: split {found.split!r} cannot carry {', '.join(self._tasks)} (eval.curve_tasks), but {has}"
            )
        images = _Images(found.source, self._preprocess, self._world, keep_bytes=self._room_bytes)
        self._room_bytes -= images.kept_bytes
        return _Split(prefix=prefix, images=images, tasks=tasks)


def _values(
    task: Measurement, prefix: str, clip: Clip, images: ImageFeatures, texts: TextFeatures
) -> Iterable[tuple[str, float]]:
    # two kinds of one task have the same metrics, so all but the usual one are named by their task
    kind = "" if task.key in ("zero_shot", "retrieval") else f"{task.key}/"
    for metric, value in task.values(clip, images, texts).items():
        yield f"{prefix}{task.split}/{kind}{metric}", value


class _Images:
    """The images of a split, each process with every n-th of them; their pixels are kept as long as there is room."""

    def __init__(
        self, source: Source, preprocess: PreprocessConfig, world: World, *, keep_bytes: int, batch_size: int = 64
    ) -> None:
        """keep_bytes: pixels are kept if all of them need no more; `kept_bytes` is what they need then, else 0."""
        self._source, self._preprocess, self._world, self._batch_size = source, preprocess, world, batch_size
        self._own = range(world.rank, len(source), world.size)
        height, width = preprocess.image_size
        needed = len(self._own) * 3 * height * width
        self.kept_bytes = needed if needed <= keep_bytes else 0
        self._pixels: list[Tensor | BrokenImage] = []

    def features(self, clip: Clip, precision: TowerPrecision) -> ImageFeatures:
        """Unit features of all images that can be read, equal in every process; precision: what is computed in."""
        own = torch.zeros(len(self._own), clip.image.embed_dim)
        good = torch.zeros(len(self._own), dtype=torch.bool)
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, len(self._own), self._batch_size):
                chunk = range(start, min(start + self._batch_size, len(self._own)))
                if self._pixels[start : chunk.stop]:
                    read = self._pixels[start : chunk.stop]
                else:
                    read = list(pool.map(self._read, (self._own[row] for row in chunk)))
                    if self.kept_bytes:
                        self._pixels += read
                rows = [row for row, one in zip(chunk, read, strict=True) if isinstance(one, Tensor)]
                if rows:
                    pixels = torch.stack([one for one in read if isinstance(one, Tensor)])
                    with precision(clip.logit_scale.device):
                        own[rows] = clip.encode_image(pixels, batch_size=self._batch_size).float().cpu()
                    good[rows] = True
        features = _gathered(own, len(self._source), self._world)  # [N, D]
        usable = _gathered(good.to(torch.uint8), len(self._source), self._world).bool()
        indices = usable.nonzero().flatten().tolist()
        if not indices:
            raise DataError(f"{self._source.name}: not one of its {len(self._source)} images can be read")
        labels, names = self._source.labels, list(self._source.keys)
        return ImageFeatures(
            features=features[usable],
            indices=tuple(indices),
            keys=tuple(names[index] for index in indices),
            labels=None if labels is None else torch.tensor([labels[index] for index in indices]),
            broken=(),
        )

    def _read(self, index: int) -> Tensor | BrokenImage:
        try:
            return evaluation_pixels(self._source.image_bytes(index), self._preprocess)  # [3, H, W] uint8
        except DataError as error:
            return BrokenImage(self._source.keys[index], str(error))


def _gathered(own: Tensor, total: int, world: World) -> Tensor:
    """[total, ...] on the CPU, from the rows that each process holds: row i of process r is row i * size + r of all."""
    if world.size == 1:
        return own
    rows = -(-total // world.size)
    padded = torch.zeros(rows, *own.shape[1:], dtype=own.dtype)
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(parts, padded, group=world.patient)  # one may take long for its share
    return torch.stack(parts, dim=1).flatten(0, 1)[:total]
