"""Files of JSON lines that grow by whole lines: a reader never takes half a record for one, no old line is lost."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eyesmith.errors import DataError
from eyesmith.files import not_linked


def append_line(path: str | os.PathLike[str], entry: dict[str, Any]) -> None:
    """Add one object as the last line and sync it; a half line that a killed writer left is cut off first.

    On a full disk the file is as before. NaN in `entry` raises ValueError.
    """
    line = (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "ab+", buffering=0, opener=not_linked) as stream:
        stream.seek(0)
        content = stream.read()
        keep = content.rfind(b"\n") + 1
        if _parsed(content[keep:]) is not None:  # whole, only its newline is missing
            keep, line = len(content), b"\n" + line
        stream.truncate(keep)
        try:
            view = memoryview(line)
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
        entry = json.loads(line)
    except ValueError:  # also bytes that are no UTF-8
        return None
    return entry if isinstance(entry, dict) else None
