"""What a leaderboard says, as plain data: measured models beside the published rows, suite by suite."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from eyesmith.eval.published import PublishedRow, published_rows
from eyesmith.eval.results import ModelResults, TaskRecord
from eyesmith.eval.sets import SUITES, TASKS, Suite, aggregate

Role = Literal["ours", "published"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table, a fraction. printed: what the paper has instead, where its print has a known slip."""

    value: float
    low: float | None = None
    high: float | None = None
    printed: float | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a suite's table.

    facts: by the names of `eyesmith.eval.published.FACTS`. averages: by name. missing: names of the tasks that the
    suite's averages lack; partial: of those that were measured on fewer images than the set has. source: a file, or a
    paper's table; note: what is wrong with a printed line.
    """

    label: str
    role: Role
    facts: Mapping[str, float | str]
    averages: Mapping[str, Cell]
    tasks: Mapping[str, Cell] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    source: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class SuiteBoard:
    """One suite's table: measured and published lines, best first by the first average that half of them have."""

    suite: Suite
    entries: tuple[Entry, ...]

    @property
    def measured(self) -> tuple[Entry, ...]:
        """The lines that were read from result files."""
        return tuple(entry for entry in self.entries if entry.role == "ours")


@dataclass(frozen=True, kw_only=True)
class Board:
    """The whole page. others: records of sets that belong to no task (a user's own), by model."""

    models: tuple[ModelResults, ...]
    suites: tuple[SuiteBoard, ...]
    others: tuple[tuple[str, TaskRecord], ...] = ()

    @property
    def num_models(self) -> int:
        """How many models the lines are of: a run that was used in several ways has a line for each."""
        return len({model.home or model.line for model in self.models})


def make_board(models: Sequence[ModelResults], *, with_published: bool = True) -> Board:
    """Tables of every suite whose first average some model has, and of those that the other tasks need."""
    suites = []
    for suite in _shown(models):
        entries = [_measured(model, suite) for model in models if model.main_values(suite)]
        if with_published:
            entries += _published(suite)
        first = _order_by(suite, entries)
        entries.sort(key=lambda entry: _order(entry, first, suite), reverse=True)
        suites.append(SuiteBoard(suite=suite, entries=tuple(entries)))
    others = tuple(
        (model.line, record) for model in models for key, record in model.records.items() if key not in TASKS
    )
    return Board(models=tuple(models), suites=tuple(suites), others=others)


def _shown(models: Sequence[ModelResults]) -> list[Suite]:
    """Suites in their order. One whose measured tasks all stand in others too needs its first average."""
    known = {
        suite.name: {key for model in models for key, value in model.main_values(suite).items() if value is not None}
        for suite in SUITES.values()
    }
    chosen = {
        suite.name
        for suite in SUITES.values()
        for model in models
        if suite.aggregates[0].name in aggregate(suite, model.main_values(suite), allow_missing=True)
    }
    covered = {key for name in chosen for key in known[name]}
    for name, keys in known.items():
        if not keys <= covered:
            chosen.add(name)
            covered |= keys
    return [suite for name, suite in SUITES.items() if name in chosen]


def _order_by(suite: Suite, entries: Sequence[Entry]) -> str:
    """The first average that at least half of the lines have; without one, the one that most have."""
    counts = {one.name: sum(one.name in entry.averages for entry in entries) for one in suite.aggregates}
    return next(
        (name for name, count in counts.items() if 2 * count >= len(entries)), max(counts, key=counts.__getitem__)
    )


def _order(entry: Entry, first: str, suite: Suite) -> tuple[bool, float]:
    """Lines that have the average named `first` by it, the others after them by what they have."""
    if first in entry.averages:
        return True, entry.averages[first].value
    known = [entry.averages[one.name].value for one in suite.aggregates if one.name in entry.averages]
    return False, known[0] if known else -1.0


def _measured(model: ModelResults, suite: Suite) -> Entry:
    values = model.main_values(suite)
    tasks = {key: _cell(model.records[key], value, suite) for key, value in values.items() if value is not None}
    averages = aggregate(suite, values, allow_missing=True)
    needed = dict.fromkeys(key for one in suite.aggregates for key in one.keys)
    cells = {}
    for one in suite.aggregates:
        if one.name in averages:
            margin = None if one.lower_is_better else _margin([tasks[key] for key in one.keys])
            value = averages[one.name]
            low, high = (None, None) if margin is None else (max(value - margin, 0.0), min(value + margin, 1.0))
            cells[one.name] = Cell(value=value, low=low, high=high)
    return Entry(
        label=model.line,
        role="ours",
        facts=_with_totals(model.facts),
        averages=cells,
        tasks=tasks,
        missing=tuple(TASKS[key].name for key in needed if values.get(key) is None),
        partial=tuple(TASKS[key].name for key in tasks if _is_partial(model.records[key])),
        source=model.source,
    )


def _cell(record: TaskRecord, value: float, suite: Suite) -> Cell:
    """A task's number; its interval only where it is that of this very metric."""
    if suite.main_metric(TASKS[record.key]) != record.main_metric:
        return Cell(value=value)
    return Cell(value=value, low=record.low, high=record.high)


def _is_partial(record: TaskRecord) -> bool:
    task = TASKS[record.key]
    if task.size is None or record.images is None or task.layout == "winogavil":  # its size counts instances
        return False
    return record.images != task.size  # too many are another set as well


def _margin(cells: Sequence[Cell]) -> float | None:
    """Half the 95 % interval of a mean of tasks, whose samples are independent; None where one has no interval."""
    halves = [(cell.high - cell.low) / 2 for cell in cells if cell.low is not None and cell.high is not None]
    return None if len(halves) < len(cells) else math.sqrt(math.fsum(half**2 for half in halves)) / len(cells)


def _published(suite: Suite) -> list[Entry]:
    """A suite's printed lines. Tables of one suite share a line where they name the same model."""
    grouped: dict[tuple[object, ...], list[PublishedRow]] = {}
    for row in published_rows(suite.name):
        key = (row.model,) if row.table.paper == "EVA-02" else (row.model, *row.facts.values())
        grouped.setdefault(key, []).append(row)
    entries = [_published_entry(suite, rows) for rows in grouped.values()]
    names = Counter(entry.label for entry in entries)
    return [
        replace(entry, label=f"{entry.label}, {entry.facts['samples_b']:g} B seen") if names[entry.label] > 1 else entry
        for entry in entries
    ]


def _published_entry(suite: Suite, rows: Sequence[PublishedRow]) -> Entry:
    facts: dict[str, float | str] = {}
    values: dict[str, float | None] = {}
    averages: dict[str, Cell] = {}
    for row in rows:
        facts |= dict(row.facts) | {name: value for name, value in row.corrected.items() if name in row.facts}
        values |= row.values
        for name, value in row.mended.items():
            printed = row.printed[name]
            averages[name] = Cell(value=value, printed=None if printed == value else printed)
    computed = aggregate(suite, values, allow_missing=True)
    averages = {name: Cell(value=value) for name, value in computed.items()} | averages
    pixels = facts.get("image_px")
    first = rows[0]
    label = first.model if first.table.paper == "EVA-02" or pixels is None else f"{first.model} {pixels:g}"
    return Entry(
        label=label,
        role="published",
        facts=_with_totals(facts),
        averages=averages,
        tasks={key: Cell(value=value) for key, value in values.items() if value is not None},
        source=", ".join(dict.fromkeys(row.table.title for row in rows)),
        note="; ".join(row.note for row in rows if row.note),
    )


def _with_totals(facts: Mapping[str, float | str]) -> dict[str, float | str]:
    """`params_m` and `gmacs` of both towers, where the file gives each tower's."""
    totals = dict(facts)
    for total, parts in {
        "params_m": ("image_params_m", "text_params_m"),
        "gmacs": ("image_gmacs", "text_gmacs"),
    }.items():
        numbers = [value for value in map(facts.get, parts) if isinstance(value, int | float)]
        if total not in totals and len(numbers) == 2:
            totals[total] = round(sum(numbers), 4)
    return totals
