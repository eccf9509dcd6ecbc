"""CLIP_benchmark's result files: one JSON a run, and the CSV that its `build` command flattens many into."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eyesmith.config import closest
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results.lines import read_bytes, read_table
from eyesmith.eval.results.models import ModelResults, TaskRecord, number
from eyesmith.eval.sets import TASKS, Task, find_task
from eyesmith.files import load_json, write_atomic, write_json
from eyesmith.plain import plain

RUN_FIELDS = ("dataset", "model", "pretrained", "task", "metrics")
RUN_TASKS = ("zeroshot_classification", "zeroshot_retrieval", "linear_probe", "captioning", "image_caption_selection")


def run_task(task: Task) -> str:
    """CLIP_benchmark's name for what is done on a task's set."""
    return "zeroshot_retrieval" if task.layout == "retrieval" else "zeroshot_classification"


def run_file_name(dataset: str, *, model: str, pretrained: str, task: str, language: str = "en") -> str:
    """Its default name of a run's file, "/" as "-": `{dataset}_{pretrained}_{model}_{language}_{task}.json`."""
    slug = "_".join((dataset, pretrained, model, language, task))
    return f"{slug.replace('/', '-')}.json"


def write_run(
    folder: str | os.PathLike[str],
    *,
    dataset: str,
    model: str,
    pretrained: str,
    task: str,
    metrics: Mapping[str, float | None],
    language: str = "en",
    classnames: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> Path:
    """Write one run's JSON under its default name and return the path. NaN is written as null.

    metrics: as fractions by the reference's names, which are CLIP_benchmark's. Raises ConfigError for an unknown task.
    """
    if task not in RUN_TASKS:
        raise ConfigError(f"unknown CLIP_benchmark task {task!r}{closest(task, RUN_TASKS)}")
    content: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "pretrained": pretrained,
        "task": task,
        "metrics": {
            name: None if value is None or not math.isfinite(value) else float(value) for name, value in metrics.items()
        },
        "language": language,
    }
    if classnames:
        content["classnames"] = list(classnames)
    if templates:
        content["templates"] = list(templates)
    name = run_file_name(dataset, model=model, pretrained=pretrained, task=task, language=language)
    target = Path(folder) / name
    write_json(target, content)
    return target


def is_run(entry: object) -> bool:
    """Whether parsed JSON is the content of a run's file."""
    return isinstance(entry, dict) and all(field in entry for field in RUN_FIELDS)


def read_run(path: str | os.PathLike[str]) -> ModelResults:
    """One run's JSON as the results of its model. Raises DataError for a file of another form."""
    try:
        entry = load_json(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error})") from None
    if not is_run(entry):
        raise DataError(f"{path}: a CLIP_benchmark run has {', '.join(RUN_FIELDS)}; this file does not")
    return _results(entry, entry["metrics"], str(path))


def read_runs_csv(path: str | os.PathLike[str]) -> list[ModelResults]:
    """The runs of a CSV that `clip_benchmark build` wrote, one entry a line."""
    _, rows = read_table(path)
    results = []
    for line_number, line in enumerate(rows, start=2):
        missing = [field for field in RUN_FIELDS if field != "metrics" and line.get(field) is None]
        if missing:
            raise DataError(f"{path}: line {line_number}: column {missing[0]!r} is missing")
        metrics = {
            name: _cell(value, f"{path}: line {line_number}, {name}")
            for name, value in line.items()
            if name not in (*RUN_FIELDS, "language", "model_fullname", "classnames", "templates", "") and value
        }
        results.append(_results(line, metrics, str(path)))
    return results


def write_runs_csv(path: str | os.PathLike[str], runs: Sequence[str | os.PathLike[str]]) -> None:
    """Flatten runs' files into the CSV of `clip_benchmark build`: a column a metric, and `model_fullname`."""
    lines: list[dict[str, Any]] = []
    for run in runs:
        read_run(run)
        entry = load_json(read_bytes(run))
        lines.append({key: value for key, value in entry.items() if key not in ("metrics", "classnames", "templates")})
        lines[-1] |= entry["metrics"] | {"model_fullname": f"{entry['model']} {entry['pretrained']}"}
    columns = list(dict.fromkeys(column for line in lines for column in line))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: plain(one) if isinstance(one, str) else one for key, one in line.items()} for line in lines)
    write_atomic(path, buffer.getvalue())


def _cell(text: str, where: str) -> float | None:
    try:
        return number(float(text), where)
    except ValueError:
        raise DataError(f"{where}: expected a number, got {text!r}") from None


def _results(entry: Mapping[str, Any], metrics: Mapping[str, Any], source: str) -> ModelResults:
    dataset, task_name = str(entry["dataset"]), str(entry["task"])
    if not isinstance(metrics, Mapping):
        raise DataError(f"{source}: 'metrics' must be an object, got {type(metrics).__name__}")
    known = find_dataset(dataset)
    numbers = {
        name: number(value, f"{source}, {name}")
        for name, value in metrics.items()
        if value is None or isinstance(value, int | float)
    }
    pair = (numbers.get("image_retrieval_recall@1"), numbers.get("text_retrieval_recall@1"))
    if "mean_recall@1" not in numbers and pair[0] is not None and pair[1] is not None:
        numbers["mean_recall@1"] = (pair[0] + pair[1]) / 2
    key = known.key if known else dataset
    if task_name not in ("zeroshot_classification", "zeroshot_retrieval"):
        known, key = None, f"{key}:{task_name}"  # a probe's accuracy is no zero-shot number
    if entry.get("language") not in (None, "", "en"):
        known, key = None, f"{key}:{entry['language']}"
    main = (
        known.metric if known else next((name for name in ("acc1", "mean_recall@1", *numbers) if name in numbers), None)
    )
    record = TaskRecord(
        key=key,
        name=known.name if known else key,
        metrics=numbers,
        main_metric=main,
        main=None if main is None else numbers.get(main),
    )
    return ModelResults(
        model=str(entry["model"]), pretrained=str(entry["pretrained"]), source=source, records={key: record}
    )


def find_dataset(name: str) -> Task | None:
    """The task of a CLIP_benchmark data set name (`wds/vtab/dtd`, `vtab/dtd`, `imagenet1k`), or None."""
    spelled = name.removeprefix("wds/")
    spelled = {"mscoco_captions": "MSCOCO", "flickr30k": "Flickr"}.get(spelled, spelled)
    if spelled in TASKS:
        return TASKS[spelled]
    try:
        return find_task(spelled)
    except ConfigError:
        return None
