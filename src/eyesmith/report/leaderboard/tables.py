"""The page's tables: one line a model and suite, one line a task, and the sets that belong to no suite."""

from collections.abc import Mapping, Sequence

from eyesmith.eval.results import TaskRecord
from eyesmith.eval.sets import Aggregate
from eyesmith.eval.statistics.calibrated import TEMPERATURE
from eyesmith.report.leaderboard.board import Cell, Entry, SuiteBoard
from eyesmith.report.markup import Child, Markup, element, join
from eyesmith.report.words import SPACE, count, metric_title

FACT_TITLES = {
    "image_px": "Image px",
    "params_m": "Params, M",
    "gmacs": "GMACs",
    "samples_b": "Seen, 1e9",
    "data": "Data",
}


def suite_table(board: SuiteBoard) -> Markup:
    """Models and averages of a suite, best first; every column sorts."""
    facts = [name for name in FACT_TITLES if any(name in entry.facts for entry in board.entries)]
    averages = [
        one
        for one in board.suite.aggregates
        if not one.is_extra and any(one.name in entry.averages for entry in board.entries)
    ]
    heads = [head("Model", is_number=False)]
    heads += [head(one.title, lower_is_better=one.lower_is_better) for one in averages]
    heads += [head("Tasks")] + [head(FACT_TITLES[name], is_number=name != "data") for name in facts]
    best = {one.name: _best(board.entries, one) for one in averages}
    rows = [_suite_row(board, entry, averages, facts, best) for entry in board.entries]
    return plain_table(heads, rows, label=board.suite.title)


def _suite_row(
    board: SuiteBoard, entry: Entry, averages: Sequence[Aggregate], facts: Sequence[str], best: Mapping[str, float]
) -> Markup:
    cells = [element("th", entry.label, element("small", _origin(entry)), scope="row", data_value=entry.label)]
    for one in averages:
        cell = entry.averages.get(one.name)
        is_best = cell is not None and cell.value == best.get(one.name)
        cells.append(_score(cell, is_best=is_best))
    number = len(entry.tasks)
    total = sum(task.metric is not None for task in board.suite.tasks)  # the others enter no average
    shown = f"{number} of {total}" if number or entry.role == "ours" else None
    cells.append(number_cell(number if shown else None, shown))
    for name in facts:
        value = entry.facts.get(name)
        if isinstance(value, str):
            cells.append(element("td", value, class_="word", data_value=value))
        else:
            shown = None if value is None else f"{value:,.1f}" if name in ("params_m", "gmacs") else f"{value:.4g}"
            cells.append(number_cell(value, shown))
    return element("tr", cells, class_="ours" if entry.role == "ours" else None)


def _origin(entry: Entry) -> Child:
    if entry.role == "published":
        mark = element("a", "slip", href="#slips") if entry.note else None
        return join(entry.source, ", " if mark else None, mark)
    if entry.partial:
        return f"measured on a part of {len(entry.partial)} sets, not comparable"
    if entry.missing:
        names = ", ".join(entry.missing[:3])
        rest = len(entry.missing) - 3
        return f"missing: {names}{f' and {rest} more' if rest > 0 else ''}"
    return "measured"


def _best(entries: Sequence[Entry], one: Aggregate) -> float:
    values = [entry.averages[one.name].value for entry in entries if one.name in entry.averages]
    return min(values) if one.lower_is_better else max(values)


def task_table(board: SuiteBoard) -> Markup | None:
    """One line a task, one column a measured model; None where no model was measured."""
    models = [entry for entry in board.measured if entry.tasks]
    if not models:
        return None
    heads = [head("Task", is_number=False), *(head(entry.label) for entry in models), head("Chance")]
    rows = []
    for task in board.suite.tasks:
        cells = [entry.tasks.get(task.key) for entry in models]
        if not any(cells):
            continue
        metric = board.suite.main_metric(task) or ""
        top = max(cell.value for cell in cells if cell is not None)
        small = element("small", metric_title(metric), title=task.key)
        row = [element("th", task.name, small, scope="row", data_value=task.name)]
        row += [_score(cell, is_best=len(models) > 1 and cell is not None and cell.value == top) for cell in cells]
        row.append(number_cell(task.chance, None if task.chance is None else f"{100 * task.chance:.1f}"))
        rows.append(element("tr", row))
    return plain_table(heads, rows, label=f"{board.suite.title}: every task")


def others_table(others: Sequence[tuple[str, TaskRecord]]) -> Markup:
    """Sets that belong to no suite: one line a model, set and metric."""
    heads = [head(title, is_number=False) for title in ("Set", "Model", "Metric")]
    heads += [head(title) for title in ("Value", "Chance", "Samples")]
    rows = []
    for model, record in others:
        for metric, value in record.metrics.items():
            if value is None:
                continue
            is_main = metric == record.main_metric
            cell = Cell(value=value, low=record.low if is_main else None, high=record.high if is_main else None)
            chance = record.chance if is_main else None  # like the interval, known of the main metric only
            asked = record.counts.get(metric)
            rows.append(
                element(
                    "tr",
                    element("th", record.name, scope="row", data_value=record.name),
                    element("td", model, data_value=model),
                    element("td", metric_title(metric), data_value=metric),
                    number_cell(value, f"{value:.2f}") if metric == TEMPERATURE else _score(cell),
                    number_cell(chance, None if chance is None else f"{100 * chance:.1f}"),
                    number_cell(asked, None if asked is None else count(asked)),
                )
            )
    return plain_table(heads, rows, label="Other sets")


def missing_notes(board: SuiteBoard) -> Markup | None:
    """Which sets each measured model lacks, all by name."""
    items = [
        element("li", element("strong", entry.label), ": ", ", ".join(entry.missing))
        for entry in board.measured
        if entry.missing
    ]
    if not items:
        return None
    models = "1 model" if len(items) == 1 else f"{len(items)} models"
    summary = element("summary", f"Sets without a result, so that an average is left out: {models}")
    return element("details", summary, element("ul", items))


def plain_table(heads: Sequence[Markup], rows: Sequence[Markup], *, label: str) -> Markup:
    """A sortable table that scrolls sideways where it must. label: what it shows, for those who hear the page."""
    table = element(
        "table", element("thead", element("tr", heads)), element("tbody", rows), class_="sortable", aria_label=label
    )
    scroll = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)
    return element("div", scroll, class_="board")


def head(title: str, *, is_number: bool = True, lower_is_better: bool = False) -> Markup:
    """A column's head, a button that sorts; numbers start with the highest unless lower is better."""
    first = "descending" if is_number and not lower_is_better else "ascending"
    return element(
        "th",
        element("button", title, type="button"),
        scope="col",
        class_="n" if is_number else None,
        data_first=first,
    )


def _score(cell: Cell | None, *, is_best: bool = False) -> Markup:
    if cell is None:
        return element("td", "–", class_="n")
    parts: list[Child] = []
    if cell.printed is not None:
        parts.append(element("del", f"{100 * cell.printed:.1f}", title="as printed"))
    parts.append(f"{100 * cell.value:.1f}")
    if cell.low is not None and cell.high is not None:
        parts.append(element("small", f"{100 * cell.low:.1f}{SPACE}–{SPACE}{100 * cell.high:.1f}"))
    return element("td", join(parts), class_="n best" if is_best else "n", data_value=f"{cell.value:.6f}")


def number_cell(value: float | None, shown: str | None) -> Markup:
    """A cell that sorts by `value` and shows `shown`; a dash where either is None."""
    if value is None or shown is None:
        return element("td", "–", class_="n")
    return element("td", shown, class_="n", data_value=f"{value:.6g}")
