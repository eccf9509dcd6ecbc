"""Accuracy by groups of images: the metrics of WILDS and of the fairness sets, under the reference's names.

Conventions of DataComp's evaluation, which are those of the wilds package but for empty groups: groups are numbered
from 0 to the largest value; an empty group has no accuracy (None; the reference divides 0 by 0 and writes NaN, wilds
itself writes 0) and count 0, and does not enter the worst; a group of two columns is named with the last column first.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eyesmith.errors import DataError
from eyesmith.eval.kinds.classification import Classification, first_guesses
from eyesmith.eval.kinds.kind import Answered, Asked, Metrics, Records, Span, metadata_columns, resampled_span, share
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import f1_macro, worst_group

_F1 = "F1-macro_all"


class Groups(Classification):
    """Classification whose images belong to groups. Records: beside those of classification column_NAME [N] for each
    metadata column, and groups [N], the column that group metrics use."""

    name = "groups"

    def answer(self, asked: Asked) -> Answered:
        answered = super().answer(asked)
        columns = metadata_columns(asked.task, asked.found, torch.tensor(asked.images.indices))
        for name, column in columns.items():
            answered.records[f"column_{name}"] = column.int().numpy()
            if name == asked.task.group_by:
                answered.records["groups"] = column.int().numpy()
        return answered

    def metrics(self, task: Task, records: Records) -> Metrics:
        found = super().metrics(task, records)
        hits, main = torch.from_numpy(records["ranks"] < 1), task.metric or ""
        if task.group_by is None:  # iWildCam
            recall, f1 = macro_scores(first_guesses(records), torch.from_numpy(records["targets"]).long())
            return found | {"acc_avg": share(hits), "recall-macro_all": recall, _F1: f1}
        columns = {name: torch.from_numpy(records[f"column_{name}"]).long() for name in task.metadata}
        if main.startswith("acc_worst_"):
            return found | worst_by_column(hits, columns, task.group_by, left_out=task.left_out)
        chosen = {task.group_by: columns[task.group_by]}
        if "top5" in main:
            return found | grouped("acc_top5", torch.from_numpy(records["ranks"] < 5), chosen, left_out=task.left_out)
        return found | grouped("acc", hits, chosen, left_out=task.left_out)

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        found, main = super().spans(task, records), task.metric or ""
        if main == _F1:
            guesses, targets = torch.from_numpy(records["top"][:, 0]), torch.from_numpy(records["targets"]).long()
            return found | {_F1: resampled_span(guesses, f1_macro, targets)}
        if task.group_by is None or main == "acc1":
            return found
        groups = torch.from_numpy(records["groups"]).long()
        counted = ~torch.isin(groups, torch.tensor(task.left_out, dtype=torch.int64))
        values = torch.from_numpy(records["ranks"] < (5 if "top5" in main else 1))[counted]
        return found | {main: resampled_span(values, worst_group, groups[counted])}


def macro_scores(predicted: Tensor, targets: Tensor) -> tuple[float, float]:
    """Recall and F1, each the mean over the classes present in `targets` [N] int64; an undefined score is 0."""
    num_classes = int(max(predicted.max(), targets.max())) + 1
    truth = torch.bincount(targets, minlength=num_classes).double()
    guesses = torch.bincount(predicted, minlength=num_classes).double()
    hits = torch.bincount(targets, weights=(predicted == targets).double(), minlength=num_classes)
    present = truth > 0
    f1 = 2 * hits[present] / (truth + guesses)[present]
    return float((hits[present] / truth[present]).mean()), float(f1.mean())


def group_means(values: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Mean of `values` [N] in each of the groups [N] int64 -> [G] fp64, NaN where empty, and counts [G] int64."""
    counts = torch.bincount(groups, minlength=num_groups)
    sums = torch.bincount(groups, weights=values.double(), minlength=num_groups)
    return sums / counts, counts


def worst_mean(means: Tensor, counts: Tensor, left_out: Sequence[int] = ()) -> float:
    """The lowest mean among groups that are not empty and not left out."""
    seen = counts > 0
    for group in left_out:
        if group < len(seen):
            seen[group] = False
    if not bool(seen.any()):
        raise DataError("every group is empty or left out, there is no worst one")
    return float(means[seen].min())


def grouped(metric: str, values: Tensor, columns: Mapping[str, Tensor], *, left_out: Sequence[int] = ()) -> Metrics:
    """METRIC_avg, METRIC_<group> (None where empty) and count_<group> of each group, METRIC_wg (the worst).

    values: [N], 0 or 1. columns: the metadata columns [N] int64 whose combinations are the groups, by name.
    left_out: groups that the worst must not see.
    """
    sizes = [int(column.max()) + 1 for column in columns.values()]
    index = torch.zeros(len(values), dtype=torch.int64)
    for size, column in zip(reversed(sizes), reversed(list(columns.values())), strict=True):
        index = index * size + column  # the first column varies fastest
    means, counts = group_means(values, index, int(torch.tensor(sizes).prod()))
    found: Metrics = {f"{metric}_avg": float(values.double().mean())}
    for group in range(len(means)):
        name = _group_name(group, dict(zip(columns, sizes, strict=True)))
        found[f"{metric}_{name}"] = float(means[group]) if counts[group] > 0 else None
        found[f"count_{name}"] = float(counts[group])
    found[f"{metric}_wg"] = worst_mean(means, counts, left_out)
    return found


def worst_by_column(
    correct: Tensor, columns: Mapping[str, Tensor], group_by: str, *, left_out: Sequence[int] = ()
) -> Metrics:
    """FMoW's metrics: accuracy by each column, the worst of each as acc_worst_COLUMN.

    The reference means to leave the region "Other" out of the worst and does not: it compares the word with the
    number 5. So `left_out` is empty under its key, and holds 5 under the corrected one.
    """
    found: Metrics = {}
    others = [name for name in columns if name not in (group_by, "y")]
    for name in [*others, group_by]:
        part = grouped("acc", correct, {name: columns[name]}, left_out=left_out if name == group_by else ())
        found |= {f"acc_worst_{name}" if key == "acc_wg" else key: value for key, value in part.items()}
    return found


def _group_name(group: int, sizes: Mapping[str, int]) -> str:
    parts = []
    for name, size in sizes.items():
        parts.append(f"{name}:{group % size}")
        group //= size
    return "_".join(reversed(parts))
