"""Image-text pairs listed in a CSV, TSV, JSONL or Parquet file."""

import difflib
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import Finding
from eyesmith.data.table_rows import read_rows
from eyesmith.data.text import file_key, is_bytes, mended, mended_inside
from eyesmith.errors import DataError


def open_table(
    path: Path,
    *,
    image_column: str = "image",
    text_column: str | Sequence[str] = "caption",
    label_column: str | None = None,
    require_text: bool = True,
) -> FileSource:
    """Open a table of images and captions.

    image_column: paths relative to the table's folder ("../images/1.jpg" and absolute ones are followed: the table is
    the user's own), or in Parquet the encoded images, as bytes or as a struct with `bytes`, which are then held in
    memory. text_column: one or several; a cell is one caption or, in JSONL and Parquet, a list. Rows that name the same
    image become one sample with all their captions, as retrieval needs. label_column: its distinct values, sorted,
    become `classes`. Rows that cannot be used are left out and listed in `problems`. Embedded images of one name are
    one sample where their bytes are equal. Raises DataError for a column that does not exist, a damaged file, a label
    that is no UTF-8, or when no row can be used; MissingDependencyError for Parquet without pyarrow.
    """
    problems: list[Finding] = []
    text_columns = [text_column] if isinstance(text_column, str) else list(text_column)
    wanted = [image_column, *(text_columns if require_text else []), *([label_column] if label_column else [])]
    columns, rows = read_rows(path, problems, is_row=lambda cells: _is_file(path.parent, cells.get(image_column, "")))
    if columns is not None:
        _check_columns(path, columns, wanted)
    records: dict[str, Record] = {}
    embedded: dict[tuple[str, bytes], str] = {}  # keys of images by their names and digests
    num_rows = 0
    for where, row in rows:
        num_rows += 1
        missing = [column for column in wanted if column not in row]  # JSONL: every line has its own fields
        if missing:
            if num_rows == 1:
                _check_columns(path, list(row), wanted)
            problems.append(Finding("bad_row", "error", "", where, f"no field {missing[0]!r}"))
            continue
        try:
            record = _record(path, where, row, image_column, text_columns, label_column)
        except _RowError as error:
            problems.append(Finding(error.kind, "error", error.key, where, str(error)))
            continue
        if isinstance(record.image, bytes):  # other bytes of that name are another picture
            free = record.key if record.key not in records else f"{record.key} ({where})"
            record.key = embedded.setdefault((record.key, hashlib.sha256(record.image).digest()), free)
        known = records.setdefault(record.key, record)
        if known is not record:
            known.texts += record.texts
            if known.label != record.label:
                detail = (
                    f"label {record.label!r}, but {known.where} gives {known.label!r} to the same image, which is used"
                )
                problems.append(Finding("bad_label", "error", record.key, where, detail))
    if num_rows == 0:
        raise DataError(f"{path}: the table has no rows")
    classes = None
    if label_column:
        classes = sorted({record.label for record in records.values() if record.label is not None})
    return FileSource(
        list(records.values()), name=path.name, classes=classes, problems=problems, require_text=require_text
    )


class _RowError(Exception):
    def __init__(self, kind: str, key: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.key = key


def _record(
    table: Path, where: str, row: dict[str, Any], image_column: str, text_columns: list[str], label_column: str | None
) -> Record:
    value = row[image_column]
    content = value.get("bytes") if isinstance(value, dict) else value
    image: Path | bytes
    if isinstance(content, bytes):
        name = value.get("path") if isinstance(value, dict) else None
        key, image, size = file_key(str(name or where)), content, len(content)
    else:
        key, image, size = _file(table.parent, value.get("path") if isinstance(value, dict) else value, image_column)
    texts = [text for column in text_columns for text in _captions(row.get(column), column, key)]
    label = None
    if label_column:
        label = _label(row[label_column])
        if is_bytes(label):
            raise DataError(
                f"{table}: {where}: {label_column}: {file_key(label)} is not UTF-8; save the table as UTF-8"
            )
        if not label:
            raise _RowError("bad_label", key, f"{label_column}: empty")
    used = {image_column, *text_columns}
    meta, _ = mended_inside({name: cell for name, cell in row.items() if name not in used})
    return Record(key, image, size, tuple(texts), where, label, meta)


def _file(folder: Path, value: Any, column: str) -> tuple[str, Path, int]:
    """Key, place and bytes of the image that a cell names."""
    if not isinstance(value, str) or not value.strip():
        raise _RowError("bad_row", "", f"{column}: expected the path of an image, got {value!r}")
    name = value.strip()
    if "://" in name:
        raise _RowError("missing_image", _shown(name), "an address, not a file; fetch the images first")
    for path in dict.fromkeys((name, name.replace("\\", "/"))):  # as the table says, else as Windows means it
        try:
            return file_key(path), folder / path, (folder / path).stat().st_size
        except (OSError, ValueError):  # ValueError: a NUL in the name
            continue
    raise _RowError("missing_image", _shown(name), f"no such image: {_shown(name)}")


def _is_file(folder: Path, name: str) -> bool:
    try:
        _file(folder, name, "")
    except _RowError:
        return False
    return True


def _captions(cell: Any, column: str, key: str) -> list[str]:
    values = cell if isinstance(cell, list) else [] if cell is None else [cell]
    texts = []
    for value in values:
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise _RowError("bad_row", key, f"{column}: expected text or a list of texts, got {value!r:.60}")
        if is_bytes(text):
            raise _RowError("not_utf8", key, f"{column}: not UTF-8")
        texts.append(mended(text)[0])
    return texts


def _label(cell: Any) -> str:
    """The class that a cell names, "" for none."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():  # whole numbers of a column that has gaps
        cell = int(cell)
    text = cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else str(cell)
    return text.strip() if is_bytes(text) else mended(text)[0].strip()


def _shown(text: str) -> str:
    try:
        return file_key(text)
    except UnicodeEncodeError:  # half an emoji
        return repr(text)


def _check_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
            hint = f" - did you mean {close[0]!r}?" if close else ""
            raise DataError(f"{path}: no column {name!r}; it has: {', '.join(map(repr, columns))}{hint}")
