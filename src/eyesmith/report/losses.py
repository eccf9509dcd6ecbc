"""How the parts of a run's loss fell, and what was measured meanwhile: one page, for tasks whose loss is a sum."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eyesmith.errors import DataError
from eyesmith.eval.results.rows import ResultRow, read_rows
from eyesmith.files import write_atomic
from eyesmith.report.charts import Line, line_chart
from eyesmith.report.document import document
from eyesmith.report.markup import Markup, element
from eyesmith.report.words import interval_text, percent
from eyesmith.train.callbacks.logging import LOG_FILE, read_lines
from eyesmith.train.readings import PART

LOSSES_FILE = "losses.html"


def write_losses(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run folder, finished or not, and return its path: `out`, or losses.html in the folder.

    Raises DataError where its log has no step yet.
    """
    root = Path(run)
    lines = read_lines(root)
    steps = [line for line in lines if "loss" in line and "step" in line]
    if not steps:
        raise DataError(f"{root / LOG_FILE}: has no logged step yet; is it a run folder?")
    names = [name for name in steps[-1] if name.endswith(PART)]
    series: dict[str, list[tuple[float, float]]] = {
        name: [(float(line["step"]), float(line[name])) for line in steps if name in line] for name in ("loss", *names)
    }
    measured: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.get("eval", {}).items():
            measured.setdefault(name, []).append((float(line["step"]), float(value)))
    results = root / "results.jsonl"
    rows = read_rows(results) if results.is_file() else []
    title = f"{root.name}: losses"
    page = document(
        title,
        element("header", element("h1", title), element("p", f"{int(steps[-1]['step']):,} steps", class_="lead")),
        element("main", _charts(series, "loss", "{:.2f}".format), _charts(measured, "value", percent), _table(rows)),
    )
    target = Path(out) if out is not None else root / LOSSES_FILE
    write_atomic(target, page)
    return target


def _charts(
    series: Mapping[str, Sequence[tuple[float, float]]], what: str, form: Callable[[float], str]
) -> list[Markup]:
    """A chart a series: parts of a loss differ by more than one scale shows."""
    return [
        element(
            "section",
            element("h2", name),
            line_chart(
                [Line(role="ours", label=name, points=points, has_dots=len(points) < 20)],
                x_label="step",
                y_label=what,
                description=f"{name}: {form(points[0][1])} at step {points[0][0]:g}, {form(points[-1][1])} at the end",
                y_format=form,
            ),
        )
        for name, points in series.items()
        if points
    ]


def _table(rows: Sequence[ResultRow]) -> Markup | None:
    if not rows:
        return None
    head = element("tr", [element("th", name) for name in ("model", "split", "metric", "value", "95 %")])
    body = [
        element(
            "tr",
            [
                element("td", text)
                for text in (row.model, row.split, row.metric, percent(row.value), interval_text(row))
            ],
        )
        for row in rows
    ]
    return element("section", element("h2", "Results"), element("table", head, body))
