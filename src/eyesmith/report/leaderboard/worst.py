"""The classes a model gets wrong most often, from its prediction files, with pictures where the data are at hand."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import EyesmithError
from eyesmith.eval.results.predictions import FOLDER, file_name
from eyesmith.eval.results.predictions import read_predictions as read_file
from eyesmith.eval.sets import TASKS, Task
from eyesmith.report.content import Picture
from eyesmith.report.thumbnails import thumbnail

LEAST_IMAGES = 2  # a class with a single image says nothing of a class


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A picture that was taken for another class."""

    key: str
    guess: str
    picture: Picture | None


@dataclass(frozen=True, kw_only=True)
class WorstClass:
    """One class of a task: how many of its images were right at once, and what the wrong ones were taken for."""

    task: str
    name: str
    right: int
    total: int
    taken_for: tuple[tuple[str, int], ...]
    mistakes: tuple[Mistake, ...]

    @property
    def recall(self) -> float:
        """Share of its images that were right."""
        return self.right / self.total


@dataclass(frozen=True, kw_only=True)
class TaskPredictions:
    """A prediction file. keys: [N] image names; targets: [N] right classes; ranks: [N] their places, 0 first;
    top: [N, k] classes, best first."""

    task: Task
    keys: NDArray[np.str_]
    targets: NDArray[np.int32]
    ranks: NDArray[np.int32]
    top: NDArray[np.int32]


def read_predictions(folder: str | os.PathLike[str]) -> list[TaskPredictions]:
    """Prediction files of classification tasks in `folder`/predictions, in the order of the tasks; [] without any.

    Files of other tasks are left out. Raises DataError for a damaged file.
    """
    found = []
    for task in TASKS.values():
        path = Path(folder) / FOLDER / f"{file_name(task.key)}.npz"
        records = read_file(path).records if path.is_file() else {}
        if {"keys", "targets", "ranks", "top"} <= set(records):
            arrays = {name: records[name] for name in ("keys", "targets", "ranks", "top")}
            found.append(TaskPredictions(task=task, **arrays))
    return found


def worst_classes(
    predictions: TaskPredictions, *, data: str | os.PathLike[str] | None = None, num: int = 3, pictures: int = 3
) -> list[WorstClass]:
    """The `num` classes with the lowest recall, of those with at least two images; the one with more images first.

    data: the root of the evaluation sets, for class names and pictures; without it classes are called by number. Sets
    that are not there, or cannot be opened, give no pictures and no error: a page is worth having without them.
    """
    opened = None if data is None else _open(Path(data), predictions.task)
    total = Counter(predictions.targets.tolist())
    right = Counter(predictions.targets[predictions.ranks == 0].tolist())
    candidates = [label for label, count in total.items() if count >= LEAST_IMAGES and right[label] < count]
    candidates.sort(key=lambda label: (right[label] / total[label], -total[label], label))
    return [_describe(predictions, label, right[label], total[label], opened, pictures) for label in candidates[:num]]


def _describe(
    predictions: TaskPredictions, label: int, right: int, total: int, opened: "_Opened | None", num: int
) -> WorstClass:
    wrong = np.flatnonzero((predictions.targets == label) & (predictions.ranks > 0))
    guesses = Counter(predictions.top[wrong, 0].tolist())
    name = _namer(opened)
    return WorstClass(
        task=predictions.task.name,
        name=name(label),
        right=right,
        total=total,
        taken_for=tuple((name(guess), count) for guess, count in guesses.most_common(3)),
        mistakes=tuple(
            Mistake(
                key=str(predictions.keys[row]),
                guess=name(int(predictions.top[row, 0])),
                picture=None if opened is None else opened.picture(str(predictions.keys[row])),
            )
            for row in wrong[:num]
        )
        if opened is not None
        else (),
    )


def _namer(opened: "_Opened | None") -> Callable[[int], str]:
    names: Sequence[str] = () if opened is None else opened.classes
    return lambda label: names[label] if label < len(names) and names[label] else f"class {label}"


class _Opened:
    """An evaluation set with its images by key."""

    def __init__(self, path: Path, task: Task) -> None:
        from eyesmith.data.evaluation import open_evaluation_set

        found = open_evaluation_set(
            path, layout=task.layout, split="test", prompts=task.prompts, class_list=task.class_list
        )
        self.classes = found.classes
        self._source = found.source
        self._index = {key: index for index, key in enumerate(found.source.keys)}

    def picture(self, key: str) -> Picture | None:
        """A small copy of the image of that key; None where there is none or it cannot be read."""
        if key not in self._index:
            return None
        try:
            return thumbnail(self._source.image_bytes(self._index[key]))
        except EyesmithError:
            return None


def _open(root: Path, task: Task) -> _Opened | None:
    if not (root / task.folder).is_dir():
        return None
    try:
        return _Opened(root / task.folder, task)
    except EyesmithError:
        return None
