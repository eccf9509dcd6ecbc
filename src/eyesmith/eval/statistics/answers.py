"""What two models answered to the same samples of one task, as the values that a metric is computed from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import DataError
from eyesmith.eval.statistics.bootstrap import Codes, Floats, Metric, f1_macro, group_mean, mean, worst_group
from eyesmith.eval.statistics.prediction_files import TaskPredictions, file_name
from eyesmith.eval.tasks import TASKS, Task

MetricName = Literal[
    "main", "acc1", "acc5", "mean_per_class_recall", "f1_macro", "worst_group_acc1", "worst_group_acc5"
]
# the statistic, and up to which rank (from 1) an answer is right
_METRICS: dict[str, tuple[Metric, int]] = {
    "acc1": (mean, 1),
    "acc5": (mean, 5),
    "mean_per_class_recall": (group_mean, 1),
    "f1_macro": (f1_macro, 1),
    "worst_group_acc1": (worst_group, 1),
    "worst_group_acc5": (worst_group, 5),
}
_MAIN = {
    "mean_per_class_recall": "mean_per_class_recall",
    "F1-macro_all": "f1_macro",
    "acc_wg": "worst_group_acc1",
    "acc_worst_region": "worst_group_acc1",
    "acc_top5_wg": "worst_group_acc5",
}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """left, right: [N] values of the same samples; metric and groups: for `compare_paired`; left_out: samples that one
    of the two alone has; note: what a reader must know, or ""."""

    task: str
    metric_name: str
    left: Floats
    right: Floats
    metric: Metric = mean
    groups: Codes | None = None
    left_out: int = 0
    note: str = ""


def answers(one: TaskPredictions, other: TaskPredictions, *, metric: MetricName = "main") -> Answers | None:
    """The answers of two models to one task; None where there is nothing to compare (a task without a main metric).

    metric: "main" is the task's own where the files hold what it needs, else the nearest, with a note. Any other is
    for classification alone. Raises DataError when the two were measured on different data, and for a metric that
    cannot be computed.
    """
    if one.kind != other.kind:
        raise DataError(f"{one.where} and {other.where}: are files of different tasks ({one.kind}, {other.kind})")
    if one.kind == "classification":
        return _classification(one, other, metric)
    if metric != "main":
        raise DataError(f"{one.where}: {metric} is a metric of classification, and this task is {one.kind}; use main")
    if one.kind == "attributes":
        return None
    if one.kind == "multilabel":
        _check_same(one, other, "keys")
        values = one.arrays["average_precision"].astype(float), other.arrays["average_precision"].astype(float)
        if values[0].shape != values[1].shape:
            raise DataError(f"{one.where} and {other.where}: have different numbers of classes")
        known = np.isfinite(values[0]) & np.isfinite(values[1])  # a class without an image has none
        return _answers(one, "mean_average_precision", values[0][known], values[1][known], note="samples are classes")
    if one.kind == "association":
        _check_same(one, other, "cues")
        _check_same(one, other, "num_candidates")
        many = one.arrays["num_candidates"] >= 10
        rows = many if many.any() else ~many
        name = "jaccard_score_10-12" if many.any() else "avg_jaccard_score"
        return _answers(one, name, one.arrays["jaccard"][rows], other.arrays["jaccard"][rows])
    _check_same(one, other, "keys")
    _check_same(one, other, "image_of_text")
    return _answers(one, "mean_recall@1", _recall_by_image(one), _recall_by_image(other), note="samples are images")


def _classification(one: TaskPredictions, other: TaskPredictions, metric: MetricName) -> Answers:
    left, right = _matched(one, other)
    targets = one.arrays["targets"][left]
    if not np.array_equal(targets, other.arrays["targets"][right]):
        row = int(np.argmax(targets != other.arrays["targets"][right]))
        raise DataError(
            f"{one.where} and {other.where}: sample {one.keys[left[row]]!r} has different right classes; "
            "the two were measured on different data"
        )
    task = _task(one)
    out = len(set(one.keys) ^ set(other.keys))
    if metric == "main" and task is not None and task.metric == "mean_acc1_acc5":
        both = [(_hits(p, rows, 1) + _hits(p, rows, 5)) / 2 for p, rows in ((one, left), (other, right))]
        return _answers(one, task.metric, both[0], both[1], left_out=out)
    name, note = _main_metric(one, task) if metric == "main" else (metric, "")
    statistic, depth = _METRICS[name]
    groups = targets.astype(np.int64)
    if statistic is worst_group:
        if "groups" not in one.arrays:
            raise DataError(f"{one.where}: holds no groups, so there is no worst one; choose another metric")
        groups = one.arrays["groups"][left].astype(np.int64)
        if task is not None and task.left_out:
            counted = ~np.isin(groups, task.left_out)
            left, right, groups = left[counted], right[counted], groups[counted]
    if statistic is f1_macro:
        values = one.arrays["top"][left, 0].astype(float), other.arrays["top"][right, 0].astype(float)
    else:
        values = _hits(one, left, depth), _hits(other, right, depth)
    return Answers(
        task=_key(one),
        metric_name=name,
        left=values[0],
        right=values[1],
        metric=statistic,
        groups=groups,
        left_out=out,
        note=note,
    )


def _task(one: TaskPredictions) -> Task | None:
    return next((task for key, task in TASKS.items() if file_name(key) == one.task), None)


def _key(one: TaskPredictions) -> str:
    task = _task(one)
    return one.task if task is None else task.key


def _main_metric(one: TaskPredictions, task: Task | None) -> tuple[str, str]:
    """The metric by which a task is known, and a note where the files do not hold what that needs."""
    if task is None or task.metric in (None, "acc1"):
        return "acc1", ""
    name = _MAIN.get(task.metric)
    if name is None:
        return "acc1", f"in place of {task.metric}"
    if name.startswith("worst_group") and "groups" not in one.arrays:
        return name.removeprefix("worst_group_"), f"in place of {task.metric}: the files hold no groups"
    return name, ""


def _answers(
    one: TaskPredictions, name: str, left: NDArray, right: NDArray, *, left_out: int = 0, note: str = ""
) -> Answers:
    return Answers(
        task=_key(one),
        metric_name=name,
        left=left.astype(float),
        right=right.astype(float),
        left_out=left_out,
        note=note,
    )


def _recall_by_image(one: TaskPredictions) -> Floats:
    """A value an image, whose mean is the mean of the two R@1: an image is one draw together with its captions."""
    texts, images = one.arrays["image_retrieval_ranks"], one.arrays["text_retrieval_ranks"]
    hits = np.bincount(one.arrays["image_of_text"], weights=texts < 1, minlength=len(images))
    return (hits * (len(images) / len(texts)) + (images < 1)) / 2


def _matched(one: TaskPredictions, other: TaskPredictions) -> tuple[Codes, Codes]:
    """Rows of the samples that both have, in the order of the first."""
    if one.keys == other.keys:
        rows = np.arange(len(one.keys))
        return rows, rows
    place = {key: row for row, key in enumerate(other.keys)}
    if len(place) != len(other.keys) or len(set(one.keys)) != len(one.keys):
        raise DataError(f"{one.where} and {other.where}: keys come twice and differ, so samples cannot be matched")
    left = np.array([row for row, key in enumerate(one.keys) if key in place], dtype=np.int64)
    if not len(left):
        raise DataError(f"{one.where} and {other.where}: have no sample in common; were they measured on the same set?")
    return left, np.array([place[one.keys[row]] for row in left], dtype=np.int64)


def _check_same(one: TaskPredictions, other: TaskPredictions, name: str) -> None:
    if name in one.arrays and not np.array_equal(one.arrays[name], other.arrays.get(name, np.zeros(0))):
        raise DataError(f"{one.where} and {other.where}: {name!r} differ; the two were measured on different data")


def _hits(one: TaskPredictions, rows: Codes, depth: int) -> Floats:
    return (one.arrays["ranks"][rows] < depth).astype(float)
