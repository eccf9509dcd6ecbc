"""A pool in DataComp's format: parquet files of metadata, and beside each an .npz of features in the same row order."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.sources import natural_key
from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.files import DAMAGED_ZIP

if TYPE_CHECKING:
    import polars

BATCH_ROWS = 1 << 16
MAX_WIDTH = 1 << 13  # of a feature; CLIP encoders give 512 to 2,048 numbers


@dataclass(frozen=True, slots=True)
class PoolFile:
    """One parquet file of a pool. name: without its extension; num_rows: from its footer."""

    name: str
    path: Path
    num_rows: int

    @property
    def features(self) -> Path:
        """The .npz beside it."""
        return self.path.with_suffix(".npz")


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows of a pool file. start: the first row; features: by name, [rows, D]."""

    start: int
    frame: "polars.DataFrame"
    features: dict[str, NDArray[np.floating]]


def polars_module() -> Any:
    """The polars package. Raises MissingDependencyError when it, or pyarrow, is not installed."""
    try:
        import polars
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"curation reads its pools with polars and pyarrow ({error.name} is missing): "
            "pip install 'eyesmith[curate]'"
        ) from error
    return polars


def list_pool(path: str | os.PathLike[str]) -> list[PoolFile]:
    """The parquet files of a pool (a folder, its `part_*` folders too, or one file), by name, numbers by value.

    Raises DataError when there are none, when one cannot be read, or when two have one name.
    """
    polars_module()
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(path)
    if not place.exists():
        raise DataError(f"{place}: no such pool; expected a folder of parquet files")
    found = [place] if place.is_file() else [*place.glob("*.parquet"), *place.glob("*/*.parquet")]
    found = sorted((file for file in found if file.name[0] != "."), key=lambda file: natural_key(file.name))
    if not found:
        raise DataError(f"{place}: expected a folder of parquet files, found none")
    files: dict[str, PoolFile] = {}
    for file in found:
        try:
            num_rows = pq.read_metadata(file).num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as parquet ({error}); fetch it again") from error
        if file.stem in files:
            raise DataError(f"{file} and {files[file.stem].path}: one name; a pool's files need names of their own")
        files[file.stem] = PoolFile(file.stem, file, num_rows)
    return list(files.values())


def read_batches(
    file: PoolFile, columns: Sequence[str], features: Sequence[str] = (), *, batch_rows: int = BATCH_ROWS
) -> Iterator[Batch]:
    """Some columns of a pool file and some features beside it, `batch_rows` at a time; memory stays at one batch.

    Raises DataError for a column or feature that is not there, and when the .npz has another number of rows.
    """
    polars = polars_module()
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        table = stack.enter_context(pq.ParquetFile(file.path))
        missing = [name for name in columns if name not in table.schema_arrow.names]
        if missing:
            raise DataError(f"{file.path}: no column {missing[0]!r}; it has {', '.join(table.schema_arrow.names)}")
        stored = {name: stack.enter_context(FeatureReader(file.features, name)) for name in features}
        for name, reader in stored.items():
            if reader.shape[0] != file.num_rows:
                raise DataError(
                    f"{file.features}: {name} has {reader.shape[0]:,} rows, {file.path.name} has {file.num_rows:,}; "
                    "rows must stand in the same order, fetch both again"
                )
        start = 0
        try:
            for record in table.iter_batches(batch_size=batch_rows, columns=list(columns)):
                frame = polars.from_arrow(pa.Table.from_batches([record]))
                yield Batch(start, frame, {name: reader.read(len(frame)) for name, reader in stored.items()})
                start += len(frame)
        except pa.ArrowException as error:
            raise DataError(f"{file.path}: cannot be read after row {start:,} ({error}); fetch it again") from error


class FeatureReader:
    """Reads one array of an .npz from its first row to its last, without holding it whole; a context manager."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._stack = ExitStack()
        try:
            archive = self._stack.enter_context(zipfile.ZipFile(path))
            stored = archive.getinfo(f"{name}.npy").file_size
            self._stream: IO[bytes] = self._stack.enter_context(archive.open(f"{name}.npy"))
            version = np.lib.format.read_magic(self._stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, is_fortran, self.dtype = read(self._stream)
        except KeyError as error:
            self._stack.close()
            raise DataError(f"{path}: no array {name!r}; it has {', '.join(_names(path))}") from error
        except FileNotFoundError as error:
            raise DataError(f"{path}: not there; this rule needs the features beside the metadata") from error
        except DAMAGED_ZIP as error:
            self._stack.close()
            raise DataError(f"{path}: cannot be read as .npz ({error}); fetch it again") from error
        if is_fortran or len(self.shape) != 2 or self.dtype.kind != "f":
            self._stack.close()
            raise DataError(f"{path}: {name} is {self.dtype} {self.shape}; expected rows of floating-point numbers")
        num_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        if min(self.shape) < 0 or num_bytes > stored - self._stream.tell() or self.shape[1] > MAX_WIDTH:
            self._stack.close()  # before a batch of such rows is asked for
            limit = f"more than it holds or more than {MAX_WIDTH:,} columns"
            raise DataError(f"{path}: {name} is said to be {self.shape}, {limit}; fetch it again")

    def read(self, num_rows: int) -> NDArray[np.floating]:
        """The next `num_rows` rows. Raises DataError when the file is cut or damaged."""
        size = num_rows * self.shape[1] * self.dtype.itemsize
        try:
            content = self._stream.read(size)
        except DAMAGED_ZIP as error:
            raise DataError(f"{self.path}: {self.name} is damaged ({error}); fetch it again") from error
        if len(content) != size:
            raise DataError(f"{self.path}: {self.name} is cut; fetch it again")
        return np.frombuffer(content, dtype=self.dtype).reshape(num_rows, self.shape[1])

    def __enter__(self) -> "FeatureReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [entry.removesuffix(".npy") for entry in archive.namelist()]
