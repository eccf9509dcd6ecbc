"""A user's own folder or table as an evaluation: class folders, a table of images, a set in the hub's layout."""

import os
from collections.abc import Callable
from pathlib import Path

from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.data.shards import DATASET_FILE
from eyesmith.data.sources import split_names
from eyesmith.errors import EyesmithError
from eyesmith.eval.classifier_suite import LogitTower
from eyesmith.eval.precision import Precision
from eyesmith.eval.results import append_rows
from eyesmith.eval.suites import Progress, TaskResult, Wording, evaluate_suite
from eyesmith.eval.tasks import Task
from eyesmith.models.clip import Clip

_MAIN = {
    "classification": "acc1",
    "video": "acc1",
    "retrieval": "mean_recall@1",
    "multilabel": "mean_average_precision",
    "winogavil": "jaccard_score_10-12",
}


def is_made_data(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a data set of `eyesmith data make`, or has several splits: those have tasks per split."""
    place = Path(path)
    if (place / DATASET_FILE).is_file():
        return True
    return place.is_dir() and not (place / "classnames.txt").is_file() and len(split_names(place)) > 1


def evaluate_own(
    clip: Clip | LogitTower,
    path: str | os.PathLike[str],
    target: Path,
    *,
    batch_size: int = 64,
    num_workers: int = 4,
    precision: Precision = "fp32",
    wording: Wording | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> TaskResult:
    """Measure `clip` on one folder or table and add the result lines to `target`, a file, or a folder of results.

    The task is named by the folder. Prompts are the folder's own templates, the model's where it has none. Raises
    DataError for whatever would make the number meaningless: an empty class, one class, equal names, too many images
    that cannot be read.
    """
    place = Path(path).resolve()
    found = open_evaluation_set(place)
    task = Task(
        key=place.stem if place.is_file() else place.name,
        name=place.name,
        size=None,
        num_classes=len(found.classes) or None,
        metric=_MAIN.get(found.layout),
        layout=found.layout,
        folder=place.name,
        metadata=("age", "gender", "race", "race_binary") if found.layout == "attributes" else (),
    )
    is_file = target.suffix == ".jsonl"
    (result,) = evaluate_suite(
        clip,
        [task],
        place.parent,
        out=None if is_file else target,
        again=True,
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
        wording=wording,
        limit=limit,
        cache=cache,
        note=note,
        progress=progress,
    )
    if result.error is not None:
        raise result.error
    if not result.is_measured:
        raise EyesmithError(result.problem)
    if is_file:
        append_rows(target, result.rows)
    return result
