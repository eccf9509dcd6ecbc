"""Prediction files: what a model said of each sample of a task, small enough to keep for every task of a suite.

`predictions/<task key, / as ->.npz` of an evaluation holds the records of the task's kind (see `eyesmith.eval.kinds`):
for classification keys [N] str, targets [N] int32 (right class), ranks [N] int32 (how many classes came before it), top
[N, 5] int32 and top_score [N, 5] float32 (the best classes), num_classes []. One format is written; files of before,
which lack num_classes, are read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from eyesmith.config import closest
from eyesmith.errors import DataError
from eyesmith.eval.kinds.registry import KINDS, kind_of
from eyesmith.eval.sets.registry import TASKS
from eyesmith.files import DAMAGED_ZIP, atomic_path

FOLDER = "predictions"


@dataclass(frozen=True, kw_only=True)
class TaskPredictions:
    """One file. task: its name without extension; kind: what was scored; records: as stored; where: the path; data:
    the fingerprint of the samples, "" in files of before."""

    task: str
    kind: str
    where: str
    records: dict[str, NDArray[Any]]
    data: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The samples: keys of images, cues of WinoGAViL."""
        return tuple(str(key) for key in self.records.get("keys", self.records.get("cues", ())))


def write_records(
    folder: str | os.PathLike[str], task: str, records: Mapping[str, NDArray[Any]], *, data: str = ""
) -> Path:
    """Write `folder`/predictions/TASK.npz, whole or not at all; returns its path.

    data: the fingerprint of the samples, wherever they lie; "" where nobody says.
    """
    records = {**records, "data": np.array(data)} if data else records
    path = Path(folder) / FOLDER / f"{file_name(task)}.npz"
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez(stream, **cast(dict[str, Any], dict(records)))
    return path


def read_predictions(path: str | os.PathLike[str]) -> TaskPredictions:
    """One prediction file. Raises DataError when it is missing, damaged, or its arrays do not fit each other."""
    file = Path(path)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            records = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise DataError(f"{file}: no such prediction file; `eyesmith eval` writes them") from None
    except DAMAGED_ZIP as error:
        raise DataError(f"{file}: cannot be read as a prediction file ({error}); evaluate again") from None
    task = next((task for key, task in TASKS.items() if file_name(key) == file.stem), None)
    kinds = [] if task is None else [kind_of(task)]
    kind = next((one for one in (*kinds, *KINDS.values()) if all(name in records for name in one.arrays)), None)
    if kind is None:
        raise DataError(f"{file}: is no prediction file; it has the arrays {', '.join(records) or 'none'}")
    if "top" in kind.arrays:
        first = len(records[kind.arrays[0]])
        for name in (*kind.arrays, "top_score", "groups"):
            if name in records and len(records[name]) != first:
                raise DataError(f"{file}: {name!r} has {len(records[name])} rows for {first} {kind.arrays[0]}; redo it")
        if "num_classes" not in records:  # a file of before: the most that is named in it
            named = [int(records[name].max(initial=-1)) for name in ("top", "targets")]
            records["num_classes"] = np.array(1 + max(named))
    data = str(records.pop("data", ""))
    return TaskPredictions(task=file.stem, kind=kind.name, where=str(file), records=records, data=data)


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
        raise DataError(f"{root}: no prediction files ({FOLDER}/*.npz); {_where_else(root)}")
    return found


def _where_else(root: Path) -> str:
    """How to come by predictions where a folder has none."""
    if (inner := root / "eval").is_dir() and any((inner / FOLDER).glob("*.npz")):
        return f"those of its suites are in {inner}"
    if (root / "results.jsonl").is_file():  # of a made set rows alone are written
        return (
            "of the splits of a made set none are kept: `eyesmith compare-models A B --data SET/SPLIT` compares two "
            "models on one"
        )
    return "`eyesmith eval --out` writes them"


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
