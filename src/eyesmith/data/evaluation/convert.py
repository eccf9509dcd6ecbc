"""Retrieval sets and WinoGAViL from rows to tar shards: the hub keeps these as tables, the evaluators read shards.

Retrieval: rows with `image` and `caption` (a list). Shards in the layout of CLIP_benchmark: the image and a `txt` with
one caption a line (and a `json` with `texts` where a caption has line breaks of its own). WinoGAViL: rows with `cue`,
`candidates`, `candidate_images`, `associations`. Its folder is a layout of our own: every distinct image once, with its
name as `txt`, and `instances.jsonl` beside the shards, one object a line with `cue`, `candidates` and `associations`
(names of images).
"""

import ast
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.fetch import Hub, OnBytes, fetch_file, get
from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.data.evaluation.tars import COUNT_FILE, INSTANCE_FILE, TYPE_FILE
from eyesmith.data.shards import ShardWriter
from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.files import load_json, write_atomic

_SHARD_SAMPLES = 1000
_ROWS = 32  # read at once: a WinoGAViL row carries up to twelve pictures
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}

Row = Mapping[str, Any]


def fetch_rows(
    repo: str,
    folder: str | os.PathLike[str],
    layout: Literal["retrieval", "winogavil"],
    *,
    split: str = "test",
    hub: Hub | None = None,
    on_bytes: OnBytes | None = None,
) -> EvaluationSet:
    """Fetch the Parquet files that the hub makes of repository `repo`, and convert them into `folder`.

    A folder that is whole is left as it is. The Parquet files are deleted when the shards are there. Errors as
    `fetch_evaluation_set`; MissingDependencyError without pyarrow.
    """
    hub, folder = hub or Hub(), Path(folder)
    if (folder / split / COUNT_FILE).is_file():
        return open_evaluation_set(folder, layout=layout, split=split)
    url = hub.parquet_url(repo)
    content = get(hub, url, limit=1 << 24)
    try:
        configs = load_json(content or b"")
        addresses = next(parts[split] for parts in configs.values() if split in parts)
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise TypeError("no list of addresses")
    except (RecursionError, ValueError, AttributeError, TypeError, StopIteration) as error:
        raise DataError(f"{url}: lists no Parquet files of the split {split!r}") from error
    files = [folder / f".{split}-{number}.parquet" for number in range(len(addresses))]
    for address, file in zip(addresses, files, strict=True):
        if not file.is_file():  # it stands under its name only when it came whole
            fetch_file(hub, address, file, None, None, on_bytes=on_bytes)
    found = convert_rows(read_parquet(files), folder, layout, split=split)
    for file in files:
        file.unlink()
    return found


def convert_rows(
    rows: Iterable[Row],
    folder: str | os.PathLike[str],
    layout: Literal["retrieval", "winogavil"],
    *,
    split: str = "test",
) -> EvaluationSet:
    """Write rows as an evaluation set into `folder` and open it. Raises DataError naming the row that cannot be used.

    An image is the encoded file, as bytes or under "bytes" of a mapping. Equal rows give equal bytes on the disk.
    """
    folder = Path(folder)
    write_atomic(folder / TYPE_FILE, f"{layout}\n")
    with ShardWriter(folder / split, shard_samples=_SHARD_SAMPLES) as writer:
        if layout == "retrieval":
            for number, row in enumerate(rows):
                captions = _strings(row, "caption", number)
                lines = [" ".join(caption.splitlines()) for caption in captions]
                exact = None if lines == captions else captions
                _write(writer, number, _image(row.get("image"), f"row {number}"), "\n".join(lines), exact)
        else:
            _write_winogavil(writer, folder / split / INSTANCE_FILE, rows)
    return open_evaluation_set(folder, layout=layout, split=split)


def read_parquet(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Rows of Parquet files, a few at a time. Raises DataError for a damaged file."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError("reading Parquet needs pyarrow: pip install 'eyesmith[parquet]'") from error
    for file in files:
        try:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{file}: not a readable Parquet file: {error}; delete it and run again") from error


def _write_winogavil(writer: ShardWriter, instance_file: Path, rows: Iterable[Row]) -> None:
    known: dict[str, int] = {}  # name to size in bytes of its picture
    lines = []
    for number, row in enumerate(rows):
        candidates = _strings(row, "candidates", number)
        associations = _strings(row, "associations", number)
        pictures = row.get("candidate_images")
        cue = row.get("cue")
        if not isinstance(pictures, list) or len(pictures) != len(candidates) or not isinstance(cue, str):
            raise DataError(f"row {number}: expected a cue and as many candidate_images as candidates")
        for name, picture in zip(candidates, pictures, strict=True):
            content = _image(picture, f"row {number}, {name}")
            if name not in known:
                _write(writer, len(known), content, name)
                known[name] = len(content)
            elif known[name] != len(content):
                raise DataError(f"row {number}: another picture than before has the name {name!r}")
        lines.append(json.dumps({"cue": cue, "candidates": candidates, "associations": associations}))
    write_atomic(instance_file, "".join(f"{line}\n" for line in lines))


def _write(writer: ShardWriter, number: int, image: bytes, text: str, exact: list[str] | None = None) -> None:
    """exact: captions that lines of a text cannot hold (a line break in one, also U+2028 and U+0085), as json."""
    extension = next((name for magic, name in _MAGIC.items() if image.startswith(magic)), None)
    if extension is None:
        raise DataError(f"image {number}: neither JPEG, PNG nor WebP")
    members = {extension: image, "txt": text.encode()}
    if exact is not None:
        members["json"] = json.dumps({"texts": exact}).encode()
    writer.write(f"s{number:07d}", members)


def _image(value: Any, where: str) -> bytes:
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(content, bytes) or not content:
        raise DataError(f"{where}: expected an encoded image, got {type(content).__name__}")
    return content


def _strings(row: Row, column: str, number: int) -> list[str]:
    value = row.get(column)
    if isinstance(value, str) and value.startswith("["):  # tables made from CSV keep lists as Python's text of them
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:  # brackets in brackets in brackets
            raise DataError(f"row {number}: {column} is no list: {value[:60]!r}") from error
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise DataError(f"row {number}: {column}: expected a list of texts, got {value!r:.60}")
    return value
