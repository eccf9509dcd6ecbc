"""The table of splits for a terminal: the last lines of the quick start and of `eyesmith eval`."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from eyesmith.eval.results.rows import ResultRow
from eyesmith.plain import plain
from eyesmith.report.measured import splits_in_order
from eyesmith.report.words import TASK_TITLES, count, interval_text, metric_title, percent, split_title


def splits_table(
    rows: Sequence[ResultRow], baseline_rows: Sequence[ResultRow] = (), *, tasks: Sequence[str] | None = None
) -> Table:
    """One line a split and metric: ours with its 95 % interval, the baseline (when given), chance, and n.

    The model is that of the first row; rows of another one are left out, as are baseline rows without a partner. A
    (task, split, metric) that comes twice is shown with its last row.
    tasks: those to show, all when None; several, and a user's own, get a line with the key of their result lines. Fits
    into 80 columns.
    """
    rows = [row for row in rows if row.model == rows[0].model]
    ours = {(row.task, row.split, row.metric): row for row in rows}
    baseline = {(row.task, row.split, row.metric): row for row in baseline_rows}
    shown = [task for task in dict.fromkeys(row.task for row in rows) if tasks is None or task in tasks]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("split", overflow="fold")  # what gives way where there is little room, so that no number does
    table.add_column("metric", no_wrap=True)
    table.add_column(
        Text(plain(next((row.model for row in rows), "model"))), justify="right", style="bold cyan", no_wrap=True
    )
    table.add_column("95 %", justify="right", no_wrap=True)
    if baseline:
        table.add_column(
            Text(plain(next(iter(baseline.values())).model)), justify="right", style="yellow", no_wrap=True
        )
    table.add_column("chance", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for task in shown:
        keys = [key for key in ours if key[0] == task]
        if len(shown) > 1 or task not in TASK_TITLES:
            names = [task] if task not in TASK_TITLES else [task, TASK_TITLES[task]]
            table.add_row(*(Text(plain(name), style="italic") for name in names))
        for split in splits_in_order([key[1] for key in keys]):
            for key in (key for key in keys if key[1] == split):
                row, other = ours[key], baseline.get(key)
                cells = [
                    plain(split_title(split, task)),
                    plain(metric_title(row.metric)),
                    percent(row.value),
                    interval_text(row),
                ]
                if baseline:
                    cells.append(percent(other.value if other else None))
                table.add_row(*map(Text, [*cells, percent(row.chance), count(row.n)]))
    return table
