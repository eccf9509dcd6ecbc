"""`eval_results.jsonl`: a line as each task ends, and what a restart may take from it."""

from pathlib import Path
from typing import Any

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results.lines import append_objects, read_objects
from eyesmith.eval.results.task_result import TaskResult

_MUST_AGREE = ("weights", "preprocess", "architecture", "precision", "wording", "limit")  # of runs that share a file
_NEW = ("architecture", "preprocess")  # which files of before do not say


def known_records(path: Path, facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of earlier runs by task key; the last one of a key counts.

    A half line at the end (a killed run) is left out. Raises ConfigError when the file holds results of another
    model, precision, wording or limit, DataError when a line is no record.
    """
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for number, record in read_objects(path):
        if not isinstance(record.get("metrics"), dict) or not isinstance(record.get("key"), str):
            raise DataError(f"{path}: line {number}: expected an object with key, dataset and metrics")
        _check_same(path, record, facts)
        found[record["key"]] = record
    return found


def append_record(path: Path, result: TaskResult, *, main: str | None) -> None:
    """Add one line in the reference's format; `run` beside its fields says what the numbers depend on.

    main: the task's own main metric, whichever suite the task was measured for.
    """
    metrics = {**result.metrics, "main_metric": None if main is None else result.metrics.get(main)}
    append_objects(path, [{"key": result.key, "dataset": result.dataset, "metrics": metrics, "run": result.facts}])


def _check_same(path: Path, record: dict[str, Any], facts: dict[str, Any]) -> None:
    run = record.get("run")
    if not isinstance(run, dict):
        raise ConfigError(
            f"{path}: holds results of another program for {record['key']}; choose another folder for the results"
        )
    for name in _MUST_AGREE:
        if run.get(name) != facts[name] and (name in run or name not in _NEW):
            raise ConfigError(
                f"{path}: holds results with {name} {run.get(name)!r} for {record['key']}, this run has "
                f"{facts[name]!r}; choose another folder for the results, or delete that file"
            )
