"""The three CSV tables of open_clip's documentation, read and written.

Columns, as there: `openclip_results.csv` = name, pretrained, params (M), FLOPs (B), the average, ImageNet 1k, then the
other tasks of DataComp's 38 in its order; `openclip_classification_results.csv` the same for 35; and
`openclip_retrieval_results.csv` = recalls of Flickr and MSCOCO and seven numbers of WinoGAViL, with the plain mean of
these 19. Fractions with four decimals, best average first.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from eyesmith.errors import DataError
from eyesmith.eval.results.lines import read_table
from eyesmith.eval.results.models import ModelResults, TaskRecord, number
from eyesmith.eval.sets import SUITES, TASKS, aggregate
from eyesmith.files import write_atomic
from eyesmith.plain import plain

MODEL_COLUMNS = ("name", "pretrained", "params (M)", "FLOPs (B)")
AVERAGES = {38: "Average perf. on 38 datasets", 35: "Average perf. on 35 datasets"}
AVERAGE_SCORE = "Average score"
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
COCO = "retrieval/mscoco_2014_5k_test_image_text_retrieval"
WINOGAVIL = "misc/winogavil"

RETRIEVAL_COLUMNS: dict[str, tuple[str, str]] = {
    f"{TASKS[key].name} {side} retr. R@{k}": (key, f"{side}_retrieval_recall@{k}")
    for key in (FLICKR, COCO)
    for side in ("image", "text")
    for k in (1, 5, 10)
} | {
    f"WinoGAViL {metric.replace('_', ' ')}": (WINOGAVIL, metric)
    for metric in (
        "avg_jaccard_score",
        "jaccard_score_10",
        "jaccard_score_10-12",
        "jaccard_score_12",
        "jaccard_score_5",
        "jaccard_score_5-6",
        "jaccard_score_6",
    )
}


def task_columns(count: int = 38) -> dict[str, str]:
    """Task key by column name, in column order, of the table of 38 or 35 data sets."""
    wanted = "average" if count == 38 else "classification"
    keys = next(one.keys for one in SUITES["datacomp"].aggregates if one.name == wanted)
    ordered = ["imagenet1k", *(key for key in keys if key != "imagenet1k")]
    return {TASKS[key].name: key for key in ordered}


def read_open_clip_csv(path: str | os.PathLike[str]) -> list[ModelResults]:
    """Models of any of the three tables. Raises DataError for a file of another form or a cell that is no number."""
    header, rows = read_table(path)
    if not is_open_clip_header(header):
        raise DataError(
            f"{path}: no table of open_clip's results; its first line lacks name, pretrained and an average"
        )
    return [_model(line, f"{path}: line {number}", str(path)) for number, line in enumerate(rows, start=2)]


def is_open_clip_header(header: Iterable[str]) -> bool:
    """Whether the first line of a CSV is one of the three tables'."""
    known = set(header)
    return {"name", "pretrained"} <= known and bool({*AVERAGES.values(), AVERAGE_SCORE} & known)


def write_results_csv(path: str | os.PathLike[str], models: Iterable[ModelResults], *, count: int = 38) -> None:
    """Write the table of 38 (or 35) data sets. Raises DataError naming what a model lacks: no row has a hole."""
    columns = task_columns(count)
    suite, wanted = SUITES["datacomp"], "average" if count == 38 else "classification"
    rows = []
    for model in models:
        values = model.main_values(suite)
        averages = aggregate(suite, values, allow_missing=True)
        if wanted not in averages:
            lacking = [TASKS[key].name for key in columns.values() if values.get(key) is None]
            raise DataError(f"{model.full_name}: {len(lacking)} of {count} tasks are missing: {', '.join(lacking)}")
        cells = {name: values[key] for name, key in columns.items()}
        rows.append((averages[wanted], _model_cells(model) | {AVERAGES[count]: averages[wanted]} | cells))
    _write(path, [*MODEL_COLUMNS, AVERAGES[count], *columns], rows)


def write_retrieval_csv(path: str | os.PathLike[str], models: Iterable[ModelResults]) -> None:
    """Write the retrieval table. Raises DataError naming the number that a model lacks."""
    rows = []
    for model in models:
        cells: dict[str, float | None] = {}
        for column, (key, metric) in RETRIEVAL_COLUMNS.items():
            record = model.records.get(key)
            cells[column] = record.value(metric) if record else None
            if cells[column] is None:
                raise DataError(f"{model.full_name}: {TASKS[key].name} has no {metric}; evaluate it first")
        mean = math.fsum(value for value in cells.values() if value is not None) / len(cells)
        rows.append((mean, _model_cells(model) | {AVERAGE_SCORE: mean} | cells))
    _write(path, [*MODEL_COLUMNS, AVERAGE_SCORE, *RETRIEVAL_COLUMNS], rows)


def _model_cells(model: ModelResults) -> dict[str, float | str | None]:
    params = _total(model.facts, "params_m", "image_params_m", "text_params_m")
    macs = _total(model.facts, "gmacs", "image_gmacs", "text_gmacs")
    flops = None if macs is None else 2 * macs  # the table counts a multiply-add as two
    return dict(zip(MODEL_COLUMNS, (model.model, model.pretrained, params, flops), strict=True))


def _total(facts: Mapping[str, float | str], whole: str, *parts: str) -> float | None:
    """A fact of both towers together: as given, else the sum of both; None where a part is missing."""
    numbers = [value for value in map(facts.get, parts) if isinstance(value, int | float)]
    given = facts.get(whole, sum(numbers) if len(numbers) == len(parts) else None)
    return given if isinstance(given, int | float) else None


def _write(
    path: str | os.PathLike[str], columns: list[str], rows: list[tuple[float, dict[str, float | str | None]]]
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for _, cells in sorted(rows, key=lambda row: -row[0]):
        writer.writerow([_shown(column, cells.get(column)) for column in columns])
    write_atomic(Path(path), buffer.getvalue())


def _shown(column: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return plain(value or "")
    return f"{value:.2f}" if column in MODEL_COLUMNS else f"{value:.4f}"


def _model(line: Mapping[str, str | None], where: str, source: str) -> ModelResults:
    def cell(column: str) -> float | None:
        text = (line.get(column) or "").strip()
        try:
            return number(float(text), where) if text else None
        except ValueError:
            raise DataError(f"{where}, {column}: expected a number, got {text!r}") from None

    if not line.get("name"):
        raise DataError(f"{where}: the name is missing")
    facts: dict[str, float | str] = {}
    for column, name, scale in (("params (M)", "params_m", 1.0), ("FLOPs (B)", "gmacs", 0.5)):
        value = cell(column)
        if value is not None:
            facts[name] = value * scale
    records = _retrieval_records(cell) if AVERAGE_SCORE in line else _task_records(cell)
    return ModelResults(
        model=str(line["name"]), pretrained=line.get("pretrained") or "", source=source, facts=facts, records=records
    )


def _task_records(cell: Callable[[str], float | None]) -> dict[str, TaskRecord]:
    records = {}
    for name, key in task_columns().items():
        value = cell(name)
        if value is not None:
            metric = str(TASKS[key].metric)
            records[key] = TaskRecord(key=key, name=name, metrics={metric: value}, main_metric=metric, main=value)
    return records


def _retrieval_records(cell: Callable[[str], float | None]) -> dict[str, TaskRecord]:
    metrics: dict[str, dict[str, float]] = {}
    for column, (key, metric) in RETRIEVAL_COLUMNS.items():
        value = cell(column)
        if value is not None:
            metrics.setdefault(key, {})[metric] = value
    for key in (FLICKR, COCO):
        sides = [metrics.get(key, {}).get(f"{side}_retrieval_recall@1") for side in ("image", "text")]
        numbers = [value for value in sides if value is not None]
        if len(numbers) == 2:
            metrics[key]["mean_recall@1"] = sum(numbers) / 2
    return {
        key: TaskRecord(
            key=key,
            name=TASKS[key].name,
            metrics=numbers,
            main_metric=TASKS[key].metric,
            main=numbers.get(str(TASKS[key].metric)),
        )
        for key, numbers in metrics.items()
    }
