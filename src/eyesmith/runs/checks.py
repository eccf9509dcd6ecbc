"""Checks while training: what the weights of a moment reach, in the log, and the best weights kept as a model.

A check stalls the run as little as it can: images are encoded once for all tasks, each process encodes its share of
them (and of the texts, unless the text tower is locked and its features are known), and decoded pixels are kept in
memory between checks. The averaged weights are measured where a run keeps them.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eyesmith.config import closest
from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import (
    BrokenImage,
    ImageFeatures,
    Measurement,
    SuiteEvaluator,
    TextFeatures,
    choose_splits,
    current_name,
    split_tasks,
)
from eyesmith.files import write_json
from eyesmith.hub import save_model
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.clip import Clip
from eyesmith.train.config import TrainConfig
from eyesmith.train.distributed import World
from eyesmith.train.readings import StepFacts
from eyesmith.train.state import TrainState

BEST_FOLDER = "best"
BEST_FILE = "best.json"
KEEP_BYTES = 1 << 30  # decoded pixels of all splits that a process keeps between checks


class Evaluator(Protocol):
    """Measures a model. A `Measurement` is an evaluator; one of your own needs this method only."""

    def run(self, clip: Clip) -> Iterable[tuple[str, float]]:
        """Names and fractions; higher is better."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Tasks that share their images. prefix: of the names in the log."""

    prefix: str
    images: "_Images"
    tasks: tuple[Measurement, ...]


class Checks:
    """A hook that measures every n-th step and the last, writes a line `{"step", "time_s", "check_s", "eval"}`, and
    keeps the best weights in RUN/best.

    Use it in every process of a run. evaluators: beside those of eval.suites; all run in the first process.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        *,
        steps_per_epoch: int,
        description: dict[str, Any],
        write: Callable[[dict[str, Any]], None],
        evaluators: Sequence[Evaluator] = (),
        world: World | None = None,
    ) -> None:
        """description: for config.json of the best weights. write: adds a line to the log; called in the first process.

        Raises DataError for a split that is not there or can carry no task, ConfigError for an unknown eval.keep_best
        at the first check.
        """
        self._config, self._folder, self._description = config, folder, description
        self._write, self._world = write, world or World()
        self._room_bytes = KEEP_BYTES
        settings = config.eval
        self._every = settings.every_steps or max(1, round(settings.every_epochs * steps_per_epoch))
        self._splits = [
            *(self._split(config.data.path, split, "") for split in settings.curve_splits),
            *(
                self._split(path, split, f"{Path(path).name}:")
                for path in settings.curve_data
                for split in choose_splits(path)
            ),
        ]
        suites = (SuiteEvaluator(name, settings.suite_data, limit=settings.suite_limit) for name in settings.suites)
        self._evaluators = (*suites, *evaluators)
        self._texts: TextFeatures | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self._splits or self._evaluators)

    def _split(self, path: str, split: str | None, prefix: str) -> _Split:
        found = split_tasks(path, split)
        wanted = self._config.eval.curve_tasks
        tasks = tuple(task for task in found.tasks if task.key in wanted)
        if not tasks:
            has = ", ".join(task.key for task in found.tasks)
            raise DataError(
                f"{path}: split {found.split!r} cannot carry {', '.join(wanted)} (eval.curve_tasks), but {has}"
            )
        images = _Images(found.source, self._config.model.preprocess, self._world, keep_bytes=self._room_bytes)
        self._room_bytes -= images.kept_bytes
        return _Split(prefix=prefix, images=images, tasks=tasks)

    def __call__(self, state: TrainState, facts: StepFacts) -> None:
        if facts.step % self._every and not facts.is_last:
            return
        device = next(state.model.parameters()).device
        description, bias = self._description, state.extra.get("logit_bias")
        check(
            state,
            facts,
            measure=lambda model: self._measure(cast(Clip, model).to(device)),
            everywhere=True,
            keep=self._config.eval.keep_best,
            folder=self._folder,
            save=lambda new, model: save_model(new, cast(Clip, model), config=description, logit_bias=bias),
            write=self._write,
        )

    def _measure(self, clip: Clip) -> dict[str, float]:
        if self._texts is None or not self._texts.is_current(clip):
            self._texts = TextFeatures(clip, world=None if clip.config.lock_text else self._world)
        texts, found = self._texts, {}
        for split in self._splits:
            images = split.images.features(clip)

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


class CurveRun(Protocol):
    """A run that is measured on splits of its own data: by the first process, while the others wait."""

    @property
    def folder(self) -> Path: ...

    @property
    def keep_best(self) -> str:
        """The value whose best weights are kept, `first` or `none`; see EvalConfig."""
        ...

    def measured_on_curve(self, model: Any) -> dict[str, float]:
        """Value by SPLIT/METRIC; `model` is whole and in the state's average."""
        ...

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None: ...


class CurveChecks:
    """A hook that measures a `CurveRun` every n-th step and the last, and keeps its best weights in RUN/best."""

    def __init__(
        self, run: CurveRun, every: int, description: dict[str, Any], write: Callable[[dict[str, Any]], None]
    ) -> None:
        self._run, self._every, self._description, self._write = run, every, description, write

    def __call__(self, state: TrainState, facts: StepFacts) -> None:
        if facts.step % self._every and not facts.is_last:
            return
        run, description = self._run, self._description
        check(
            state,
            facts,
            measure=lambda model: state.world.once(lambda: run.measured_on_curve(model)),
            keep=run.keep_best,
            folder=run.folder,
            save=lambda new, model: run.save(new, model, config=description),
            write=self._write,
        )


def check(
    state: TrainState,
    facts: StepFacts,
    *,
    measure: Callable[[nn.Module | None], dict[str, float]],
    keep: str,
    folder: Path,
    save: Callable[[Path, nn.Module], None],
    write: Callable[[dict[str, Any]], None],
    everywhere: bool = False,
) -> None:
    """Measure the averaged weights, replace `folder`/best where they are better, and write a line of the log.

    measure: called in every process, with the model in the first or `everywhere`; the rest is done by the first. keep:
    as `EvalConfig.keep_best`; ConfigError when it is not among what was measured.
    """
    start = time.perf_counter()
    state.confirm()
    with state.averaged():
        model = state.whole_model(everywhere=everywhere)
        found = measure(model)
        if not state.world.is_first or model is None:
            return
        if keep != "none" and found:
            name = next(iter(found)) if keep == "first" else current_name(keep)
            if name not in found:
                raise ConfigError(f"eval.keep_best: {name!r} is not measured{closest(name, [*found, 'first', 'none'])}")
            if is_better(folder, name, found[name]):
                replace_best(
                    folder, lambda new: save(new, model), {"step": facts.step, "name": name, "value": found[name]}
                )
    write(
        {
            "step": facts.step,
            "time_s": round(state.elapsed_s, 2),
            "check_s": round(time.perf_counter() - start, 2),
            "eval": {name: round(value, 5) for name, value in found.items()},
        }
    )


def read_best(folder: Path) -> dict[str, Any] | None:
    """step, name and value of the best weights of a run; None where none are kept."""
    path = folder / BEST_FOLDER / BEST_FILE
    try:
        best = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {**best, "name": current_name(best["name"])}


def is_better(folder: Path, name: str, value: float) -> bool:
    """Whether a value beats that of the best weights of a run; so does any where they were chosen by another one."""
    best = read_best(folder)
    return best is None or best["name"] != name or value > best["value"]


def replace_best(folder: Path, save: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """Let `save` write `folder`/best, with `facts` beside it; it is replaced in one move.

    A kill between the two renames leaves the older model in `folder`/.best.old and no best/; the next check that is
    better, or equal after a resume, makes it again.
    """
    new, old = folder / f".{BEST_FOLDER}.new", folder / f".{BEST_FOLDER}.old"
    shutil.rmtree(new, ignore_errors=True)
    save(new)
    write_json(new / BEST_FILE, facts)
    shutil.rmtree(old, ignore_errors=True)
    best = folder / BEST_FOLDER
    if best.exists():
        os.rename(best, old)
    os.rename(new, best)
    shutil.rmtree(old, ignore_errors=True)


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

    def features(self, clip: Clip) -> ImageFeatures:
        """Unit features of all images that can be read, equal in every process."""
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
    dist.all_gather(parts, padded, group=world.patient)  # one may measure for long before another
    return torch.stack(parts, dim=1).flatten(0, 1)[:total]
