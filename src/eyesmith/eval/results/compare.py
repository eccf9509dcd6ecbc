"""Two models on the tasks they were both measured on, from their prediction files: paired, with significance."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eyesmith.errors import DataError
from eyesmith.eval.kinds.kind import PairedValues
from eyesmith.eval.kinds.registry import KINDS
from eyesmith.eval.results.models import ModelResults
from eyesmith.eval.results.predictions import (
    TaskPredictions,
    choose_tasks,
    file_name,
    prediction_files,
    read_predictions,
)
from eyesmith.eval.results.reading import read_result
from eyesmith.eval.sets.registry import TASKS
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import Codes, Interval, Over, evaluate_metric, mean, percentiles, resampled
from eyesmith.eval.statistics.paired import Paired, compare_paired, holm

MetricName = Literal[
    "main", "acc1", "acc5", "mean_per_class_recall", "f1_macro", "worst_group_acc1", "worst_group_acc5"
]
OTHER_SET = "not the same set: sizes of pictures, texts or labels differ"
_ROUNDS = 2000  # of a permutation test: p down to 0.0005, so that 40 tasks can still be told apart after adjustment


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """One task. result: right minus left; p_holm: its p-value adjusted for all tasks compared.

    left_out: samples that only one of the two has (an image that could not be read). note: what a reader must know.
    """

    task: str
    metric: str
    result: Paired
    p_holm: float
    left_out: int
    note: str

    @property
    def is_significant(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.p_holm < 0.05


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """All tasks compared. average: mean over them of right minus left, its interval from resampling inside each task
    (how well these tasks were measured, not how another choice of tasks would come out). missing: tasks of one side
    alone, as (task, "left" or "right"). without: tasks of both without a metric to compare. left, right: what the two
    are called, as in a leaderboard; is_same_model: both folders say that they are of the same weights."""

    left: str
    right: str
    is_same_model: bool
    tasks: tuple[TaskComparison, ...]
    average: Interval
    missing: tuple[tuple[str, str], ...]
    without: tuple[str, ...]


def compare_folders(
    left: str | os.PathLike[str],
    right: str | os.PathLike[str],
    *,
    tasks: Sequence[str] = (),
    metric: MetricName = "main",
    over: Over = "samples",
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> ModelComparison:
    """Compare the models whose evaluations wrote the folders `left` and `right`: right minus left.

    tasks: keys; all that both have when empty. metric: "main" is each task's own where the files hold what it
    needs, else the nearest, with a note; any other is for classification alone. Samples are matched by key; those of
    one side alone are left out and counted. over: as of `bootstrap_interval`; "classes" asks whether the difference
    would hold for other classes of the kind. Raises DataError for a task that is not there, when no task is common, and
    when the two were measured on different data (a sample with another right class, no common sample).
    """
    files = prediction_files(left), prediction_files(right)
    wanted = list(tasks) or [name for name in files[0] if name in files[1]]
    if not wanted:
        raise DataError(
            f"{left} and {right} have no task in common; the first has {', '.join(files[0])}, "
            f"the second {', '.join(files[1])}"
        )
    one = choose_tasks(files[0], wanted, where=str(left))
    other = choose_tasks(files[1], wanted, where=str(right))
    read = {name: _paired(read_predictions(one[name]), read_predictions(other[name]), metric) for name in one}
    found = {name: item for name, item in read.items() if item is not None}
    if not found:
        raise DataError(f"{', '.join(read)}: has no main metric, so there is nothing to compare")
    results = [
        compare_paired(
            item.left,
            item.right,
            metric=item.metric,
            groups=_groups(name, item, over),
            over=over,
            replicates=replicates,
            rounds=_ROUNDS,
            seed=seed,
            level=level,
        )
        for name, item in found.items()
    ]
    adjusted = holm([result.p for result in results])
    sides = [(name, "left") for name in files[0] if name not in files[1]]
    sides += [(name, "right") for name in files[1] if name not in files[0]]
    named = [_named(folder) for folder in (left, right)]
    lines = [one.line if one else str(folder) for one, folder in zip(named, (left, right), strict=True)]
    identities = [one.identity if one else "" for one in named]
    if lines[0] == lines[1]:
        lines = [str(left), str(right)]
    return ModelComparison(
        left=lines[0],
        right=lines[1],
        is_same_model=bool(identities[0]) and identities[0] == identities[1],
        tasks=tuple(
            TaskComparison(
                task=_key(name),
                metric=item.name,
                result=result,
                p_holm=p,
                left_out=item.left_out,
                note=item.note,
            )
            for (name, item), result, p in zip(found.items(), results, adjusted, strict=True)
        ),
        average=_average(found, over=over, replicates=replicates, seed=seed, level=level),
        missing=() if tasks else tuple(sides),
        without=tuple(name for name, item in read.items() if item is None),
    )


def _named(folder: str | os.PathLike[str]) -> ModelResults | None:
    """The model of a folder of results; None where the folder does not say, or holds several."""
    try:
        found = read_result(folder)
    except DataError:
        return None
    return found[0] if len(found) == 1 else None


def _paired(one: TaskPredictions, other: TaskPredictions, metric: MetricName) -> PairedValues | None:
    where = f"{one.where} and {other.where}"
    if one.kind != other.kind:
        raise DataError(f"{where}: are files of different tasks ({one.kind}, {other.kind})")
    is_other = bool(one.data and other.data) and one.data != other.data
    if is_other and not one.keys:  # nothing says which sample is which
        raise DataError(f"{where}: were measured on different data, and their samples have no keys to match them by")
    kind = KINDS[one.kind]
    if metric != "main" and "ranks" not in kind.arrays:
        raise DataError(f"{one.where}: {metric} is a metric of classification, and this task is {one.kind}; use main")
    try:
        found = kind.paired(_task(one.task), one.records, other.records, metric)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if found is None or not is_other:
        return found
    return replace(found, note="; ".join([*([found.note] if found.note else []), OTHER_SET]))


def _task(name: str) -> Task | None:
    return next((task for key, task in TASKS.items() if file_name(key) == name), None)


def _key(name: str) -> str:
    task = _task(name)
    return name if task is None else task.key


def _groups(name: str, item: PairedValues, over: Over) -> Codes | None:
    if over == "classes":
        if item.groups is None:
            raise DataError(f"{name}: has no classes to resample; choose other tasks, or resample over samples")
        return item.groups
    # a plain mean needs no groups, and fewer kinds of samples make its resampling faster
    return None if item.metric is mean else item.groups


def _average(found: dict[str, PairedValues], *, over: Over, replicates: int, seed: int, level: float) -> Interval:
    values, drawn = [], []
    for number, (name, item) in enumerate(found.items()):
        pair, groups = np.stack([item.left, item.right], axis=1), _groups(name, item, over)
        before, after = evaluate_metric(pair, item.metric, groups)
        values.append(float(after - before))
        # another seed for each task, because tasks are independent
        rows = resampled(
            pair, metric=item.metric, groups=groups, over=over, replicates=replicates, seed=seed + 1000 * number
        )
        drawn.append(rows[:, 1] - rows[:, 0])
    low, high = percentiles(np.mean(drawn, axis=0), level)
    return Interval(float(np.mean(values)), low, high)
