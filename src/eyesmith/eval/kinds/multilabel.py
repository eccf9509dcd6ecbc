"""Several labels an image: mean average precision (Pascal VOC), or whether the first guess is one of them (ReaL)."""

import numpy as np
import torch
from numpy.typing import NDArray
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
    check_same,
    matched,
    resampled_span,
    share,
    text_array,
    wilson,
)
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import mean
from eyesmith.eval.statistics.metrics import check_finite, similarity
from eyesmith.eval.statistics.ranking import TOP, rank_classes

PRECISION = "mean_average_precision"


class Multilabel(Kind):
    """Mean average precision over the classes that have an image, which a part of a set may lack.

    Records: average_precision [K] fp32, of each class over all images, 0 where it has none (and only there).
    """

    name = "multilabel"
    arrays = ("average_precision",)
    main = PRECISION

    def answer(self, asked: Asked) -> Answered:
        marks, weights = _asked(asked)
        scores = similarity(asked.images.features, weights, device=asked.device)
        check_finite(scores)
        precision = average_precisions(scores, marks)
        records = {"average_precision": precision.numpy(), "keys": text_array(asked.images.keys)}
        return Answered(records=records)

    def metrics(self, task: Task, records: Records) -> Metrics:
        known = _known(records["average_precision"])
        return {PRECISION: float(torch.from_numpy(known).mean()) if len(known) else None}

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        known = _known(records["average_precision"])
        return {PRECISION: resampled_span(torch.from_numpy(known), mean)} if len(known) else {}

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        check_same(one, other, "keys")
        left, right = one["average_precision"].astype(float), other["average_precision"].astype(float)
        if left.shape != right.shape:
            raise DataError("have different numbers of classes")
        known = (left > 0) & (right > 0)  # as `_known`
        return PairedValues(name=PRECISION, left=left[known], right=right[known], note="samples are classes")


class AnyLabel(Kind):
    """ImageNet-ReaL: right is a guess that is one of the image's labels; images without a label are left out.

    Records as of classification: targets (the first label), ranks (the place of the first right guess among the best
    five, 5 where none is right), top and top_score.
    """

    name = "any_label"
    arrays = ("keys", "targets", "ranks", "top")
    main = "acc1"

    def answer(self, asked: Asked) -> Answered:
        marks, weights = _asked(asked)
        usable = marks.any(1)
        if not bool(usable.any()):
            raise DataError(f"{asked.found.name}: not one image has a label")
        features, marks = asked.images.features[usable], marks[usable]
        targets = marks.int().argmax(1)
        ranking = rank_classes(features, weights, targets, device=asked.device)
        best = ranking.top[:, : len(asked.found.classes)].long().clamp(min=0)
        right = marks.gather(1, best) & (ranking.top[:, : best.shape[1]] >= 0)  # [N, at most 5]
        ranks = torch.where(right.any(1), right.int().argmax(1), TOP)
        return Answered(
            records={
                "keys": text_array(asked.images.keys)[usable.numpy()],
                "targets": targets.int().numpy(),
                "ranks": ranks.int().numpy(),
                "top": ranking.top.numpy(),
                "top_score": ranking.top_score.numpy(),
                "num_classes": np.array(len(asked.found.classes)),
            }
        )

    def metrics(self, task: Task, records: Records) -> Metrics:
        first, fifth = (torch.from_numpy(records["ranks"] < k) for k in (1, 5))
        return {"acc1": share(first), "acc5": share(fifth) if int(records["num_classes"]) >= 5 else None}

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        return {"acc1": wilson(torch.from_numpy(records["ranks"] < 1))}

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        name = "acc1" if metric == "main" else metric
        if name not in ("acc1", "acc5"):
            raise DataError(f"images have several right classes, so there is no {metric}; use main, acc1 or acc5")
        left, right = matched(one, other)
        if not np.array_equal(one["targets"][left], other["targets"][right]):
            raise DataError("have different labels; the two were measured on different data")
        depth = 1 if name == "acc1" else 5
        values = [(r["ranks"][rows] < depth).astype(float) for r, rows in ((one, left), (other, right))]
        out = len(set(one["keys"].tolist()) ^ set(other["keys"].tolist()))
        return PairedValues(name=name, left=values[0], right=values[1], left_out=out)


def _known(precisions: NDArray[np.float32]) -> NDArray[np.float32]:
    """The average precisions of classes with an image: above 0, as each of its images is found at some place."""
    return precisions[precisions > 0]


def average_precisions(scores: Tensor, marks: Tensor) -> Tensor:
    """Average precision of each class [K] fp64: the mean over its images of the precision at each of them.

    scores: [N, K]; marks: [N, K] bool. Equal scores rank by index. 0 for a class without an image, as clip-benchmark
    has it.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)  # [N, K]
    right = marks.gather(0, order).double()
    precision = right.cumsum(0) / torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    return (precision * right).sum(0) / right.sum(0).clamp(min=1)


def _asked(asked: Asked) -> tuple[Tensor, Tensor]:
    """Which labels each image has, [N, K] bool, and the rows of the classes, [K, D]."""
    found = asked.found
    if found.multilabels is None:
        raise DataError(f"{found.name}: has no label vectors, {asked.task.name} needs them")
    marks = torch.from_numpy(found.multilabels)[torch.tensor(asked.images.indices)] > 0
    return marks, asked.texts.class_weights(found.classes, found.templates)
