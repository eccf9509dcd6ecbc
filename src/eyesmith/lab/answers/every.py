"""All answers of a plan, and the numbers they rest on as JSON and CSV."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eyesmith.lab.answers.ablation import TITLES, AblationAnswer, answer_ablation
from eyesmith.lab.answers.answer import Answer, grid_points
from eyesmith.lab.answers.correlation import CorrelationAnswer, answer_correlation
from eyesmith.lab.answers.data import DataAnswer, answer_data
from eyesmith.lab.answers.hybrid import HybridAnswer, answer_hybrid
from eyesmith.lab.answers.resolution import answer_resolution
from eyesmith.lab.answers.size import answer_size
from eyesmith.lab.answers.spread import Metric, metrics_of
from eyesmith.lab.result import LabResults
from eyesmith.plain import csv_cell
from eyesmith.report.measured import splits_in_order


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a plan says, by one metric. Questions that the plan does not ask are None; ablations in its order.

    others: the correlation by every other metric that the cells have.
    """

    metric: Metric
    data: DataAnswer | None = None
    size: Answer | None = None
    resolution: Answer | None = None
    hybrid: HybridAnswer | None = None
    ablations: tuple[AblationAnswer, ...] = ()
    correlation: CorrelationAnswer | None = None
    others: tuple[tuple[Metric, CorrelationAnswer], ...] = ()

    @property
    def all(self) -> tuple[Answer, ...]:
        """Every answer that there is, in the order of the page."""
        found = (self.hybrid, self.data, self.size, self.resolution, *self.ablations, self.correlation)
        return tuple(one for one in found if one is not None)


def main_metric(results: LabResults) -> Metric | None:
    """Zero-shot top-1 of the first split in our order; another metric where there is none; None without any."""
    known = metrics_of(results.cells)
    usual = [metric for metric in known if (metric.task, metric.metric) == ("zero_shot", "acc1")]
    candidates = usual or known
    splits = splits_in_order([metric.split for metric in candidates])
    return next((metric for split in splits for metric in candidates if metric.split == split), None)


def answer_all(results: LabResults, metric: Metric | None = None) -> Answers | None:
    """Answers to the questions of the plan's groups; None where no cell was measured yet.

    A group with question "grid" asks for data, size and hybrid; resolution looks at the grid's encoders too.
    """
    metric = metric or main_metric(results)
    if metric is None:
        return None
    data, size, hybrid = (grid_points(results, metric, "grid", one) for one in ("data", "size", "hybrid"))
    asked = any(group.question == "resolution" for group in results.plan.groups)
    resolution = grid_points(results, metric, "resolution", "grid") if asked else []
    ablations = [group for group in results.plan.groups if group.question in TITLES]
    return Answers(
        metric=metric,
        data=answer_data(data) if data else None,
        size=answer_size(size) if size else None,
        hybrid=answer_hybrid(hybrid, results.measured) if hybrid else None,
        resolution=answer_resolution(resolution) if resolution else None,
        ablations=tuple(answer_ablation(results, group, metric) for group in ablations),
        correlation=answer_correlation(data) if data else None,
        others=tuple(
            (other, answer_correlation(grid_points(results, other, "grid", "data")))
            for other in metrics_of(results.cells)
            if data and other != metric
        ),
    )


def to_json(answers: Answers) -> dict[str, Any]:
    """answers.json: by name, every field of every answer; NaN as null."""
    content: dict[str, Any] = {"metric": dataclasses.asdict(answers.metric)}
    content["answers"] = {one.name: _plain(dataclasses.asdict(one)) for one in answers.all}
    content["correlation_by_metric"] = [
        {**dataclasses.asdict(metric), "correlations": _plain([dataclasses.asdict(row) for row in one.correlations])}
        for metric, one in answers.others
    ]
    return content


def rows_csv(rows: Sequence[Any]) -> str:
    """One line a row (frozen dataclasses of one kind), fractions with six digits; empty for no rows."""
    buffer = io.StringIO()
    if not rows:
        return ""
    names = [field.name for field in dataclasses.fields(rows[0])]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in names])
    return buffer.getvalue()


def results_csv(results: LabResults) -> str:
    """results.csv: one line for every result row of every cell."""
    cell_names = [
        "id", "groups", "encoder", "family", "size", "paper", "recipe", "data", "seed", "budget", "level", "samples",
        "parameters", "gmacs", "train_s", "cpu_s", "loss",
    ]  # fmt: skip
    row_names = ["task", "split", "metric", "value", "low", "high", "n", "chance"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*cell_names, *row_names])
    for cell in results.cells:
        start = [_cell(getattr(cell, name)) for name in cell_names]
        for row in cell.rows:
            writer.writerow([*start, *(_cell(getattr(row, name)) for name in row_names)])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return csv_cell(text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
