"""Two models on the tasks they were both measured on, from their prediction files: paired, with significance."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eyesmith.errors import DataError
from eyesmith.eval.statistics.answers import Answers, MetricName, answers
from eyesmith.eval.statistics.bootstrap import Codes, Interval, Over, evaluate_metric, mean, percentiles, resampled
from eyesmith.eval.statistics.paired import Paired, compare_paired, holm
from eyesmith.eval.statistics.prediction_files import choose_tasks, prediction_files, read_predictions

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
    alone, as (task, "left" or "right"). without: tasks of both without a metric to compare."""

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

    tasks: keys; all that both have when empty. metric: see `answers`. Samples are matched by key; those of one side
    alone are left out and counted. over: as of `bootstrap_interval`; "classes" asks whether the difference would hold
    for other classes of the kind. Raises DataError for a task that is not there, when no task is common, and when the
    two were measured on different data (a sample with another right class, no common sample).
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
    read = {name: answers(read_predictions(one[name]), read_predictions(other[name]), metric=metric) for name in one}
    found = [item for item in read.values() if item is not None]
    if not found:
        raise DataError(f"{', '.join(read)}: has no main metric, so there is nothing to compare")
    results = [
        compare_paired(
            item.left,
            item.right,
            metric=item.metric,
            groups=_groups(item, over),
            over=over,
            replicates=replicates,
            rounds=_ROUNDS,
            seed=seed,
            level=level,
        )
        for item in found
    ]
    adjusted = holm([result.p for result in results])
    sides = [(name, "left") for name in files[0] if name not in files[1]]
    sides += [(name, "right") for name in files[1] if name not in files[0]]
    return ModelComparison(
        tasks=tuple(
            TaskComparison(
                task=item.task,
                metric=item.metric_name,
                result=result,
                p_holm=p,
                left_out=item.left_out,
                note=item.note,
            )
            for item, result, p in zip(found, results, adjusted, strict=True)
        ),
        average=_average(found, over=over, replicates=replicates, seed=seed, level=level),
        missing=() if tasks else tuple(sides),
        without=tuple(name for name, item in read.items() if item is None),
    )


def _groups(item: Answers, over: Over) -> Codes | None:
    if over == "classes":
        if item.groups is None:
            raise DataError(f"{item.task}: has no classes to resample; choose other tasks, or resample over samples")
        return item.groups
    # a plain mean needs no groups, and fewer kinds of samples make its resampling faster
    return None if item.metric is mean else item.groups


def _average(found: Sequence[Answers], *, over: Over, replicates: int, seed: int, level: float) -> Interval:
    values, drawn = [], []
    for number, item in enumerate(found):
        pair, groups = np.stack([item.left, item.right], axis=1), _groups(item, over)
        before, after = evaluate_metric(pair, item.metric, groups)
        values.append(float(after - before))
        # another seed for each task, because tasks are independent
        rows = resampled(
            pair, metric=item.metric, groups=groups, over=over, replicates=replicates, seed=seed + 1000 * number
        )
        drawn.append(rows[:, 1] - rows[:, 0])
    low, high = percentiles(np.mean(drawn, axis=0), level)
    return Interval(float(np.mean(values)), low, high)
