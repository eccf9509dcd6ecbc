"""Data sets with splits (made ones, class folders, tables of pairs, shards): which splits and tasks they carry."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyesmith.config import closest
from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.sample import Source
from eyesmith.data.shards import DATASET_FILE, read_dataset
from eyesmith.data.sources import open_source, read_templates, split_names
from eyesmith.errors import DataError
from eyesmith.eval.kinds.measurement import Measurement
from eyesmith.eval.sets.task import Task

WHOLE = "all"  # the split's name in result rows where a data set has no splits
MADE_TASKS = {
    "all": ("zero_shot", "zero_shot_all", "retrieval", "retrieval_label"),
    "zero_shot": ("zero_shot", "zero_shot_all"),
    "retrieval": ("retrieval", "retrieval_label"),
}
"""Task keys of such data by the words that a user chooses them with."""

_RECALLS = tuple(f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10))


@dataclass(frozen=True, kw_only=True)
class SplitTasks:
    """The tasks of one split. What each of them needs and the data lack is left out."""

    split: str
    source: Source
    tasks: tuple[Measurement, ...]


def is_made_data(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a data set of `eyesmith data make`, or has several splits: those have tasks per split."""
    place = Path(path)
    if (place / DATASET_FILE).is_file():
        return True
    return place.is_dir() and not (place / "classnames.txt").is_file() and len(split_names(place)) > 1


def choose_splits(data: str | os.PathLike[str], splits: Sequence[str] | None = None) -> list[str | None]:
    """The splits to evaluate: those asked for, else all but "train"; [None] for data without splits.

    Raises DataError for an unknown split, and when "train" is the only one and was not asked for.
    """
    known = split_names(data)
    if splits is not None:
        for split in splits:
            if split not in known:
                raise DataError(f"{data}: there is no split {split!r}{closest(split, known) if known else ''}")
        return list(dict.fromkeys(splits))
    if not known:
        return [None]
    chosen = [split for split in known if split != "train"]
    if not chosen:
        raise DataError(f"{data}: its only split is 'train', which models are trained on; ask for it by name to use it")
    return list(chosen)


def split_tasks(data: str | os.PathLike[str], split: str | None, *, max_missing_frac: float = 0.01) -> SplitTasks:
    """The tasks of one split (None: the whole of a data set without splits).

    zero_shot: labelled images against the split's candidates (`classes` in dataset.json, else all class names).
    zero_shot_all: the same against all class names, where the split's candidates are fewer.
    retrieval: captions against images, a text's own image alone is right.
    retrieval_label: the same where every image of the class is right, when classes come more than once.
    Prompts are the data set's templates, the model's own where it has none. Raises DataError when the data can carry
    no task, or when more than max_missing_frac of the samples were unusable at opening.
    """
    facts: dict[str, Any] = {}
    if split is not None and (Path(data) / DATASET_FILE).is_file():
        facts = read_dataset(Path(data))["splits"].get(split, {})
    source = open_source(data, split=split, require_text=False)
    _check_complete(source, facts.get("samples"), max_missing_frac)
    prompts = (read_templates(data) if Path(data).is_dir() else ()) or ()
    name = split or WHOLE
    tasks: list[Measurement] = []
    labels = source.labels
    if labels is not None and source.classes is not None:
        candidates = facts.get("classes") or source.classes
        tasks.append(zero_shot(source, split=name, names=candidates, prompts=prompts))
        if tuple(candidates) != source.classes:
            tasks.append(zero_shot(source, split=name, prompts=prompts, key="zero_shot_all"))
    if _has_captions(source):
        tasks.append(retrieval(source, split=name))
        if labels is not None and len(set(labels)) < len(labels):
            tasks.append(retrieval(source, split=name, by_label=True, key="retrieval_label"))
    if not tasks:
        raise DataError(f"{source.name}: has neither labels nor captions, so nothing can be measured on it")
    return SplitTasks(split=name, source=source, tasks=tuple(tasks))


def labelled_split(data: str | os.PathLike[str], key: str) -> Measurement | None:
    """The zero-shot task of the split that holds the image `key`; None where no split does."""
    for split in split_names(data) or (None,):
        for task in split_tasks(data, split).tasks:
            if task.key == "zero_shot" and key in task.source.keys:
                return task
    return None


def zero_shot(
    source: Source,
    *,
    split: str,
    names: Sequence[str] | None = None,
    prompts: Sequence[str] = (),
    key: str = "zero_shot",
) -> Measurement:
    """Labelled images against `names` (all classes of the source when None).

    prompts: templates with a place for the name, the model's own where there are none. Raises DataError for a source
    without labels, and for candidates among which an image's class is not.
    """
    classes, labels = source.classes, source.labels
    if classes is None or labels is None:
        raise DataError(f"{source.name}: zero-shot classification needs labelled images, this source has no labels")
    names = classes if names is None else tuple(names)
    place = candidate_map(source.name, classes, names)
    targets = np.array([place.get(label, -1) for label in labels], dtype=np.int64)
    if (targets < 0).any():
        row = int((targets < 0).argmax())
        raise DataError(
            f"{source.name}: image {source.keys[row]} is of class {classes[labels[row]]!r}, which is not among the "
            f"{len(names)} candidates of split {split!r}"
        )
    found = _set(source, layout="classification", classes=names, templates=tuple(prompts), labels=targets)
    task = Task(
        key=key,
        name=key,
        size=None,
        num_classes=len(names) if len(names) > 1 else None,
        folder=source.name,
        lines=("acc1", "acc5"),
        is_published=False,
    )
    return Measurement(task, found, split=split)


def retrieval(source: Source, *, split: str, by_label: bool = False, key: str = "retrieval") -> Measurement:
    """Captions against images; by_label: right is every image of the class, else a text's own image alone.

    Raises DataError for a source without captions, or with by_label without labels.
    """
    if by_label and source.labels is None:
        raise DataError(f"{source.name}: retrieval by label needs labels, this source has none")
    texts = tuple(source.texts(index) for index in range(len(source)))
    if not any(texts):
        raise DataError(f"{source.name}: retrieval needs captions, this source has none")
    task = Task(
        key=key,
        name=key,
        size=None,
        metric="image_retrieval_recall@1",
        layout="retrieval",
        kind="retrieval_label" if by_label else "retrieval",
        folder=source.name,
        lines=_RECALLS,
        is_published=False,
    )
    return Measurement(task, _set(source, layout="retrieval", texts=texts), split=split)


def candidate_map(source_name: str, classes: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Class index -> candidate index, by position when `names` are the classes, else by name.

    Equal names among the classes are allowed in the first case only (ImageNet has two "missile"); else DataError.
    """
    if tuple(names) == tuple(classes):
        return {index: index for index in range(len(classes))}
    place = {name: index for index, name in enumerate(names)}
    if len(place) != len(names):
        twice = next(name for index, name in enumerate(names) if place[name] != index)
        raise DataError(f"{source_name}: candidate {twice!r} is listed twice, so it is unclear which one is right")
    known = set(classes)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{source_name}: candidate {unknown[0]!r} is no class of the data set ({len(classes)} classes)")
    return {index: place[name] for index, name in enumerate(classes) if name in place}


def _set(source: Source, **fields: Any) -> EvaluationSet:
    problems = tuple(one for one in source.problems if one.severity == "error")
    return EvaluationSet(name=source.name, path=Path(source.name), source=source, problems=problems, **fields)


def _has_captions(source: Source) -> bool:
    """Whether some text says more than the class name, which sources give where a sample has no caption."""
    classes, labels = source.classes, source.labels
    for index in range(len(source)):
        own = classes[labels[index]] if classes is not None and labels is not None else None
        if any(text != own for text in source.texts(index)):
            return True
    return False


def _check_complete(source: Source, expected: int | None, max_missing_frac: float) -> None:
    errors = [one for one in source.problems if one.severity == "error"]
    shards = [one for one in errors if not one.key]
    missing = len(errors) if expected is None else expected - len(source)
    total = len(source) + len(errors) if expected is None else expected
    if shards or missing > max(1, int(max_missing_frac * total)):
        first = next(iter(shards or errors), None)
        what = f"; first: {first.key or first.where}: {first.detail}" if first else ""
        raise DataError(
            f"{source.name}: {missing} of {total} samples are missing or unusable, a number measured on the rest would "
            f"mislead{what}; `eyesmith data check` lists them"
        )
