"""The folders of a lab: OUT/cells/ID for each run, asked for and answered in files, and OUT/PLAN for the answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval.results.rows import ResultRow
from eyesmith.files import load_json, locked, write_atomic, write_json
from eyesmith.lab.cells import Cell
from eyesmith.lab.plan import LabPlan
from eyesmith.lab.result import CellResult, Failure
from eyesmith.tasks import run_to_dict

CELLS = "cells"
PLAN_FILE = "plan.json"  # in OUT/PLAN: the plan as it was run, with all changes; `lab run` takes it
RUN = "run"  # below a cell's folder: the run folder
_REQUEST, _RESULT, _ERROR, _LOCK = "cell.json", "result.json", "error.txt", "lock"


def cell_folder(out: Path, cell_id: str) -> Path:
    """Where a cell of that name lies; plans of one OUT share it."""
    return out / CELLS / cell_id


def write_request(folder: Path, cell: Cell, plan: LabPlan, encoder_files: Sequence[str]) -> None:
    """Ask for a cell; a process that knows nothing but this folder can run it."""
    keeps = plan.keep == "all" or (plan.keep == "largest" and cell.budget == plan.budgets[-1])
    content = {
        **cell.labels(),
        "train": run_to_dict(cell.config),
        "eval_data": plan.eval_data or cell.data,
        "splits": list(plan.splits),
        "keeps_weights": keeps,
        "encoder_files": [str(Path(file).resolve()) for file in encoder_files],
        **({"pictures": cell.pictures} if cell.pictures else {}),
    }
    if not (folder / _REQUEST).is_file() or read_request(folder) != content:
        write_json(folder / _REQUEST, content)


def read_request(folder: Path) -> dict[str, Any]:
    """What a cell's folder asks for. Raises CheckpointError where it asks for nothing."""
    return _read(folder / _REQUEST)


def is_done(folder: Path) -> bool:
    """Whether the cell was run and measured; its result is written last."""
    return (folder / _RESULT).is_file()


def check_data(folder: Path, cell: Cell) -> None:
    """Raise ConfigError where the finished cell in `folder` was of other data than lie at its place now."""
    was = read_request(folder).get("pictures", "") if (folder / _REQUEST).is_file() else ""
    if was and cell.pictures and was != cell.pictures:
        raise ConfigError(
            f"{folder}: was trained and measured on other samples than {cell.data} holds now, so it is no part of one "
            "comparison with cells of these; take another --out, or delete the folder to run it again"
        )


def write_result(folder: Path, facts: dict[str, Any], rows: Sequence[ResultRow]) -> None:
    """Answer a cell: it is done from now on."""
    (folder / _ERROR).unlink(missing_ok=True)
    write_json(folder / _RESULT, {**facts, "rows": [asdict(row) for row in rows]})


def read_result(folder: Path, cell: Cell) -> CellResult:
    """The answer of a finished cell, as a part of the plan that `cell` was made for."""
    found = _read(folder / _RESULT)
    labels = {name: value for name, value in cell.labels().items() if name != "groups"}
    try:
        rows = tuple(ResultRow(**row) for row in found.pop("rows"))
        return CellResult(
            **labels, **found, groups=cell.groups, budget=cell.budget, level=cell.level, rows=rows, folder=folder
        )
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{folder / _RESULT}: not the result of a cell ({error}); delete it to run it again"
        ) from None


def read_failure(folder: Path) -> Failure | None:
    """Why the cell did not finish the last time, None where nothing went wrong."""
    path = folder / _ERROR
    return Failure(id=folder.name, message=path.read_text(encoding="utf-8").strip()) if path.is_file() else None


def write_failure(folder: Path, message: str) -> None:
    """Note why the cell did not finish."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _ERROR, message + "\n")


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Work on a cell alone. False where another process works on it; the system lets go when a process ends."""
    with locked(folder / _LOCK, wait=False) as is_ours:
        yield is_ours


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file, so this is no cell of a lab") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is broken ({error}); delete the cell's folder to run it again") from None
