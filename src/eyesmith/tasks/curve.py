"""Splits measured again and again while a model trains: images decoded once, encoded once for all tasks.

Each process encodes its share of the images and texts, so that a measurement stalls a run as little as it can.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.eval import (
    ImageFeatures,
    Measurement,
    SplitTasks,
    SuiteEvaluator,
    TextFeatures,
    choose_splits,
    split_tasks,
)
from eyesmith.eval.features.batches import PixelBatch, pixel_batches
from eyesmith.eval.features.images import answers, gathered_features, own_rows
from eyesmith.eval.features.precision import TowerPrecision
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.clip import Clip
from eyesmith.tasks.task import Evaluator
from eyesmith.train.config import EvalConfig
from eyesmith.train.distributed import World

KEEP_BYTES = 1 << 30  # decoded pixels of all splits that a process keeps between measurements
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Tasks that share their images. prefix: of the names of their values."""

    prefix: str
    images: "_Images"
    tasks: tuple[Measurement, ...]


def curve_sets(config: EvalConfig) -> list[tuple[str, SplitTasks]]:
    """Every split that `curve_data` asks for, opened, with the path of its set. Raises DataError, naming the field, for
    a set that is not there or can carry no task: better before the training than after.
    """
    try:
        return [(path, split_tasks(path, split)) for path in config.curve_data for split in choose_splits(path)]
    except DataError as error:
        raise DataError(f"eval.curve_data: {error}") from error


class Curve:
    """Measures an image-text model on the same splits each time: values by SPLIT/METRIC. True if there are any."""

    def __init__(
        self,
        data: str,
        config: EvalConfig,
        *,
        preprocess: PreprocessConfig,
        precision: TowerPrecision,
        evaluators: Sequence[Evaluator],
        world: World,
    ) -> None:
        """config: says which splits of `data`, further sets, as SET:SPLIT, and suites are measured, and by what.
        evaluators: a caller's own; they run in the first process. precision: what the towers compute in. Raises
        DataError for a split that is not there or can carry no task.
        """
        self._tasks, self._preprocess, self._world = config.curve_tasks, preprocess, world
        self._precision = precision
        self._room_bytes = KEEP_BYTES
        self._splits = [self._split(data, split_tasks(data, split), "") for split in config.curve_splits]
        self._splits += [self._split(path, found, f"{Path(path).name}:") for path, found in curve_sets(config)]
        self._suites = [
            SuiteEvaluator(name, config.suite_data, limit=config.suite_limit, world=world) for name in config.suites
        ]
        self._evaluators = tuple(evaluators)
        self._texts: TextFeatures | None = None

    def __bool__(self) -> bool:
        return bool(self._splits or self._suites or self._evaluators)

    def measure(self, clip: Clip) -> dict[str, float]:
        """The values of `clip`; every process must call it, and gets the same."""
        if self._texts is None or not self._texts.is_current(clip):
            self._texts = TextFeatures(clip, precision=self._precision, world=self._world)
        texts, found = self._texts, {}
        for split in self._splits:
            images = split.images.features(clip, self._precision)
            for task in split.tasks:
                found.update(_values(task, split.prefix, clip, images, texts))
        for suite in self._suites:
            found.update(suite.run(clip))
        own = lambda: {name: value for one in self._evaluators for name, value in one.run(clip)}  # noqa: E731
        return found | (self._world.once(own) if self._evaluators else {})

    def _split(self, path: str, found: SplitTasks, prefix: str) -> _Split:
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
    """The images of a split, each process with its share of them; their pixels are kept as long as there is room."""

    def __init__(self, source: Source, preprocess: PreprocessConfig, world: World, *, keep_bytes: int) -> None:
        """keep_bytes: pixels are kept if all of them need no more; `kept_bytes` is what they need then, else 0."""
        self._source, self._preprocess, self._world = source, preprocess, world
        self._own = own_rows(len(source), _BATCH, world)
        height, width = preprocess.image_size
        needed = len(self._own) * 3 * height * width
        self.kept_bytes = needed if needed <= keep_bytes else 0
        self._kept: list[PixelBatch] | None = None

    def features(self, clip: Clip, precision: TowerPrecision) -> ImageFeatures:
        """Unit features of all images that can be read, equal in every process; precision: what is computed in."""

        def encode(pixels: Tensor) -> Tensor:
            with precision(clip.logit_scale.device):
                return clip.encode_image(pixels, batch_size=_BATCH).float()

        found = answers(self._source, self._batches(), encode, world=self._world, max_broken_frac=1.0)
        return gathered_features(self._source, found.rows, found.indices, ())

    def _batches(self) -> Iterator[PixelBatch]:
        if self._kept is not None:
            yield from self._kept
            return
        read = []
        for batch in pixel_batches(self._source, self._preprocess, self._own, batch_size=_BATCH, num_workers=4):
            if self.kept_bytes:
                read.append(batch)
            yield batch
        self._kept = read if self.kept_bytes else None
