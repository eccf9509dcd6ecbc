"""What the lab found: one record for each finished cell, each contender's cost here, and what failed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from eyesmith.errors import DataError
from eyesmith.eval.results.rows import ResultRow
from eyesmith.lab.plan import LabPlan


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One finished training run and what it reached."""

    id: str
    groups: tuple[str, ...]
    """The groups of the plan that it belongs to."""
    encoder: str
    """As the plan names it, such as ViT/16."""
    family: str
    size: str
    """"" for an encoder that has one size only."""
    paper: str
    """The model of ViTamin's benchmark that it stands for; "" for none."""
    recipe: str
    data: str
    """The data set it was trained on, as the plan names it."""
    seed: int
    budget: float
    """As the plan states it, in the plan's unit."""
    level: int
    """Place of the budget among the plan's, 0 for the smallest."""
    samples: int
    """Images seen in training, over all epochs."""
    parameters: int
    """Of the image tower with its projection."""
    gmacs: float
    """Of the image tower for one image."""
    train_s: float
    """Seconds in training steps."""
    cpu_s: float
    """Processor seconds of the last process that worked on the cell, evaluation included."""
    loss: float
    """Training loss, mean over the last tenth of the logged steps."""
    rows: tuple[ResultRow, ...]
    folder: Path

    def row(self, split: str, metric: str = "acc1", task: str = "zero_shot") -> ResultRow:
        """The result row of that name. Raises DataError where the cell has none."""
        for row in self.rows:
            if (row.task, row.split, row.metric) == (task, split, metric):
                return row
        known = sorted({f"{row.task}/{row.split}/{row.metric}" for row in self.rows})
        raise DataError(f"{self.id}: has no {task}/{split}/{metric}; it has {', '.join(known)}")

    def value(self, split: str, metric: str = "acc1", task: str = "zero_shot") -> float:
        """The value of that row, a fraction."""
        return self.row(split, metric, task).value


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that did not finish. message: the last thing its process said."""

    id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one contender costs on this machine. Latencies by batch size: median and quartiles, milliseconds."""

    encoder: str
    size: str
    parameters: int
    gmacs: float
    latency_ms: dict[int, float]
    latency_low: dict[int, float]
    latency_high: dict[int, float]
    peak_mib: float
    """Memory that a forward pass of the larger batch adds at most."""


@dataclass(frozen=True, kw_only=True)
class LabResults:
    """Everything that the answers are made of."""

    plan: LabPlan
    cells: tuple[CellResult, ...]
    missing: tuple[str, ...] = ()
    """Cells of the plan that were not run yet, by id."""
    failed: tuple[Failure, ...] = ()
    measured: tuple[Measured, ...] = ()
    encoder_files: tuple[str, ...] = ()
    """Of encoders that are no part of this library."""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    folder: Path
    """Of the plan's answers, OUT/PLAN."""


def folder_names(paths: Iterable[str]) -> dict[str, str]:
    """What data sets are called: by path, as many of its last parts as tell them apart, the folder's name at best."""
    parts = {path: Path(path).parts or (path,) for path in paths}
    for count in range(1, max(map(len, parts.values()), default=1) + 1):
        names = {path: "/".join(one[-count:]) for path, one in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: path for path in parts}


def summary(cells: Sequence[CellResult]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of a table: zero-shot top-1 in per cent on each split, the mean over seeds."""
    splits = list(dict.fromkeys(row.split for cell in cells for row in cell.rows if row.task == "zero_shot"))
    names = folder_names([cell.data for cell in cells])
    alike: dict[tuple[str, str, str, str, int], list[CellResult]] = {}
    for cell in cells:
        alike.setdefault((cell.encoder, cell.size, cell.recipe, names[cell.data], cell.samples), []).append(cell)
    rows = []
    for (encoder, size, recipe, data, samples), same in sorted(alike.items()):
        means = (f"{100 * fmean(cell.value(split) for cell in same):.1f}" for split in splits)
        rows.append((f"{encoder} {size}".strip(), recipe, data, f"{samples:,}", str(len(same)), *means))
    return ("encoder", "recipe", "data", "images", "seeds", *(f"top-1 % {split}" for split in splits)), rows
