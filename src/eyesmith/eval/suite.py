"""Everything one data set can say about a model: zero-shot and retrieval on each of its splits."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.config import closest
from eyesmith.data.sample import Source
from eyesmith.data.shards import DATASET_FILE, read_dataset
from eyesmith.data.sources import open_source, read_templates, split_names
from eyesmith.errors import DataError
from eyesmith.eval.features import encode_source
from eyesmith.eval.results import ResultRow
from eyesmith.eval.retrieval import Retrieval
from eyesmith.eval.text_features import TextFeatures
from eyesmith.eval.zero_shot import ZeroShot
from eyesmith.models.clip import Clip

WHOLE = "all"  # the split's name in result rows where a data set has no splits


@dataclass(frozen=True, kw_only=True)
class SplitTasks:
    """The tasks of one split. What each of them needs and the data lack is left out."""

    split: str
    source: Source
    tasks: tuple[ZeroShot | Retrieval, ...]


def evaluate(
    clip: Clip,
    data: str | os.PathLike[str],
    splits: Sequence[str] | None = None,
    *,
    batch_size: int = 64,
    model_name: str | None = None,
    max_broken_frac: float = 0.01,
    note: Callable[[str], None] | None = None,
) -> list[ResultRow]:
    """Result rows of `clip` on a data set: a made one, a folder of class folders, a table of pairs, tar shards.

    splits: all but "train" when None. Tasks of each split: see `split_tasks`. model_name: as written into the rows,
    the config's name when None. Unreadable images are left out and counted through `note` (a warning when None);
    DataError when they are more than max_broken_frac, when the split or the data set does not exist, or when the
    data hold neither labels nor captions.
    """
    say = note or (lambda message: warnings.warn(message, stacklevel=3))
    texts = TextFeatures(clip)
    rows: list[ResultRow] = []
    for split in choose_splits(data, splits):
        tasks = split_tasks(data, split, batch_size=batch_size, max_missing_frac=max_broken_frac)
        images = encode_source(clip, tasks.source, batch_size=batch_size, max_broken_frac=max_broken_frac)
        left_out = [f"{one.key}: {one.reason}" for one in images.broken]
        left_out += [
            f"{one.key or one.where}: {one.detail}" for one in tasks.source.problems if one.severity == "error"
        ]
        if left_out:
            say(f"{tasks.source.name}: left out {len(left_out)} unusable samples; first: {left_out[0]}")
        for task in tasks.tasks:
            rows += task.rows(clip, model_name=model_name or clip.config.name, images=images, texts=texts)
    return rows


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


def split_tasks(
    data: str | os.PathLike[str], split: str | None, *, batch_size: int = 64, max_missing_frac: float = 0.01
) -> SplitTasks:
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
    prompts = (read_templates(data) if Path(data).is_dir() else ()) or None
    name = split or WHOLE
    tasks: list[ZeroShot | Retrieval] = []
    labels = source.labels
    if labels is not None and source.classes is not None:
        candidates = facts.get("classes") or source.classes
        tasks.append(ZeroShot(source, split=name, names=candidates, prompts=prompts, batch_size=batch_size))
        if tuple(candidates) != source.classes:
            tasks.append(ZeroShot(source, split=name, prompts=prompts, batch_size=batch_size, task="zero_shot_all"))
    if _has_captions(source):
        tasks.append(Retrieval(source, split=name, batch_size=batch_size))
        if labels is not None and len(set(labels)) < len(labels):
            tasks.append(
                Retrieval(source, split=name, positives="label", batch_size=batch_size, task="retrieval_label")
            )
    if not tasks:
        raise DataError(f"{source.name}: has neither labels nor captions, so nothing can be measured on it")
    return SplitTasks(split=name, source=source, tasks=tuple(tasks))


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
