"""What a kind of measurement is: how its set is read, what is kept of each sample, and the numbers made of that.

A kind answers once, from features, with records: a few arrays, a row a sample, which are the task's prediction file.
Everything else (metrics, intervals, chance, a paired comparison) is computed from records alone, so a stored file is
scored again, or compared with another, without a model. To add a kind, write a class like those beside this file and
name it in registry.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.errors import DataError
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import Codes, Floats, Metric, bootstrap_interval, bounded, mean
from eyesmith.eval.statistics.metrics import wilson_interval

Records = dict[str, NDArray[Any]]
Span = tuple[float, float, int]
"""Low and high of a 95 % interval, and how many samples were counted."""
Metrics = dict[str, float | None]
"""Fractions by name, None where undefined."""

_REPLICATES = 1000  # of an interval by resampling


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a kind answers from. images: features of `found.source`; texts: of any text; half: the format that the
    towers computed in, where a kind rounds similarities to it; scale: the model's 1/temperature, None for no
    calibration; device: the model's, which compares the features too."""

    task: Task
    found: EvaluationSet
    images: ImageFeatures
    texts: TextFeatures
    half: torch.dtype | None = None
    scale: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Answered:
    """records: see `Kind`; more: value and count of what is beside the metrics and not made of records."""

    records: Records
    more: dict[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PairedValues:
    """Two models on the same samples: values [N] each, the statistic made of them, its groups, and a note."""

    name: str
    left: Floats
    right: Floats
    metric: Metric = mean
    groups: Codes | None = None
    left_out: int = 0
    note: str = ""


class Kind(ABC):
    """A kind of measurement. `arrays`: the records it must have, the first a row a sample; `main`: the metric of a set
    that names none; `counted`: what a sample is; `half_images`: whether the reference encodes the images in half."""

    name: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]]
    main: ClassVar[str | None] = None
    counted: ClassVar[str] = "images"
    half_images: ClassVar[bool] = False
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def open(self, task: Task, place: Path, split: str) -> EvaluationSet:
        """The set at `place`. Raises DataError where it would give a false number."""
        if task.reader is not None:
            return task.reader(place)
        return open_evaluation_set(
            place, layout=task.layout, split=split, prompts=task.prompts, class_list=task.class_list
        )

    def size(self, found: EvaluationSet) -> int:
        """How many samples, in `counted`."""
        return len(found)

    @abstractmethod
    def answer(self, asked: Asked) -> Answered:
        """What the model says of every sample that could be read."""

    @abstractmethod
    def metrics(self, task: Task, records: Records) -> Metrics:
        """All numbers, by the reference's names."""

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        """95 % intervals of the metrics that are worth a result line."""
        return {}

    def chance(self, task: Task, records: Records) -> dict[str, float]:
        """What guessing gives, of the metrics where that is known."""
        return {}

    def parts(self, records: Records) -> dict[str, Records]:
        """Records of parts of the set that get lines of their own, by name."""
        return {}

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        """Values for a paired comparison; None where there is nothing to compare. metric: "main" or a name.

        Raises DataError when the two were not measured on the same data, or for a metric that cannot be had.
        """
        return None


def share(hits: Tensor) -> float:
    """The share of `hits` [N] bool."""
    return int(hits.sum()) / len(hits)


def wilson(hits: Tensor) -> Span:
    """Wilson's interval of independent answers [N] bool."""
    return (*wilson_interval(int(hits.sum()), len(hits)), len(hits))


def resampled_span(values: Tensor, metric: Metric, groups: Tensor | None = None) -> Span:
    """The bootstrap interval of a statistic of values [N] in 0..1 (of f1_macro: guesses), or the bound of what is 0 or
    1 in every resample."""
    found = bootstrap_interval(values.double(), metric=metric, groups=groups, replicates=_REPLICATES)
    return *bounded(found, metric, len(values), groups), len(values)


def text_array(texts: Sequence[str]) -> NDArray[np.str_]:
    """Texts as an array that a prediction file can hold."""
    return np.array(texts, dtype=np.str_)


def metadata_columns(task: Task, found: EvaluationSet, rows: Tensor) -> dict[str, Tensor]:
    """The metadata that a task names, [N] int64 each, of the images `rows`. Raises DataError where they are lacking."""
    values = found.metadata
    if values is None or values.shape[1] < len(task.metadata):
        has = 0 if values is None else values.shape[1]
        raise DataError(
            f"{found.name}: {task.name} needs metadata ({', '.join(task.metadata)}), samples have {has} numbers"
        )
    return {name: torch.from_numpy(values[:, place]).long()[rows] for place, name in enumerate(task.metadata)}


def check_same(one: Records, other: Records, name: str) -> None:
    """Raise DataError where two models' records differ in what they must share."""
    if name in one and not np.array_equal(one[name], other.get(name, np.zeros(0))):
        raise DataError(f"{name!r} differ; the two were measured on different data")


def matched(one: Records, other: Records, name: str = "keys") -> tuple[Codes, Codes]:
    """Rows of the samples that both have, in the order of the first. Raises DataError where keys cannot be matched."""
    left_keys, right_keys = one[name].tolist(), other[name].tolist()
    if left_keys == right_keys:
        rows = np.arange(len(left_keys))
        return rows, rows
    place = {key: row for row, key in enumerate(right_keys)}
    if len(place) != len(right_keys) or len(set(left_keys)) != len(left_keys):
        raise DataError("keys come twice and differ, so samples cannot be matched")
    left = np.array([row for row, key in enumerate(left_keys) if key in place], dtype=np.int64)
    if not len(left):
        raise DataError("no sample in common; were they measured on the same set?")
    return left, np.array([place[left_keys[row]] for row in left], dtype=np.int64)
