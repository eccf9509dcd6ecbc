"""Result files: one JSON object a line, `model, task, split, metric, value, low, high, n, chance`, and `run`.

Other programs read these files, so the names are fixed. `run` says what was measured: the run folder or file, a hash of
the weights, preprocessing, prompts, precision. Lines are only ever added, each in one piece.
"""

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.errors import DataError
from eyesmith.eval.results.lines import append_objects
from eyesmith.files import load_json


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One measured number.

    value, low, high, chance: fractions; low and high bound a 95 % interval; None where there is none.
    n: how many queries (images or texts) the value is the mean of. run: what the value depends on, by the names that
    `eval_results.jsonl` has too; None where nobody said. Raises DataError when a field makes no sense.
    """

    model: str
    task: str
    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    chance: float | None
    run: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for field in ("model", "task", "split", "metric"):
            text = getattr(self, field)
            if not isinstance(text, str) or not text:
                raise DataError(f"result row: '{field}' must be a name, got {text!r}")
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 0:
            raise DataError(f"result row: 'n' must be a count, got {self.n!r}")
        for field in ("value", "low", "high", "chance"):
            number = getattr(self, field)
            if number is None and field != "value":
                continue
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise DataError(
                    f"result row {self.task}/{self.split}/{self.metric}: '{field}' is {number!r}, no number"
                )


FIELDS = tuple(field.name for field in dataclasses.fields(ResultRow) if field.name != "run")
_OLD_NAMES = {"top1": "acc1", "top5": "acc5"}
_OLD_RECALL = re.compile(r"(image|text)_recall@(\d+)")


def current_name(metric: str) -> str:
    """The name of a metric today: files of before call acc1 `top1` and image_retrieval_recall@1 `image_recall@1`.

    A name with its split (`val/top1`) keeps it.
    """
    split, slash, name = metric.rpartition("/")
    name = _OLD_NAMES.get(name) or _OLD_RECALL.sub(r"\1_retrieval_recall@\2", name)
    return f"{split}{slash}{name}"


def as_line(row: ResultRow) -> dict[str, Any]:
    """The fields of a row in their order, `run` only where it is known."""
    fields = {name: getattr(row, name) for name in FIELDS}
    return fields if row.run is None else fields | {"run": dict(row.run)}


def append_rows(path: str | os.PathLike[str], rows: Iterable[ResultRow]) -> None:
    """Add `rows` to the end of a result file, all of them or, when the disk is full, none; see `append_objects`."""
    append_objects(path, (as_line(row) for row in rows))


def read_rows(path: str | os.PathLike[str]) -> list[ResultRow]:
    """All rows of a result file, in order.

    A half last line (a writer was killed) is left out with a warning; anything else that is not a row raises
    DataError with the line's number. Fields this version does not know are ignored.
    """
    target = Path(path)
    try:
        content = target.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{target}: no such result file; `eyesmith eval` writes one") from None
    except OSError as error:
        raise DataError(f"{target}: cannot be read as a result file ({error.strerror or error})") from None
    whole, tail = _split_tail(content)
    if _is_row(tail):
        whole = content
    elif tail.strip():
        warnings.warn(f"{target}: the last line is only half written and was left out", stacklevel=2)
    rows = []
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if line.strip():
            rows.append(_parse(line, f"{target}: line {number}"))
    return rows


def _parse(line: bytes, where: str) -> ResultRow:
    try:
        entry = load_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error}); remove or mend that line") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object with {', '.join(FIELDS)}, got {type(entry).__name__}")
    missing = [field for field in FIELDS if field not in entry]
    if missing:
        raise DataError(f"{where}: field {missing[0]!r} is missing; a result line has {', '.join(FIELDS)}")
    try:
        values = {field: entry[field] for field in FIELDS}
        if isinstance(values["metric"], str):
            values["metric"] = current_name(values["metric"])
        run = entry.get("run")
        return ResultRow(**values, run=run if isinstance(run, dict) else None)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _split_tail(content: bytes) -> tuple[bytes, bytes]:
    """The complete lines, and what stands behind the last newline."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _is_row(line: bytes) -> bool:
    try:
        _parse(line, "")
    except DataError:
        return False
    return True
