"""The leaderboard as CSV: one line a suite and model, with averages, facts and every task."""

import csv
import io

from eyesmith.eval.published.tables import FACTS
from eyesmith.eval.sets import TASKS
from eyesmith.plain import csv_cell
from eyesmith.report.leaderboard.board import Board, Entry


def render_csv(board: Board) -> str:
    """Columns: suite, model, role, averages (fractions; `x_printed` for slips of the print), facts, tasks, source."""
    entries = [(one.suite, entry) for one in board.suites for entry in one.entries]
    averages = list(dict.fromkeys(name for _, entry in entries for name in entry.averages))
    slips = [name for name in averages if any(_printed(entry, name) for _, entry in entries)]
    facts = [name for name in FACTS if any(name in entry.facts for _, entry in entries)]
    tasks = [key for key in TASKS if any(key in entry.tasks for _, entry in entries)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["suite", "model", "role", *averages, *(f"{name}_printed" for name in slips), *facts, *tasks, "source", "note"]
    )
    for suite, entry in entries:
        cells = [suite.name, entry.label, entry.role]
        cells += [f"{entry.averages[name].value:.6g}" if name in entry.averages else "" for name in averages]
        cells += [_printed(entry, name) for name in slips]
        cells += [str(entry.facts.get(name, "")) for name in facts]
        cells += [f"{entry.tasks[key].value:.6g}" if key in entry.tasks else "" for key in tasks]
        writer.writerow([*map(csv_cell, (*cells, entry.source, entry.note))])
    return buffer.getvalue()


def _printed(entry: Entry, name: str) -> str:
    cell = entry.averages.get(name)
    return "" if cell is None or cell.printed is None else f"{cell.printed:.6g}"
