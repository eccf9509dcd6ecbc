"""Prediction files: what a model said of each sample of a task, small enough to keep for every task of a suite.

`predictions/<task key, / as ->.npz` of an evaluation holds, for classification, keys [N] str, targets [N] int32 (right
class), ranks [N] int32 (how many classes came before it), top [N, 5] int32 and top_score [N, 5] float32 (the best
classes), and groups [N] int32 where metadata count. Retrieval: keys [N], image_retrieval_ranks [T],
text_retrieval_ranks [N], image_of_text [T]. WinoGAViL: cues [I], jaccard [I], num_candidates [I]. Several labels an
image: average_precision [K].
"""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.config import closest
from eyesmith.errors import DataError
from eyesmith.files import atomic_path

FOLDER = "predictions"
# the arrays each kind of file must have; the first is as long as those named in _ROWS
_KINDS = {
    "classification": ("keys", "targets", "ranks", "top"),
    "retrieval": ("keys", "image_retrieval_ranks", "text_retrieval_ranks", "image_of_text"),
    "association": ("cues", "jaccard", "num_candidates"),
    "multilabel": ("average_precision",),
    "attributes": ("keys", "predicted_race"),
}
_ROWS = ("targets", "ranks", "top", "top_score", "groups", "text_retrieval_ranks", "jaccard", "num_candidates")


@dataclass(frozen=True, kw_only=True)
class TaskPredictions:
    """One file. task: its name without extension; kind: the sort of task; arrays: as stored; where: the path."""

    task: str
    kind: str
    where: str
    arrays: dict[str, NDArray[Any]]

    @property
    def keys(self) -> tuple[str, ...]:
        """The samples: keys of images, cues of WinoGAViL."""
        return tuple(str(key) for key in self.arrays.get("keys", self.arrays.get("cues", ())))


def write_predictions(
    folder: str | os.PathLike[str],
    task: str,
    *,
    keys: Sequence[str],
    targets: NDArray[Any],
    ranks: NDArray[Any],
    top: NDArray[Any],
    top_score: NDArray[Any],
) -> Path:
    """Write the file of a classification task into `folder`/predictions, whole or not at all; returns its path."""
    path = Path(folder) / FOLDER / f"{file_name(task)}.npz"
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez(
            stream,
            keys=np.array(keys, dtype=np.str_),
            targets=targets.astype(np.int32),
            ranks=ranks.astype(np.int32),
            top=top.astype(np.int32),
            top_score=top_score.astype(np.float32),
        )
    return path


def read_predictions(path: str | os.PathLike[str]) -> TaskPredictions:
    """One prediction file. Raises DataError when it is missing, damaged, or its arrays do not fit each other."""
    file = Path(path)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise DataError(f"{file}: no such prediction file; `eyesmith eval` writes them") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: cannot be read as a prediction file ({error}); evaluate again") from None
    kind = next((kind for kind, names in _KINDS.items() if all(name in arrays for name in names)), None)
    if kind is None:
        raise DataError(f"{file}: is no prediction file; it has the arrays {', '.join(arrays) or 'none'}")
    first = _KINDS[kind][0]
    for name in _ROWS:
        if name in arrays and len(arrays[name]) != len(arrays[first]):
            raise DataError(f"{file}: {name!r} has {len(arrays[name])} rows for {len(arrays[first])} {first}; redo it")
    return TaskPredictions(task=file.stem, kind=kind, where=str(file), arrays=arrays)


def prediction_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The prediction files of an evaluation by their task's file name, sorted.

    folder: the evaluation's, or the predictions folder in it. Raises DataError when there are none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that `eyesmith eval --out` wrote")
    home = root / FOLDER if (root / FOLDER).is_dir() else root
    found = {file.stem: file for file in sorted(home.glob("*.npz")) if file.name[0] != "."}
    if not found:
        raise DataError(f"{root}: no prediction files ({FOLDER}/*.npz); `eyesmith eval --out` writes them")
    return found


def choose_tasks(files: dict[str, Path], tasks: Sequence[str], *, where: str) -> dict[str, Path]:
    """The files of `tasks` (keys, with / or -), all when none is named. Raises DataError for one that is not there."""
    chosen = {}
    for task in tasks or list(files):
        if file_name(task) not in files:
            raise DataError(f"{where}: has no predictions for {task!r}{closest(task, files)}")
        chosen[file_name(task)] = files[file_name(task)]
    return chosen


def file_name(task: str) -> str:
    """The name, without extension, of the file of a task key."""
    return task.replace("/", "-")
