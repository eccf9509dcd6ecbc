"""The rows of a table, whatever it is written as: CSV, TSV, JSONL, Parquet.

Texts may hold bytes that are no UTF-8 (`text.is_bytes`): a path of them names a file, a caption of them is none.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eyesmith.data.sample import Finding
from eyesmith.data.text import is_bytes, parse_json, refuse_wide
from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.files import load_json

TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")

Row = tuple[str, dict[str, Any]]  # "line 7" and its cells
IsRow = Callable[[dict[str, str]], bool]  # whether cells are a row of their own and no part of a caption

_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?!")')
_TSV_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)+)"')  # only where a quote inside is doubled
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')  # that spreadsheets write before the header
_OTHER_SEPARATORS = (";", "\t", ",", "|")
_MAX_CELL_LINES = 10_000
_NEVER_CLOSED = "a quote that opens a cell here is never closed, or closed in another row"


def read_rows(
    path: Path, problems: list[Finding], *, is_row: IsRow | None = None
) -> tuple[list[str] | None, Iterator[Row]]:
    """The columns of a table, or None where every row brings its own (JSONL), and its rows.

    is_row: of lines inside a quoted cell of CSV; a cell that takes in rows behind it is one whose quote was not closed.
    problems: gets the rows that cannot be read. Raises DataError for a file that is no such table, and
    MissingDependencyError for Parquet without pyarrow.
    """
    form = path.suffix.lower()
    try:
        if form == ".parquet":
            return _read_parquet(path)
        with path.open("rb") as stream:
            refuse_wide(path, stream.read(2))
        if form == ".jsonl":
            return None, _guarded(path, _jsonl_rows(path, problems))
        return _read_csv(path, "\t" if form == ".tsv" else ",", problems, is_row or (lambda _: False))
    except OSError as error:
        raise DataError(f"{path}: cannot read this table: {error.strerror or error}") from error


def read_columns(path: Path) -> list[str]:
    """Names of a table's columns; of JSONL, the fields of its first usable line. Raises DataError as `read_rows`."""
    columns, rows = read_rows(path, [])
    if columns is not None:
        return columns
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: the table has no rows")
    return list(first[1])


def _guarded(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except OSError as error:
        raise DataError(f"{path}: cannot read this table: {error.strerror or error}") from error


class _Lines:
    """The lines of a file with their numbers, which may be given back."""

    def __init__(self, path: Path) -> None:
        # bytes that are not UTF-8 become lone surrogates, so that one bad row is named, not the whole file refused
        self._lines = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._back: deque[str] = deque()
        self.number = 0  # of the line that `take` gave last

    def take(self) -> str | None:
        line = self._back.popleft() if self._back else self._lines.readline()
        self.number += bool(line)
        return line or None

    def give_back(self, lines: list[str]) -> None:
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)

    def close(self) -> None:
        self._lines.close()


class _QuoteError(Exception):
    pass


def _read_csv(path: Path, separator: str, problems: list[Finding], is_row: IsRow) -> tuple[list[str], Iterator[Row]]:
    lines = _Lines(path)
    try:
        separator, header = _header(path, lines, separator)
        first = lines.number
    finally:
        lines.close()
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}; give them different names")

    def rows() -> Iterator[Row]:
        again = _Lines(path)
        try:
            while again.number < first:
                again.take()
            for number, cells in _records(again, separator, header, is_row):
                where = f"line {number}"
                if isinstance(cells, str):
                    problems.append(Finding("bad_row", "error", "", where, cells))
                elif len(cells) != len(header):
                    detail = f"{len(cells)} cells, the header has {len(header)}"
                    problems.append(Finding("bad_row", "error", "", where, detail))
                else:
                    yield where, dict(zip(header, cells, strict=True))
        finally:
            again.close()

    return header, _guarded(path, rows())


def _header(path: Path, lines: _Lines, separator: str) -> tuple[str, list[str]]:
    line = lines.take()
    while line is not None and not line.strip("\r\n"):
        line = lines.take()
    stated = _SEPARATOR_LINE.fullmatch(line.strip()) if line else None
    if stated:
        separator, line = stated[1], lines.take()
    if line is None or not line.strip():
        raise DataError(f"{path}: the table is empty, expected a first line with the names of the columns")
    text = line.rstrip("\r\n")
    if len(_header_cells(path, text, separator)) == 1:  # a spreadsheet of another language, or another extension
        separator = max((separator, *_OTHER_SEPARATORS), key=lambda one: len(_header_cells(path, text, one)))
    return separator, _header_cells(path, text, separator)


def _header_cells(path: Path, line: str, separator: str) -> list[str]:
    try:
        cells = _cells(line, separator)
    except _QuoteError:
        cells = None
    if cells is None:
        raise DataError(f"{path}: line 1: a quote in the names of the columns is not closed")
    return cells


def _records(lines: _Lines, separator: str, header: list[str], is_row: IsRow) -> Iterator[tuple[int, list[str] | str]]:
    """Number of the first line of each row, and its cells or what is wrong with it."""
    read = _tab_record if separator == "\t" else _record
    while (line := lines.take()) is not None:
        number = lines.number
        text = line.rstrip("\r\n")
        if not text:
            continue
        yield number, read(lines, line, separator, header, is_row) if '"' in text else text.split(separator)


def _record(lines: _Lines, line: str, separator: str, header: list[str], is_row: IsRow) -> list[str] | str:
    taken = [line]
    try:
        while (cells := _cells("".join(taken).rstrip("\r\n"), separator)) is None:
            more = _until_quote(lines, _MAX_CELL_LINES - len(taken))
            taken += more
            if not more or '"' not in more[-1]:
                raise _QuoteError
        inner = (one.rstrip("\r\n").split(separator) for one in taken[1:])
        if any(len(one) == len(header) and is_row(dict(zip(header, one, strict=True))) for one in inner):
            raise _QuoteError
    except _QuoteError:
        lines.give_back(taken[1:])
        return _NEVER_CLOSED
    return cells


def _tab_record(lines: _Lines, line: str, separator: str, header: list[str], is_row: IsRow) -> list[str] | str:
    # TSV has no quoting; what csv writers make of a tab, a line end or a quote in a cell is read all the same, where it
    # cannot be anything else
    del is_row
    literal = line.rstrip("\r\n").split(separator)
    taken, width = [line], len(header)
    try:
        cells = _cells("".join(taken).rstrip("\r\n"), separator)
        while cells is None:
            more = _until_quote(lines, _MAX_CELL_LINES - len(taken))
            taken += more
            if not more or '"' not in more[-1] or any(one.count(separator) + 1 >= width for one in more):
                raise _QuoteError
            cells = _cells("".join(taken).rstrip("\r\n"), separator)
    except _QuoteError:
        cells = None
    if cells is not None and len(cells) == width and (len(taken) > 1 or len(literal) != width):
        return cells
    lines.give_back(taken[1:])
    found = (_TSV_QUOTED.fullmatch(cell) for cell in literal)
    return [cell if one is None else one[1].replace('""', '"') for cell, one in zip(literal, found, strict=True)]


def _until_quote(lines: _Lines, limit: int) -> list[str]:
    """The next lines, up to the first with a quote in it."""
    taken: list[str] = []
    while len(taken) < limit and (line := lines.take()) is not None:
        taken.append(line)
        if '"' in line:
            break
    return taken


def _cells(record: str, separator: str) -> list[str] | None:
    """The cells of a record (RFC 4180); None while a quote is open. Raises _QuoteError for text behind a closed one."""
    cells: list[str] = []
    at = 0
    while True:
        if record.startswith('"', at):
            found = _QUOTED.match(record, at)
            if found is None:
                return None
            cells.append(found[1].replace('""', '"'))
            at = found.end()
            if at < len(record) and record[at] != separator:
                raise _QuoteError
        else:
            end = record.find(separator, at)
            end = len(record) if end < 0 else end
            cells.append(record[at:end])
            at = end
        if at >= len(record):
            return cells
        at += 1


def _jsonl_rows(path: Path, problems: list[Finding]) -> Iterator[Row]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where, fault = f"line {number}", ""
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
            try:
                if is_bytes(text):
                    row = load_json(text)
                else:
                    row, fault = parse_json(text)
            except (ValueError, RecursionError) as error:
                problems.append(Finding("bad_row", "error", "", where, str(error)))
                continue
            if not isinstance(row, dict):
                detail = f"expected an object, got {type(row).__name__}"
                problems.append(Finding("bad_row", "error", "", where, detail))
                continue
            if fault:
                problems.append(Finding("not_utf8", "error", "", where, fault))
            yield where, row


def _read_parquet(path: Path) -> tuple[list[str], Iterator[Row]]:
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

    def values(batch: Any) -> list[dict[str, Any]]:
        try:
            return batch.to_pylist()
        except UnicodeDecodeError:  # a text column that holds other bytes
            texts = (arrow.string(), arrow.large_string())
            columns = [one.cast(arrow.large_binary()) if one.type in texts else one for one in batch.columns]
            return arrow.record_batch(columns, names=batch.schema.names).to_pylist()

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                for row in values(batch):
                    number += 1
                    yield f"row {number}", row
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: damaged after row {number}: {error}") from error

    return list(file.schema_arrow.names), rows()
