"""Classification: the class whose sentences (or whose logit) lie nearest to the image."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import DataError
from eyesmith.eval.kinds.kind import (
    Answered,
    Asked,
    Kind,
    Metrics,
    PairedValues,
    Records,
    Span,
    matched,
    resampled_span,
    share,
    text_array,
    wilson,
)
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import Floats, Metric, f1_macro, group_mean, mean, worst_group
from eyesmith.eval.statistics.calibrated import LOWER_IS_BETTER, calibration_values
from eyesmith.eval.statistics.ranking import rank_classes

BOTH = "mean_acc1_acc5"  # of videos
# the statistic, and up to which rank (from 1) an answer is right
STATISTICS: Mapping[str, tuple[Metric, int]] = {
    "acc1": (mean, 1),
    "acc5": (mean, 5),
    "mean_per_class_recall": (group_mean, 1),
    "f1_macro": (f1_macro, 1),
    "worst_group_acc1": (worst_group, 1),
    "worst_group_acc5": (worst_group, 5),
}
_OF_MAIN = {
    "mean_per_class_recall": "mean_per_class_recall",
    "F1-macro_all": "f1_macro",
    "acc_wg": "worst_group_acc1",
    "acc_worst_region": "worst_group_acc1",
    "acc_top5_wg": "worst_group_acc5",
}


class Classification(Kind):
    """acc1, acc5 (from five classes on), mean per-class recall, and for videos the mean of the two.

    Records: keys [N], targets [N] int32 (the right class), ranks [N] int32 (how many classes came before it; equal
    scores: the first class), top [N, 5] int32 and top_score [N, 5] fp32 (the best classes, -1 where there are fewer),
    num_classes []. Calibration is `more`: it needs all logits.
    """

    name = "classification"
    arrays = ("keys", "targets", "ranks", "top")
    main = "acc1"
    lower_is_better = LOWER_IS_BETTER

    def answer(self, asked: Asked) -> Answered:
        found, images = asked.found, asked.images
        if found.labels is None:
            raise DataError(f"{found.name}: has no labels, {asked.task.name} needs them")
        rows = torch.tensor(images.indices)
        targets = torch.from_numpy(found.labels)[rows]
        if bool((targets < 0).any()):
            key = images.keys[int((targets < 0).nonzero()[0])]
            raise DataError(f"{found.name}: image {key} is of a class that is not among the {len(found.classes)} asked")
        weights = asked.texts.class_weights(found.classes, found.templates)
        ranking = rank_classes(images.features, weights, targets, device=asked.device)
        records: Records = {
            "keys": text_array(images.keys),
            "targets": targets.int().numpy(),
            "ranks": ranking.ranks.numpy(),
            "top": ranking.top.numpy(),
            "top_score": ranking.top_score.numpy(),
            "num_classes": np.array(len(found.classes)),
        }
        more = {}
        if asked.scale is not None:
            more = calibration_values(images.features, weights, targets, scale=asked.scale, device=asked.device)
        return Answered(records=records, more=more)

    def metrics(self, task: Task, records: Records) -> Metrics:
        hits, top5, targets = _hits(records, 1), _hits(records, 5), _targets(records)
        first, fifth = share(hits), share(top5) if _num_classes(records) >= 5 else None
        found: Metrics = {
            "acc1": first,
            "acc5": fifth,
            "mean_per_class_recall": mean_per_class_recall(first_guesses(records), targets),
        }
        if task.metric == BOTH:
            found[BOTH] = None if fifth is None else (first + fifth) / 2
        return found

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        hits, top5 = _hits(records, 1), _hits(records, 5)
        found = {"acc1": wilson(hits)}
        if not task.lines or "mean_per_class_recall" in task.lines:
            found["mean_per_class_recall"] = resampled_span(hits, group_mean, _targets(records))
        if _num_classes(records) >= 5:
            found["acc5"] = wilson(top5)
            if task.metric == BOTH:
                found[BOTH] = resampled_span((hits.double() + top5.double()) / 2, mean)
        return found

    def chance(self, task: Task, records: Records) -> dict[str, float]:
        number = _num_classes(records)
        found = {"acc1": 1 / number, "acc5": min(1.0, 5 / number), "mean_per_class_recall": 1 / number}
        return found | {BOTH: (found["acc1"] + found["acc5"]) / 2}

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        left, right = matched(one, other)
        targets = one["targets"][left]
        if not np.array_equal(targets, other["targets"][right]):
            row = int(np.argmax(targets != other["targets"][right]))
            raise DataError(
                f"sample {str(one['keys'][left[row]])!r} has different right classes; the two were measured on "
                "different data"
            )
        out = len(set(one["keys"].tolist()) ^ set(other["keys"].tolist()))
        if metric == "main" and task is not None and task.metric == BOTH:
            both = [(_values(r, rows, 1) + _values(r, rows, 5)) / 2 for r, rows in ((one, left), (other, right))]
            return PairedValues(name=BOTH, left=both[0], right=both[1], left_out=out)
        name, note = _main_of(task, one) if metric == "main" else (metric, "")
        statistic, depth = STATISTICS[name]
        groups = targets.astype(np.int64)
        if statistic is worst_group:
            if "groups" not in one:
                raise DataError("holds no groups, so there is no worst one; choose another metric")
            groups = one["groups"][left].astype(np.int64)
            if task is not None and task.left_out:
                counted = ~np.isin(groups, task.left_out)
                left, right, groups = left[counted], right[counted], groups[counted]
        if statistic is f1_macro:
            pair = one["top"][left, 0].astype(float), other["top"][right, 0].astype(float)
        else:
            pair = _values(one, left, depth), _values(other, right, depth)
        return PairedValues(
            name=name, left=pair[0], right=pair[1], metric=statistic, groups=groups, left_out=out, note=note
        )


def _main_of(task: Task | None, records: Records) -> tuple[str, str]:
    """The metric by which a task is known, and a note where the records do not hold what that needs."""
    if task is None or task.metric in (None, "acc1"):
        return "acc1", ""
    name = _OF_MAIN.get(task.metric)
    if name is None:
        return "acc1", f"in place of {task.metric}"
    if name.startswith("worst_group") and "groups" not in records:
        return name.removeprefix("worst_group_"), f"in place of {task.metric}: the files hold no groups"
    return name, ""


def mean_per_class_recall(predicted: Tensor, targets: Tensor) -> float:
    """Mean recall over the classes present in `targets` [N] int64 (scikit-learn's balanced accuracy)."""
    counts = torch.bincount(targets)
    hits = torch.bincount(targets, weights=(predicted == targets).double())
    present = counts > 0
    return float((hits[present] / counts[present]).mean())


def first_guesses(records: Records) -> Tensor:
    """The class each image is taken for, [N] int64."""
    return torch.from_numpy(records["top"][:, 0].astype(np.int64))


def _targets(records: Records) -> Tensor:
    return torch.from_numpy(records["targets"].astype(np.int64))


def _hits(records: Records, k: int) -> Tensor:
    return torch.from_numpy(records["ranks"] < k)


def _num_classes(records: Records) -> int:
    return int(records["num_classes"])


def _values(records: Records, rows: np.ndarray, depth: int) -> Floats:
    return (records["ranks"][rows] < depth).astype(float)
