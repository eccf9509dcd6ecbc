"""Files of JSON lines that grow by whole lines: a reader never takes half a record for one, no old line is lost."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eyesmith.errors import DataError
from eyesmith.files import load_json, locked, not_linked


def append_objects(path: str | os.PathLike[str], entries: Iterable[dict[str, Any]]) -> None:
    """Add objects as the last lines and sync them; a half line that a killed writer left is cut off first.

    Several processes may add to one file: each waits for the others (a lock file beside it, gone afterwards). On a
    full disk the file is as before. NaN in an entry raises ValueError.
    """
    lines = "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in entries).encode()
    target = Path(path)
    with (
        locked(target.with_name(f".{target.name}.lock"), leave=False),
        open(target, "ab+", buffering=0, opener=not_linked) as stream,
    ):
        stream.seek(0)
        content = stream.read()
        keep = content.rfind(b"\n") + 1
        if _parsed(content[keep:]) is not None:  # whole, only its newline is missing
            keep, lines = len(content), b"\n" + lines
        stream.truncate(keep)
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(stream.fileno(), view) :]
            os.fsync(stream.fileno())
        except BaseException:
            stream.truncate(keep)
            raise


def read_objects(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line; a half last line is left out.

    Raises DataError when the file cannot be read, or a line before the last is no object.
    """
    content = read_bytes(path)
    lines = content.split(b"\n")
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _parsed(line)
        if entry is None:
            if line_number == len(lines):
                return
            raise DataError(f"{path}: line {line_number} is no JSON object; remove or mend that line")
        yield line_number, entry


def read_table(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, str | None]]]:
    """Column names and rows of a CSV; None for a cell that a line lacks; more cells than columns are
    left out. Raises DataError when it is none."""
    text = read_bytes(path).decode("utf-8-sig", errors="replace")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = [{name: cell for name, cell in row.items() if name is not None} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: cannot be read as a CSV ({error})") from None
    return list(reader.fieldnames or ()), rows


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a result file. Raises DataError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such result file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a result file ({error.strerror or error})") from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = load_json(line)
    except ValueError:  # also bytes that are no UTF-8
        return None
    return entry if isinstance(entry, dict) else None
