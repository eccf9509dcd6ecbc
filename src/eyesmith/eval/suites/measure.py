"""From features to the metrics of one task, with every quirk of the reference under the reference's name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.errors import DataError
from eyesmith.eval.features import ImageFeatures
from eyesmith.eval.metrics import check_finite, clustered_interval, similarity, wilson_interval
from eyesmith.eval.pair_ranks import pair_ranks
from eyesmith.eval.precision import TowerPrecision
from eyesmith.eval.ranking import Ranking, rank_classes
from eyesmith.eval.statistics.bootstrap import Metric, bootstrap_interval, f1_macro, group_mean, mean, worst_group
from eyesmith.eval.suites.association import association_metrics, cue_prompt, jaccard_scores
from eyesmith.eval.suites.attributes import OBJECTIVES, attribute_metrics
from eyesmith.eval.suites.calibrated import calibration_values
from eyesmith.eval.suites.groups import grouped, worst_by_column
from eyesmith.eval.tasks import Task
from eyesmith.eval.text_features import TextFeatures

Span = tuple[float, float, int]  # low and high of a 95 % interval, and what was counted

RECALL_AT = (1, 5, 10)
_REPLICATES = 1000  # of an interval by resampling


@dataclass(frozen=True, kw_only=True)
class Measured:
    """metrics: by the reference's names, None where undefined. spans: intervals of those metrics that are worth a line
    of their own. arrays: what a prediction file keeps. more: value and count of what is no metric of the reference."""

    metrics: dict[str, float | None]
    spans: dict[str, Span] = field(default_factory=dict)
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    more: dict[str, tuple[float, int]] = field(default_factory=dict)


def measure(
    task: Task,
    found: EvaluationSet,
    images: ImageFeatures,
    texts: TextFeatures,
    *,
    similarity_precision: TowerPrecision,
    scale: float | None = None,
) -> Measured:
    """The metrics of a task on its set. images: features of `found.source`; similarity_precision: of WinoGAViL.

    scale: the model's 1/temperature, for its calibration; None: not wanted.
    """
    if task.layout == "retrieval":
        return _retrieval(found, images, texts)
    if task.layout == "winogavil":
        return _association(found, images, texts, similarity_precision)
    if task.layout == "attributes":
        return _attributes(task, found, images, texts)
    if task.layout == "multilabel":
        return _multilabel(task, found, images, texts)
    return _classification(task, found, images, texts, scale)


def _classification(
    task: Task, found: EvaluationSet, images: ImageFeatures, texts: TextFeatures, scale: float | None
) -> Measured:
    if found.labels is None:
        raise DataError(f"{found.name}: has no labels, {task.name} needs them")
    rows = torch.tensor(images.indices)
    targets = torch.from_numpy(found.labels)[rows]
    weights = texts.class_weights(found.classes, found.templates)
    ranking = rank_classes(images.features, weights, targets)
    predicted = ranking.top[:, 0].long()
    hits, top5 = ranking.hits(1), ranking.hits(5)
    metrics: dict[str, float | None] = {
        "acc1": _share(hits),
        "acc5": _share(top5) if len(found.classes) >= 5 else None,
        "mean_per_class_recall": mean_per_class_recall(predicted, targets),
    }
    spans = {"acc1": _wilson(hits), "mean_per_class_recall": _resampled(hits, group_mean, targets)}
    if metrics["acc5"] is not None:
        spans["acc5"] = _wilson(top5)
    if task.metric == "mean_acc1_acc5":
        metrics["mean_acc1_acc5"] = (metrics["acc1"] + metrics["acc5"]) / 2 if metrics["acc5"] is not None else None  # type: ignore[operator]
        spans["mean_acc1_acc5"] = _resampled((hits.double() + top5.double()) / 2, mean)
    if task.metadata:
        columns = _columns(task, found, rows)
        metrics |= _with_metadata(task, ranking, targets, columns)
        spans |= _metadata_span(task, ranking, targets, columns)
    arrays = {**_arrays(images, targets, ranking), **_groups(task, found, rows)}
    more = {} if scale is None else calibration_values(images.features, weights, targets, scale=scale)
    return Measured(metrics=metrics, spans=spans, arrays=arrays, more=more)


def _with_metadata(
    task: Task, ranking: Ranking, targets: Tensor, columns: Mapping[str, Tensor]
) -> Mapping[str, float | None]:
    hits = ranking.hits(1)
    if task.group_by is None:  # iWildCam
        recall, f1 = macro_scores(ranking.top[:, 0].long(), targets)
        return {"acc_avg": _share(hits), "recall-macro_all": recall, "F1-macro_all": f1}
    if (task.metric or "").startswith("acc_worst_"):
        return worst_by_column(hits, columns, task.group_by, left_out=task.left_out)
    chosen = {task.group_by: columns[task.group_by]}
    if "top5" in (task.metric or ""):
        return grouped("acc_top5", ranking.hits(5), chosen, left_out=task.left_out)
    return grouped("acc", hits, chosen, left_out=task.left_out)


def _metadata_span(task: Task, ranking: Ranking, targets: Tensor, columns: Mapping[str, Tensor]) -> dict[str, Span]:
    name = task.metric or ""
    if name == "F1-macro_all":
        return {name: _resampled(ranking.top[:, 0], f1_macro, targets)}
    if task.group_by is None or name == "acc1":
        return {}
    counted = ~torch.isin(columns[task.group_by], torch.tensor(task.left_out, dtype=torch.int64))
    values = ranking.hits(5 if "top5" in name else 1)[counted]
    return {name: _resampled(values, worst_group, columns[task.group_by][counted])}


def _multilabel(task: Task, found: EvaluationSet, images: ImageFeatures, texts: TextFeatures) -> Measured:
    if found.multilabels is None:
        raise DataError(f"{found.name}: has no label vectors, {task.name} needs them")
    rows = torch.tensor(images.indices)
    marks = torch.from_numpy(found.multilabels)[rows] > 0  # [N, K]
    weights = texts.class_weights(found.classes, found.templates)
    if task.metric == "mean_average_precision":
        scores = similarity(images.features, weights)
        check_finite(scores)
        precision = average_precisions(scores, marks)
        return Measured(
            metrics={"mean_average_precision": float(precision.mean())},
            spans={"mean_average_precision": _resampled(precision, mean)},
            arrays={"keys": np.array(images.keys, dtype=np.str_), "average_precision": precision.float().numpy()},
        )
    # ImageNet-ReaL: an image counts when it has a label, and is right when the first guess is one of them
    usable = marks.any(1)
    if not bool(usable.any()):
        raise DataError(f"{found.name}: not one image has a label")
    features, marks = images.features[usable], marks[usable]
    ranking = rank_classes(features, weights, marks.int().argmax(1))
    hits = marks.gather(1, ranking.top[:, :1].long())[:, 0]
    best = ranking.top[:, : len(found.classes)].long().clamp(min=0)
    top5 = (marks.gather(1, best) & (ranking.top[:, : best.shape[1]] >= 0)).any(1)
    return Measured(
        metrics={"acc1": _share(hits), "acc5": _share(top5) if len(found.classes) >= 5 else None},
        spans={"acc1": _wilson(hits)},
        arrays={
            "keys": np.array(images.keys, dtype=np.str_)[usable.numpy()],
            "targets": marks.int().argmax(1).int().numpy(),
            "ranks": torch.where(hits, 0, 1).int().numpy(),
            "top": ranking.top.numpy(),
            "top_score": ranking.top_score.numpy(),
        },
    )


def _retrieval(found: EvaluationSet, images: ImageFeatures, texts: TextFeatures) -> Measured:
    captions = [(row, text) for row, index in enumerate(images.indices) for text in found.captions(index)]
    if not captions:
        raise DataError(f"{found.name}: no image that can be read has a caption")
    owner = torch.tensor([row for row, _ in captions])
    asking, image_of_text = owner.unique(return_inverse=True)  # an image without a caption can not be asked for
    if len(asking) < len(images.features):
        raise DataError(
            f"{found.name}: {len(images.features) - len(asking)} images have no caption; `eyesmith data check` "
            "lists them"
        )
    rows = texts.captions([text for _, text in captions])
    for_text, for_image = pair_ranks(images.features, rows, image_of_text)
    metrics: dict[str, float | None] = {}
    spans: dict[str, Span] = {}
    for way, ranks, groups in (
        ("image_retrieval", for_text, image_of_text),
        ("text_retrieval", for_image, torch.arange(len(for_image))),
    ):
        for k in RECALL_AT:
            hits = ranks < k
            metrics[f"{way}_recall@{k}"] = _share(hits)
            spans[f"{way}_recall@{k}"] = (*clustered_interval(hits, groups), len(hits))
    first, second = metrics["image_retrieval_recall@1"], metrics["text_retrieval_recall@1"]
    assert first is not None
    assert second is not None
    metrics["mean_recall@1"] = (first + second) / 2
    # an image is drawn with its captions: the two directions vary together
    text_share = torch.zeros(len(for_image), dtype=torch.float64).index_add_(
        0, image_of_text, (for_text < 1).double() * (len(for_image) / len(for_text))
    )
    spans["mean_recall@1"] = _resampled((text_share + (for_image < 1).double()) / 2, mean)
    arrays: dict[str, NDArray[np.generic]] = {
        "keys": np.array(images.keys, dtype=np.str_),
        "image_retrieval_ranks": for_text.int().numpy(),
        "text_retrieval_ranks": for_image.int().numpy(),
        "image_of_text": image_of_text.int().numpy(),
    }
    return Measured(metrics=metrics, spans=spans, arrays=arrays)


def _association(
    found: EvaluationSet, images: ImageFeatures, texts: TextFeatures, precision: TowerPrecision
) -> Measured:
    place = {index: row for row, index in enumerate(images.indices)}
    instances = found.instances
    lost = [index for one in instances for index in one.candidates if index not in place]
    if lost:
        raise DataError(f"{found.name}: image {found.source.keys[lost[0]]} is a candidate and cannot be read")
    if not instances:
        raise DataError(f"{found.name}: has no instances")
    features = torch.zeros(max(place) + 1, images.features.shape[1])
    features[torch.tensor(images.indices)] = images.features
    cues = texts([cue_prompt(one.cue) for one in instances])
    scores = jaccard_scores(features, cues, instances, half=precision.half)
    sizes = [len(one.candidates) for one in instances]
    metrics = association_metrics(scores, sizes)
    large = scores[torch.tensor(sizes) >= 10]
    spans = {"avg_jaccard_score": _resampled(scores, mean)}
    if len(large):
        spans["jaccard_score_10-12"] = _resampled(large, mean)
    arrays: dict[str, NDArray[np.generic]] = {
        "cues": np.array([one.cue for one in instances], dtype=np.str_),
        "jaccard": scores.float().numpy(),
        "num_candidates": np.array(sizes, dtype=np.int32),
    }
    return Measured(metrics=metrics, spans=spans, arrays=arrays)


def _attributes(task: Task, found: EvaluationSet, images: ImageFeatures, texts: TextFeatures) -> Measured:
    missing = [name for name in OBJECTIVES if name not in found.objectives]
    if missing:
        raise DataError(f"{found.name}: classnames.txt has no lines of objective {missing[0]!r}")
    rows = torch.tensor(images.indices)
    columns = _columns(task, found, rows)
    predicted = {}
    for name in OBJECTIVES:
        objective = found.objectives[name]
        weights = texts.class_weights(objective.classes, objective.templates)
        ranking = rank_classes(images.features, weights, torch.zeros(len(rows), dtype=torch.int64))
        predicted[name] = ranking.top[:, 0].long()
    arrays: dict[str, NDArray[np.generic]] = {"keys": np.array(images.keys, dtype=np.str_)}
    arrays |= {f"predicted_{name}": values.int().numpy() for name, values in predicted.items()}
    return Measured(metrics={**attribute_metrics(predicted, columns)}, arrays=arrays)


def mean_per_class_recall(predicted: Tensor, targets: Tensor) -> float:
    """Mean recall over the classes present in `targets` [N] int64 (scikit-learn's balanced accuracy)."""
    counts = torch.bincount(targets)
    hits = torch.bincount(targets, weights=(predicted == targets).double())
    present = counts > 0
    return float((hits[present] / counts[present]).mean())


def macro_scores(predicted: Tensor, targets: Tensor) -> tuple[float, float]:
    """Recall and F1, each the mean over the classes present in `targets` [N] int64; an undefined score is 0."""
    num_classes = int(max(predicted.max(), targets.max())) + 1
    truth = torch.bincount(targets, minlength=num_classes).double()
    guesses = torch.bincount(predicted, minlength=num_classes).double()
    hits = torch.bincount(targets, weights=(predicted == targets).double(), minlength=num_classes)
    present = truth > 0
    f1 = 2 * hits[present] / (truth + guesses)[present]
    return float((hits[present] / truth[present]).mean()), float(f1.mean())


def average_precisions(scores: Tensor, marks: Tensor) -> Tensor:
    """Average precision of each class [K] fp64: the mean over its images of the precision at each of them.

    scores: [N, K]; marks: [N, K] bool. Equal scores rank by index. 0 for a class without an image, as clip-benchmark
    has it.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)  # [N, K]
    right = marks.gather(0, order).double()
    precision = right.cumsum(0) / torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    return (precision * right).sum(0) / right.sum(0).clamp(min=1)


def _columns(task: Task, found: EvaluationSet, rows: Tensor) -> dict[str, Tensor]:
    values = found.metadata
    if values is None or values.shape[1] < len(task.metadata):
        has = 0 if values is None else values.shape[1]
        raise DataError(
            f"{found.name}: {task.name} needs metadata ({', '.join(task.metadata)}), samples have {has} numbers"
        )
    return {name: torch.from_numpy(values[:, place]).long()[rows] for place, name in enumerate(task.metadata)}


def _groups(task: Task, found: EvaluationSet, rows: Tensor) -> dict[str, NDArray[np.generic]]:
    if task.group_by is None:
        return {}
    return {"groups": _columns(task, found, rows)[task.group_by].int().numpy()}


def _arrays(images: ImageFeatures, targets: Tensor, ranking: Ranking) -> dict[str, NDArray[np.generic]]:
    return {
        "keys": np.array(images.keys, dtype=np.str_),
        "targets": targets.int().numpy(),
        "ranks": ranking.ranks.numpy(),
        "top": ranking.top.numpy(),
        "top_score": ranking.top_score.numpy(),
    }


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)


def _wilson(hits: Tensor) -> Span:
    return (*wilson_interval(int(hits.sum()), len(hits)), len(hits))


def _resampled(values: Tensor, metric: Metric, groups: Tensor | None = None) -> Span:
    found = bootstrap_interval(values.double(), metric=metric, groups=groups, replicates=_REPLICATES)
    return found.low, found.high, len(values)
