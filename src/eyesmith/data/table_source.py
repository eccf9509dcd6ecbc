"""Image-text pairs listed in a CSV, TSV, JSONL or Parquet file."""

import csv
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import Finding
from eyesmith.errors import DataError, MissingDependencyError

TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")

_Row = tuple[str, dict[str, Any]]  # "line 7" and its cells


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
    become `classes`. Rows that cannot be used are left out and listed in `problems`. Raises DataError for a column that
    does not exist, a damaged file, or when no row can be used; MissingDependencyError for Parquet without pyarrow.
    """
    problems: list[Finding] = []
    text_columns = [text_column] if isinstance(text_column, str) else list(text_column)
    wanted = [image_column, *(text_columns if require_text else []), *([label_column] if label_column else [])]
    columns, rows = _read(path, problems)
    if columns is not None:
        _check_columns(path, columns, wanted)
    records: dict[str, Record] = {}
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
            record = _record(path.parent, where, row, image_column, text_columns, label_column)
        except _RowError as error:
            problems.append(Finding(error.kind, "error", error.key, where, str(error)))
            continue
        same_name = records.get(record.key)
        if same_name is not None and isinstance(record.image, bytes) and same_name.image != record.image:
            record.key = f"{record.key} ({where})"  # other pixels of that name, not another caption of them
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


def read_columns(path: Path) -> list[str]:
    """Names of a table's columns; of JSONL, the fields of its first usable line. Raises DataError as `open_table`."""
    columns, rows = _read(path, [])
    if columns is not None:
        return columns
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: the table has no rows")
    return list(first[1])


class _RowError(Exception):
    def __init__(self, kind: str, key: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.key = key


def _record(
    folder: Path, where: str, row: dict[str, Any], image_column: str, text_columns: list[str], label_column: str | None
) -> Record:
    value = row[image_column]
    embedded = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(embedded, bytes):
        name = value.get("path") if isinstance(value, dict) else None
        key, image, size = str(name or where), embedded, len(embedded)
    else:
        path = value.get("path") if isinstance(value, dict) else value
        if not isinstance(path, str) or not path.strip():
            raise _RowError("bad_row", "", f"{image_column}: expected the path of an image, got {path!r}")
        key = path.strip()
        if "://" in key:
            raise _RowError("missing_image", key, "an address, not a file; fetch the images first")
        try:
            image = folder / key
            size = image.stat().st_size
        except (OSError, ValueError) as error:
            raise _RowError("missing_image", _printable(key), f"no such image: {_printable(key)}") from error
    texts = [text for column in text_columns for text in _captions(row.get(column), column, key)]
    label = None
    if label_column:
        if row[label_column] is None or not str(row[label_column]).strip():
            raise _RowError("bad_label", key, f"{label_column}: empty")
        label = str(row[label_column]).strip()
    used = {image_column, *text_columns}
    meta = {name: cell for name, cell in row.items() if name not in used}
    return Record(key, image, size, tuple(texts), where, label, meta)


def _captions(cell: Any, column: str, key: str) -> list[str]:
    values = cell if isinstance(cell, list) else [] if cell is None else [cell]
    for value in values:
        if not isinstance(value, str):
            raise _RowError("bad_row", key, f"{column}: expected text or a list of texts, got {value!r:.60}")
        if value != _printable(value):
            raise _RowError("not_utf8", key, f"{column}: not UTF-8")
    return values


def _read(path: Path, problems: list[Finding]) -> tuple[list[str] | None, Iterator[_Row]]:
    # the columns, or None where every row brings its own, and the rows
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        if path.suffix.lower() == ".jsonl":
            return None, _guarded(path, _jsonl_rows(path, problems))
        return _read_csv(path, "\t" if path.suffix.lower() == ".tsv" else ",", problems)
    except OSError as error:
        raise DataError(f"{path}: cannot read this table: {error.strerror or error}") from error


def _read_csv(path: Path, delimiter: str, problems: list[Finding]) -> tuple[list[str], Iterator[_Row]]:
    # bytes that are not UTF-8 become lone surrogates, so that one bad row is named instead of the whole file refused
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header = next(csv.reader(stream, delimiter=delimiter), None)
    if not header:
        raise DataError(f"{path}: the table is empty, expected a first line with the names of the columns")
    return header, _guarded(path, _csv_rows(path, delimiter, header, problems))


def _guarded(path: Path, rows: Iterator[_Row]) -> Iterator[_Row]:
    try:
        yield from rows
    except OSError as error:
        raise DataError(f"{path}: cannot read this table: {error.strerror or error}") from error


def _csv_rows(path: Path, delimiter: str, header: list[str], problems: list[Finding]) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        next(reader)
        try:
            for cells in reader:
                where = f"line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    detail = f"{len(cells)} cells, the header has {len(header)}"
                    problems.append(Finding("bad_row", "error", "", where, detail))
                    continue
                yield where, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from error


def _jsonl_rows(path: Path, problems: list[Finding]) -> Iterator[_Row]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
                kind = "not_utf8" if isinstance(error, UnicodeDecodeError) else "bad_row"
                problems.append(Finding(kind, "error", "", f"line {number}", str(error)))
                continue
            if isinstance(row, dict):
                yield f"line {number}", row
            else:
                detail = f"expected an object, got {type(row).__name__}"
                problems.append(Finding("bad_row", "error", "", f"line {number}", detail))


def _read_parquet(path: Path) -> tuple[list[str], Iterator[_Row]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        message = f"{path}: reading Parquet needs pyarrow: pip install 'eyesmith[parquet]', or give a CSV or JSONL file"
        raise MissingDependencyError(message) from error
    try:
        file = parquet.ParquetFile(path)
    except (arrow.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error

    def rows() -> Iterator[_Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: damaged after row {number}: {error}") from error

    return list(file.schema_arrow.names), rows()


def _check_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
            hint = f" - did you mean {close[0]!r}?" if close else ""
            raise DataError(f"{path}: no column {name!r}; it has: {', '.join(map(repr, columns))}{hint}")


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
