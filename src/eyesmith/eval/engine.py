"""Whatever a model is measured on: every set once, every text once, results on disk as each task ends."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.errors import ConfigError, DataError, EyesmithError
from eyesmith.eval.features.agreement import agreed
from eyesmith.eval.features.classifier import LogitTower
from eyesmith.eval.features.identity import WHY, content_hash, decoders, facts_hash, model_facts
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.features.precision import Precision
from eyesmith.eval.features.store import Stored
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.features.towers import Towers
from eyesmith.eval.kinds.kind import Answered, Asked
from eyesmith.eval.kinds.measurement import result_rows, with_sentences
from eyesmith.eval.kinds.registry import kind_of
from eyesmith.eval.results.formats import Format, write_formats, write_model_info
from eyesmith.eval.results.predictions import write_records
from eyesmith.eval.results.records import append_record, known_records
from eyesmith.eval.results.rows import ResultRow, append_rows, read_rows
from eyesmith.eval.results.task_result import TaskResult
from eyesmith.eval.sets.choice import chosen_suite
from eyesmith.eval.sets.job import Job
from eyesmith.eval.sets.made import choose_splits, split_tasks
from eyesmith.eval.sets.own import own_job
from eyesmith.eval.sets.part import part_of
from eyesmith.eval.sets.suite import Suite, aggregate
from eyesmith.eval.sets.task import Task
from eyesmith.eval.sets.wording import Wording, words_of
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import World
from eyesmith.writer import one_writer

RECORDS = "eval_results.jsonl"
ROWS = "results.jsonl"
SPLIT = "test"
_SHOWN = 4  # sets named in a note
_COSTS_ONE_SET = (EyesmithError, OSError, MemoryError, torch.OutOfMemoryError)

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Given what is encoded and how many images, a context whose value is told the images of each batch."""


class UnwrittenError(EyesmithError):
    """Everything was measured and not all of it could be written. results: what was measured."""

    def __init__(self, reason: OSError, results: Sequence[TaskResult]) -> None:
        where = "" if reason.filename is None else f"{os.fsdecode(reason.filename)}: "
        super().__init__(
            f"{where}measured, and not all of it written ({reason.strerror or reason}); choose another --out"
        )
        self.results = list(results)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is measured.

    batch_size, num_workers: of encoding images; decoding threads. precision: see `tower_precision`. wording: other
    class names or sentences. limit: only so many images (instances) of each set, spread over its classes. cache: a
    folder for image features and classifiers, which serve every later run of the same weights; None: nothing is kept.
    stored: the number format of features on disk. again: measure also what the folder of results has; fresh: use no
    kept features either. source: where the model comes from, label: what a user calls it, for result lines.
    max_broken_frac: of images that cannot be read. note: told, a line at a time, what a user should know. world:
    processes that share the images and texts; all of them get all results, the first one writes.
    """

    batch_size: int = 64
    num_workers: int = 4
    precision: Precision = "fp32"
    wording: Wording = field(default_factory=Wording)
    limit: int | None = None
    cache: str | os.PathLike[str] | None = None
    stored: Stored = "float32"
    again: bool = False
    fresh: bool = False
    source: str | None = None
    label: str | None = None
    max_broken_frac: float = 0.01
    note: Callable[[str], None] = lambda line: None
    progress: Progress | None = None
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit: expected at least 1, got {self.limit}")


def evaluate_suite(
    clip: Clip | LogitTower,
    suite_or_tasks: Suite | Sequence[Task],
    root: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None,
    model_name: str | None = None,
    formats: Sequence[Format] = (),
    settings: Settings | None = None,
) -> list[TaskResult]:
    """Measure `clip` on every task whose folder lies below `root`; one result a task, in the order of the tasks.

    out: a folder for `eval_results.jsonl` (the reference's format, a line as each task ends), `results.jsonl` (our
    lines, with 95 % intervals), `info.json` (the model) and `predictions/`; None: nothing is written. Tasks that are
    there already are not measured again, so a stopped run goes on, unless their data are others now, which is said;
    lines of another model, precision, wording or limit raise ConfigError, and so does a second process that writes
    there. formats: files of other evaluators to write beside.

    A set that is missing, or cannot be measured, does not stop the others: its result has a `problem`. Nor does a place
    that can no longer be written to: UnwrittenError has all results.
    """
    tasks = suite_or_tasks.tasks if isinstance(suite_or_tasks, Suite) else tuple(suite_or_tasks)
    main = suite_or_tasks.main_metric if isinstance(suite_or_tasks, Suite) else lambda task: task.metric
    run = _Run(clip, model_name, None if out is None else Path(out), settings or Settings())
    with run.alone():
        results = run.all([task_job(task, Path(root)) for task in tasks], main)
        if any(one.is_measured for one in results):
            run.write(
                lambda folder: (
                    write_model_info(folder, run.clip, name=run.model_name, precision=run.set.precision),
                    write_formats(folder, formats, results, note=run.note),
                )
            )
    run.check_written(results)
    return results


def evaluate_own(
    clip: Clip | LogitTower,
    path: str | os.PathLike[str],
    target: Path | None = None,
    *,
    model_name: str | None = None,
    settings: Settings | None = None,
) -> TaskResult:
    """Measure `clip` on a user's folder, table or caption test, under the key own:NAME (see `own_job`).

    target: what the result lines are added to, a .jsonl file, or a folder of results; None: nothing is written. Raises
    DataError for whatever would make the number meaningless.
    """
    is_file = target is not None and target.suffix == ".jsonl"
    settings = replace(settings or Settings(), again=True)
    run = _Run(clip, model_name, None if is_file else target, settings)
    with run.alone():
        (result,) = run.all([own_job(path, split=SPLIT)], lambda task: task.metric)
    if result.error is not None:
        raise result.error
    if not result.is_measured:
        raise EyesmithError(result.problem)
    if is_file and target is not None and settings.world.is_first:
        append_rows(target, result.rows)
    run.check_written([result])
    return result


def evaluate(
    clip: Clip | LogitTower,
    data: str | os.PathLike[str],
    splits: Sequence[str] | None = None,
    *,
    tasks: Sequence[str] = (),
    model_name: str | None = None,
    note: Callable[[str], None] | None = None,
    settings: Settings | None = None,
) -> list[ResultRow]:
    """Result rows of `clip` on a data set with splits: a made one, class folders, a table of pairs, tar shards.

    splits: all but "train" when None. tasks: keys, all that a split carries (see `split_tasks`) when empty. note:
    told about images that are left out (a warning when None). Raises DataError when the split or the data set does not
    exist, when too many images are broken, or when the data hold neither labels nor captions.
    """
    settings = settings or Settings(note=note or (lambda line: warnings.warn(line, stacklevel=4)))
    jobs = []
    for split in choose_splits(data, splits):
        found = split_tasks(data, split, max_missing_frac=settings.max_broken_frac)
        jobs += [
            Job(task=one.task, place=Path(data), split=one.split, open=lambda one=one: one.found)
            for one in found.tasks
            if not tasks or one.key in tasks
        ]
    results = _Run(clip, model_name, None, settings).all(jobs, lambda task: task.metric)
    for result in results:
        if result.error is not None:
            raise result.error
    return [row for result in results for row in result.rows]


def task_job(task: Task, root: Path) -> Job:
    """A published task whose set lies below `root`."""
    place = root / task.folder
    return Job(task=task, place=place, split=SPLIT, open=lambda: kind_of(task).open(task, place, SPLIT))


class SuiteEvaluator:
    """A suite, or tasks named with commas between them, as an evaluator of a training run.

    The sets lie below a folder. limit: only so many images of each, 0 for all. world: processes that share the work,
    and all call `run`. Raises ConfigError for an
    unknown name, DataError for a set that is not there: a curve must not change its meaning when a folder comes or
    goes.
    """

    def __init__(
        self,
        what: str,
        root: str | os.PathLike[str],
        *,
        limit: int = 0,
        num_workers: int = 4,
        world: World | None = None,
    ) -> None:
        self.suite, self.root = chosen_suite(what, root), Path(root)
        self._settings = Settings(limit=limit or None, num_workers=num_workers, world=world or World())
        lost = [task.name for task in self.suite.tasks if not (self.root / task.folder).exists()]
        if lost:
            raise DataError(f"{root}: lacks {len(lost)} sets of {what}: {', '.join(lost)}; fetch them, or name tasks")

    def run(self, clip: Clip) -> Iterator[tuple[str, float]]:
        """Yield (task/metric, value) of each task's main metric, then (suite/average, value).

        Raises what a set raised.
        """
        results = evaluate_suite(clip, self.suite, self.root, out=None, settings=self._settings)
        for result, task in zip(results, self.suite.tasks, strict=True):
            if result.error is not None:
                raise result.error
            if result.main_metric is not None:
                yield f"{result.key}/{self.suite.main_metric(task)}", result.main_metric
        values = {one.key: one.main_metric for one in results}
        for name, value in aggregate(self.suite, values, allow_missing=True).items():
            yield f"{self.suite.name}/{name}", value


class _Run:
    """One model on several jobs."""

    def __init__(self, clip: Clip | LogitTower, model_name: str | None, out: Path | None, settings: Settings) -> None:
        self.clip = cast(Clip, clip)  # a LogitTower offers what is asked of it here
        self.model_name, self.out, self.set = model_name or clip.config.name, out, settings
        self.note = settings.note if settings.world.is_first else (lambda _: None)
        self._progress = settings.progress if settings.world.is_first else None
        self._other_sizes: list[str] = []
        self._told: set[str] = set()
        names = ("precision", "cache", "stored", "batch_size", "num_workers", "max_broken_frac", "fresh", "world")
        self._towers = Towers(self.clip, **{name: getattr(settings, name) for name in names})
        self.facts: dict[str, Any] = {
            "model": self.model_name,
            "source": settings.source,
            "label": settings.label,
            **model_facts(clip, clip.preprocess),
            "decoders": decoders(),
            "precision": settings.precision,
            "wording": settings.wording.name,
            "limit": settings.limit,
        }
        self._unwritten: OSError | None = None

    def alone(self) -> AbstractContextManager[None]:
        """Only this run writes to its folder inside the block."""
        return nullcontext() if self.out is None else one_writer(self.out, once=self.set.world.once)

    def write(self, action: Callable[[Path], object]) -> None:
        """Let the first process write to the folder; where that fails once, nothing more is written, only measured."""
        if self.set.world.is_first and self.out is not None and self._unwritten is None:
            try:
                action(self.out)
            except OSError as error:
                self._unwritten = error
                self.note(f"{self.out}: cannot be written any more ({error.strerror or error}); measuring goes on")
        self.set.world.wait()

    def check_written(self, results: Sequence[TaskResult]) -> None:
        """Raise UnwrittenError, in all processes, where the first one could not write everything."""
        reason = self.set.world.once(lambda: self._unwritten)
        self.set.world.wait()  # the first process has told it to all: it may end
        if reason is not None:
            raise UnwrittenError(reason, results)

    def all(self, jobs: Sequence[Job], main: Callable[[Task], str | None]) -> list[TaskResult]:
        world = self.set.world
        records = world.once(self._known)
        results: dict[int, TaskResult] = {}
        kept: list[str] = []
        for place in sorted(
            range(len(jobs)), key=lambda place: jobs[place].task.folder
        ):  # one folder's follow each other
            job = jobs[place]
            key = job.task.key
            if key in records and not world.once(lambda job=job: self._has_changed(job, records)):
                results[place] = _kept(job.task, main(job.task), *records[key])
                kept.append(key)
                continue
            results[place] = self._one(job, main(job.task))
            problem = results[place].problem
            if problem and not results[place].is_missing:
                self.note(f"{job.task.name}: not measured: {problem}")
        if kept and self.out is not None:
            self.note(
                f"{len(kept)} of {len(jobs)} tasks were measured before and are taken from {self.out / RECORDS}, "
                f"because {WHY}; --fresh measures them again"
            )
        if line := self._towers.reused():
            self.note(line)
        if self._other_sizes:
            others = list(dict.fromkeys(self._other_sizes))
            more = len(others) - _SHOWN
            self.note(
                f"not comparable with published numbers, these sets are not the test sets: "
                f"{', '.join(others[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"
            )
        return [results[place] for place in range(len(jobs))]

    def _known(self) -> dict[str, tuple[dict[str, Any], tuple[ResultRow, ...]]]:
        """What an earlier run measured: records and their result lines, by task key."""
        if self.out is None or self.set.again or self.set.fresh:
            return {}
        records = known_records(self.out / RECORDS, self.facts)
        rows = read_rows(self.out / ROWS) if (self.out / ROWS).is_file() else []
        latest = {(row.task, row.split, row.metric): row for row in rows if _is_of(row, self.facts)}
        return {
            key: (record, tuple(row for (task, _, _), row in latest.items() if task == key))
            for key, record in records.items()
        }

    def _has_changed(self, job: Job, records: Mapping[str, tuple[dict[str, Any], Any]]) -> bool:
        """Whether a task was measured on other data than lie there now; false where none do."""
        run = records[job.task.key][0]["run"]
        if not job.place.exists():
            return False
        try:
            found = self._opened(job)
        except (EyesmithError, OSError):
            return True  # measuring it says what is wrong
        now = {"data": content_hash(found.source), "words": words_of(found), "code": job.task.code}
        now |= {name: self.facts[name] for name in ("decoders", "format", "architecture", "preprocess")}
        others = [name for name, value in now.items() if run.get(name) != value]
        if others:
            self.note(
                f"{job.task.name}: measured again: since it was measured, {', '.join(others)} changed (the data are in "
                f"{job.place})"
            )
        return bool(others)

    def _one(self, job: Job, main: str | None) -> TaskResult:
        task = job.task
        nothing: dict[str, Any] = {"key": task.key, "dataset": task.name, "metrics": {}, "main_metric": None}
        if not self.set.world.once(job.place.exists):
            return TaskResult(**nothing, problem=f"{job.place} is not there", is_missing=True)
        try:
            with agreed(self.set.world, _COSTS_ONE_SET):
                found = self._opened(job)
            images = self._images(task, found)
            with agreed(self.set.world, _COSTS_ONE_SET):
                answered, facts = self._answered(task, found, images)
                metrics = kind_of(task).metrics(task, answered.records)
        except _COSTS_ONE_SET as error:  # one bad set must not cost the others
            problem = str(error) or type(error).__name__
            return TaskResult(**nothing, problem=problem, error=error)
        value = metrics.get(main) if main is not None else None
        rows = tuple(
            result_rows(task, answered, split=job.split, model=self.model_name, main=main or task.metric, run=facts)
        )
        result = TaskResult(key=task.key, dataset=task.name, metrics=metrics, main_metric=value, rows=rows, facts=facts)
        self.write(
            lambda folder: (
                write_records(folder, task.key, answered.records, data=_samples(found)),
                append_rows(folder / ROWS, rows),
                append_record(folder / RECORDS, result, main=task.metric),  # last: it is what a restart goes by
            )
        )
        return result

    def _opened(self, job: Job) -> EvaluationSet:
        task, found = job.task, job.open()
        kind = kind_of(task)
        count = kind.size(found)
        if task.size is not None and count != task.size:
            self._other_sizes.append(f"{task.name} ({count:,} {kind.counted}, not {task.size:,})")
        elif task.num_classes is not None and found.classes and len(found.classes) != task.num_classes:
            self._other_sizes.append(f"{task.name} ({len(found.classes)} classes, not {task.num_classes})")
        found = self.set.wording.applied(task, with_sentences(task, found, self.clip))
        return found if self.set.limit is None else part_of(found, self.set.limit)

    def _answered(self, task: Task, found: EvaluationSet, images: ImageFeatures) -> tuple[Answered, dict[str, Any]]:
        half_images = kind_of(task).half_images
        for_image = self._towers.image_precision(half_images=half_images)
        if isinstance(self.clip, LogitTower):
            texts = cast(TextFeatures, self.clip.columns(task, found))
        else:
            texts = self._towers.texts()
        is_scaled = isinstance(self.clip, Clip) and not task.lines
        scale = float(self.clip.logit_scale.detach().float().exp()) if is_scaled else None
        asked = Asked(
            task=task,
            found=found,
            images=images,
            texts=texts,
            half=for_image.half,
            scale=scale,
            device=self.clip.logit_scale.device,
        )
        answered = kind_of(task).answer(asked)
        facts = self.facts | {
            "images": len(images.indices),
            "data": content_hash(found.source),
            "samples": _samples(found),
            "words": words_of(found),
            "code": task.code,
            "image_tower": for_image.name,
            "text_tower": self._towers.text_precision.name,
            "ties": "lowest index",
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        return answered, facts

    def _images(self, task: Task, found: EvaluationSet) -> ImageFeatures:
        half_images = kind_of(task).half_images
        with self._progress(task.name, len(found.source)) if self._progress else nullcontext() as advance:
            images = self._towers.images(found.source, half_images=half_images, advance=advance)
        left_out = [f"{one.key}: {one.reason}" for one in images.broken]
        left_out += [f"{one.key or one.where}: {one.detail}" for one in found.problems if one.severity == "error"]
        line = f"{found.name}: left out {len(left_out)} unusable samples; first: {left_out[0]}" if left_out else ""
        if line and line not in self._told:  # the tasks of one set share their images
            self._told.add(line)
            self.note(line)
        return images


def _samples(found: EvaluationSet) -> str:
    """A digest of what is asked, wherever it lies: of a caption test its items too, which no picture tells."""
    pictures = found.source.fingerprint()
    return facts_hash([pictures, words_of(found)]) if found.pairs or found.choices else pictures


def _is_of(row: ResultRow, facts: Mapping[str, Any]) -> bool:
    """Whether a line is of the model that is measured; lines of before have only its name."""
    return row.model == facts["model"] if row.run is None else row.run.get("weights") == facts["weights"]


def _kept(task: Task, main: str | None, record: dict[str, Any], rows: tuple[ResultRow, ...]) -> TaskResult:
    metrics = {name: value for name, value in record["metrics"].items() if name != "main_metric"}
    value = metrics.get(main) if main is not None else None
    return TaskResult(
        key=task.key, dataset=task.name, metrics=metrics, main_metric=value, rows=rows, facts=record.get("run")
    )
