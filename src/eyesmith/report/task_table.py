"""The table of a suite for a terminal: a line a task, then the averages."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from eyesmith.eval.results.task_result import TaskResult
from eyesmith.eval.statistics.calibrated import TEMPERATURE
from eyesmith.plain import plain
from eyesmith.report.words import count, interval_text, percent


def tasks_table(
    results: Sequence[TaskResult],
    mains: Mapping[str, str | None],
    averages: Mapping[str, float],
    *,
    all_metrics: bool = False,
) -> Table:
    """mains: the main metric's name by task key; averages: by title. all_metrics: a line for each with an interval."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", style="bold cyan", no_wrap=True)
    for title in ("95 %", "chance", "n"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in results:
        main = mains.get(result.key)
        if not result.is_measured:
            table.add_row(
                Text(plain(result.dataset)), Text("missing" if result.is_missing else "failed", style="yellow")
            )
            continue
        rows = {row.metric: row for row in result.rows}
        shown = list(rows) if all_metrics else [main] if main is not None else []
        if not shown:
            table.add_row(Text(plain(result.dataset)), Text("no main metric"))
        for metric in shown:
            row = rows.get(metric)
            value = result.metrics.get(metric, row.value if row else None)
            shown_value = f"{value:.2f}" if metric == TEMPERATURE and value is not None else percent(value)
            cells = [result.dataset, metric, shown_value, interval_text(row)]
            cells += [percent(row.chance), count(row.n)] if row else ["–", "–"]
            table.add_row(*(Text(plain(cell)) for cell in cells))
    for number, (title, value) in enumerate(averages.items()):
        table.add_row(Text(title, style="bold"), "", Text(percent(value)), end_section=number == len(averages) - 1)
    return table
