"""Result files: one JSON object a line, `model, task, split, metric, value, low, high, n, chance`.

Other programs read these files, so the names are fixed. Lines are only ever added, each in one piece.
"""

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eyesmith.errors import DataError
from eyesmith.files import not_linked


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One measured number.

    value, low, high, chance: fractions; low and high bound a 95 % interval; None where there is none.
    n: how many queries (images or texts) the value is the mean of. Raises DataError when a field makes no sense.
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


FIELDS = tuple(field.name for field in dataclasses.fields(ResultRow))


def append_rows(path: str | os.PathLike[str], rows: Iterable[ResultRow]) -> None:
    """Add `rows` to the end of a result file, all of them or, when the disk is full, none.

    A half line that an interrupted writer left at the end carries no result and is cut off first.
    """
    lines = "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "ab+", buffering=0, opener=not_linked) as stream:
        whole, tail = _split_tail(target.read_bytes())
        keep = len(whole)
        if _is_row(tail):  # written by hand, without the last newline
            keep, lines = keep + len(tail), "\n" + lines
        stream.truncate(keep)
        try:
            _write_all(stream.fileno(), lines.encode())
            os.fsync(stream.fileno())
        except BaseException:
            stream.truncate(keep)
            raise


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
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error}); remove or mend that line") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object with {', '.join(FIELDS)}, got {type(entry).__name__}")
    missing = [field for field in FIELDS if field not in entry]
    if missing:
        raise DataError(f"{where}: field {missing[0]!r} is missing; a result line has {', '.join(FIELDS)}")
    try:
        return ResultRow(**{field: entry[field] for field in FIELDS})
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


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
