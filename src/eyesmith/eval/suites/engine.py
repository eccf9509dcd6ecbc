"""A whole suite on one model: every set once, every text once, results on disk as each task ends."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.errors import ConfigError, EyesmithError
from eyesmith.eval.classifier_suite import LogitTower
from eyesmith.eval.feature_store import FeatureStore, Stored, module_hash
from eyesmith.eval.precision import Precision, tower_precision
from eyesmith.eval.results import ResultRow, append_rows, read_rows
from eyesmith.eval.suites.formats import Format, write_formats, write_model_info
from eyesmith.eval.suites.measure import Measured, measure
from eyesmith.eval.suites.part import first_of
from eyesmith.eval.suites.records import append_record, known_records
from eyesmith.eval.suites.result import TaskResult, write_arrays
from eyesmith.eval.suites.wording import Wording, words_of
from eyesmith.eval.tasks import TASKS, Suite, Task
from eyesmith.eval.text_features import TextFeatures
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import World

RECORDS = "eval_results.jsonl"
ROWS = "results.jsonl"
SPLIT = "test"
_SHOWN = 4  # sets named in a note

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Given what is encoded and how many images, a context whose value is told the images of each batch."""


def evaluate_suite(
    clip: Clip | LogitTower,
    suite_or_tasks: Suite | Sequence[Task],
    root: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None,
    model_name: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    stored: Stored = "float32",
    batch_size: int = 64,
    num_workers: int = 4,
    precision: Precision = "fp32",
    wording: Wording | None = None,
    formats: Sequence[Format] = (),
    limit: int | None = None,
    again: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    world: World | None = None,
) -> list[TaskResult]:
    """Measure `clip` on every task whose folder lies below `root`; one result a task, in the order of the tasks.

    out: a folder for `eval_results.jsonl` (the reference's format, a line as each task ends), `results.jsonl` (our
    lines, with 95 % intervals), `info.json` (the model) and `predictions/`; None: nothing is written. Tasks that are
    there already are not measured again, so a stopped run goes on, unless their data are others now, which is said;
    lines of another model, precision, wording or limit raise ConfigError. formats: files of other evaluators to write
    beside. wording: other class names or sentences. cache: a
    folder for image features and classifiers, which serve every later run of the same weights; None: nothing is kept.
    stored: the number format of features on disk. precision: see `tower_precision`. limit: only the first so many
    images (instances) of each set, to try things out. again: measure also what is in `out` already. note: told, a
    line at a time, what a user should know. world: processes that share the images and texts; all of them get all
    results, the first one writes.

    A set that is missing, or cannot be measured, does not stop the others: its result has a `problem`.
    """
    run = _Run(
        clip,
        Path(root),
        None if out is None else Path(out),
        model_name=model_name or clip.config.name,
        cache=None if cache is None else Path(cache),
        stored=stored,
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
        wording=wording or Wording(),
        limit=limit,
        again=again,
        note=note or (lambda _: None),
        progress=progress,
        world=world or World(),
    )
    tasks = suite_or_tasks.tasks if isinstance(suite_or_tasks, Suite) else tuple(suite_or_tasks)
    main = suite_or_tasks.main_metric if isinstance(suite_or_tasks, Suite) else lambda task: task.metric
    results = run.all(tasks, main)
    if out is not None and run.world.is_first and any(one.is_measured for one in results):
        write_model_info(Path(out), run.clip, name=run.model_name, precision=precision)
        write_formats(Path(out), formats, results, note=run.note)
    run.world.wait()
    return results


class _Run:
    def __init__(
        self,
        clip: Clip | LogitTower,
        root: Path,
        out: Path | None,
        *,
        model_name: str,
        cache: Path | None,
        stored: Stored,
        batch_size: int,
        num_workers: int,
        precision: Precision,
        wording: Wording,
        limit: int | None,
        again: bool,
        note: Callable[[str], None],
        progress: Progress | None,
        world: World,
    ) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"limit: expected at least 1, got {limit}")
        self.clip = cast(Clip, clip)  # a LogitTower offers what is asked of it here
        self.root, self.out, self.world = root, out, world
        self.model_name, self.limit = model_name, limit
        self.precision: Precision = precision
        self._wording = wording
        self._again = again
        self._other_sizes: list[str] = []
        self.note = note if world.is_first else (lambda _: None)
        self.progress = progress if world.is_first else None
        self._cache = cache
        self._stored: Stored = stored
        self._batch_size, self._num_workers = batch_size, num_workers
        self._stores: dict[str, FeatureStore] = {}
        self._texts: dict[str, TextFeatures] = {}
        self.facts: dict[str, Any] = {
            "model": model_name,
            "weights": module_hash(clip),
            "precision": precision,
            "wording": wording.name,
            "limit": limit,
        }

    def all(self, tasks: Sequence[Task], main: Callable[[Task], str | None]) -> list[TaskResult]:
        records = self.world.once(self._known)
        results: dict[str, TaskResult] = {}
        kept: list[str] = []
        for task in sorted(tasks, key=lambda one: one.folder):  # tasks of one folder follow each other
            if task.key in records and not self.world.once(lambda task=task: self._has_changed(task, records)):
                results[task.key] = _kept(task, main(task), *records[task.key])
                kept.append(task.key)
                continue
            results[task.key] = self._one(task, main(task))
            problem = results[task.key].problem
            if problem and not results[task.key].is_missing:
                self.note(f"{task.name}: not measured: {problem}")
        if kept and self.out is not None:
            self.note(f"{len(kept)} of {len(tasks)} tasks were measured before and are taken from {self.out / RECORDS}")
        if self._other_sizes:
            others = list(dict.fromkeys(self._other_sizes))
            more = len(others) - _SHOWN
            self.note(
                f"not comparable with published numbers, these sets are not the test sets: "
                f"{', '.join(others[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"
            )
        return [results[task.key] for task in tasks]

    def _known(self) -> dict[str, tuple[dict[str, Any], tuple[ResultRow, ...]]]:
        """What an earlier run measured: records and their result lines, by task key."""
        if self.out is None or self._again:
            return {}
        records = known_records(self.out / RECORDS, self.facts)
        rows = read_rows(self.out / ROWS) if (self.out / ROWS).is_file() else []
        latest = {(row.task, row.metric): row for row in rows if row.model == self.model_name}
        return {
            key: (record, tuple(row for (task, _), row in latest.items() if task == key))
            for key, record in records.items()
        }

    def _has_changed(self, task: Task, records: Mapping[str, tuple[dict[str, Any], Any]]) -> bool:
        """Whether a task was measured on other data than lie there now; false where none do."""
        place, run = self.root / task.folder, records[task.key][0]["run"]
        if not place.exists():
            return False
        try:
            found = self._opened(task, place)
        except (EyesmithError, OSError):
            return True  # measuring it says what is wrong
        is_same = run.get("data") == found.source.fingerprint() and run.get("words") in (None, words_of(found))
        if not is_same:
            self.note(f"{task.name}: measured before on other data than {place} holds now; measured again")
        return not is_same

    def _one(self, task: Task, main: str | None) -> TaskResult:
        place = self.root / task.folder
        nothing: dict[str, Any] = {"key": task.key, "dataset": task.name, "metrics": {}, "main_metric": None}
        if not place.exists():
            return TaskResult(**nothing, problem=f"{place} is not there", is_missing=True)
        try:
            found = self._opened(task, place)
            measured, facts = self._measured(task, found)
        except (EyesmithError, OSError) as error:  # one bad set must not cost the others
            return TaskResult(**nothing, problem=str(error), error=error)
        value = measured.metrics.get(main) if main is not None else None
        rows = self._rows(task, main, measured)
        result = TaskResult(
            key=task.key, dataset=task.name, metrics=measured.metrics, main_metric=value, rows=rows, facts=facts
        )
        if self.world.is_first and self.out is not None:
            write_arrays(self.out, task.key, measured.arrays)
            append_rows(self.out / ROWS, rows)
            append_record(self.out / RECORDS, result, main=task.metric)  # last: it is what a restart goes by
        self.world.wait()
        return result

    def _opened(self, task: Task, place: Path) -> EvaluationSet:
        found = open_evaluation_set(
            place, layout=task.layout, split=SPLIT, prompts=task.prompts, class_list=task.class_list
        )
        count = len(found.instances) if task.layout == "winogavil" else len(found)
        if task.size is not None and count != task.size:
            what = "instances" if task.layout == "winogavil" else "images"
            self._other_sizes.append(f"{task.name} ({count:,} {what}, not {task.size:,})")
        elif task.num_classes is not None and found.classes and len(found.classes) != task.num_classes:
            self._other_sizes.append(f"{task.name} ({len(found.classes)} classes, not {task.num_classes})")
        if found.classes and not found.templates and task.key not in TASKS:  # a user's own: the model's sentences
            found = replace(found, templates=tuple(self.clip.prompts))
        found = self._wording.applied(task, found)
        return found if self.limit is None else first_of(found, self.limit)

    def _measured(self, task: Task, found: EvaluationSet) -> tuple[Measured, dict[str, Any]]:
        device = self.clip.logit_scale.device
        for_text = tower_precision(self.precision, "text", task.layout, device)
        for_image = tower_precision(self.precision, "image", task.layout, device)
        store = self._stores.setdefault(for_image.name, self._store(task))
        if isinstance(self.clip, LogitTower):
            texts: TextFeatures = cast(TextFeatures, self.clip.columns(task, found))
        else:
            texts = self._texts.setdefault(for_text.name, self._text_features(task))
        count = len(found.source)
        with self.progress(task.name, count) if self.progress else nullcontext() as advance:
            images = store(found.source, advance=advance)
        if images.broken:
            first = images.broken[0]
            self.note(
                f"{task.name}: left out {len(images.broken)} unreadable images; first: {first.key}: {first.reason}"
            )
        scale = float(self.clip.logit_scale.detach().float().exp()) if isinstance(self.clip, Clip) else None
        measured = measure(task, found, images, texts, similarity_precision=for_image, scale=scale)
        facts = self.facts | {
            "images": len(images.indices),
            "data": found.source.fingerprint(),
            "words": words_of(found),
            "image_tower": for_image.name,
            "text_tower": for_text.name,
            "ties": "lowest index",
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        return measured, facts

    def _store(self, task: Task) -> FeatureStore:
        return FeatureStore(
            self.clip,
            None if self._cache is None else self._cache / "images",
            stored=self._stored,
            precision=tower_precision(self.precision, "image", task.layout, self.clip.logit_scale.device),
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            world=self.world,
        )

    def _text_features(self, task: Task) -> TextFeatures:
        return TextFeatures(
            self.clip,
            precision=tower_precision(self.precision, "text", task.layout, self.clip.logit_scale.device),
            folder=None if self._cache is None else self._cache / "texts",
            world=self.world,
        )

    def _rows(self, task: Task, main: str | None, measured: Measured) -> tuple[ResultRow, ...]:
        rows = []
        for metric, (low, high, count) in measured.spans.items():
            value = measured.metrics[metric]
            if value is None:
                continue
            chance = task.chance if metric in (main, task.metric) else None
            rows.append(
                ResultRow(
                    model=self.model_name,
                    task=task.key,
                    split=SPLIT,
                    metric=metric,
                    value=value,
                    low=min(low, value),
                    high=max(high, value),
                    n=count,
                    chance=chance,
                )
            )
        rows += [
            ResultRow(
                model=self.model_name,
                task=task.key,
                split=SPLIT,
                metric=name,
                value=value,
                low=None,
                high=None,
                n=n,
                chance=None,
            )
            for name, (value, n) in measured.more.items()
        ]
        return tuple(rows)


def _kept(task: Task, main: str | None, record: dict[str, Any], rows: tuple[ResultRow, ...]) -> TaskResult:
    metrics = {name: value for name, value in record["metrics"].items() if name != "main_metric"}
    value = metrics.get(main) if main is not None else None
    return TaskResult(
        key=task.key, dataset=task.name, metrics=metrics, main_metric=value, rows=rows, facts=record.get("run")
    )


def missing_names(results: Iterable[TaskResult]) -> list[str]:
    """Shown names of the tasks without a number, for a report of what is not averaged."""
    return [result.dataset for result in results if not result.is_measured]
