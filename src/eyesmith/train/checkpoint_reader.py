"""Reads a state folder of torch.distributed.checkpoint without running what is in it.

The format's list of tensors, `.metadata`, is a pickle, and torch reads it as one: a prepared file would run code. Here
a pickle gives nothing but inert records of the format's own classes, from which the list is made anew and checked; any
other class is refused. Values that are no tensors, which torch would unpickle too, are refused as well: no state of
ours has any. Importing this file imports torch.distributed.checkpoint, which takes a second.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from eyesmith.errors import CheckpointError

METADATA = ".metadata"
_FORMAT = "torch.distributed.checkpoint.metadata"
_KNOWN = {
    *((_FORMAT, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "BytesStorageMetadata")),
    *((_FORMAT, name) for name in ("TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties")),
    (_FORMAT, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    *((home, name) for home in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath", "Path")),
}


def read_metadata(file: Path) -> Metadata:
    """The list of tensors in a state folder, from the pickle `file`, whose classes and functions are never called.

    Raises CheckpointError when it names anything that the format does not, or is damaged.
    """
    try:
        with file.open("rb") as stream:
            return _metadata(_Records(stream, file).load())
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # damaged bytes reach every kind of error inside the unpickler
        raise CheckpointError(f"{file}: is no list of a state's tensors, or damaged ({error!r})") from None


class _Record:
    """What an object in the pickle holds: arguments of its making and the state given to it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Records(pickle.Unpickler):
    """Every name of the format stands for an empty record class made for this one file; no other name is looked up."""

    def __init__(self, stream: Any, file: Path) -> None:
        super().__init__(stream)
        self._file = file
        self._classes: dict[tuple[str, str], type[_Record]] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        key = (module_name, global_name)
        if module_name == "torch" and isinstance(dtype := getattr(torch, global_name, None), torch.dtype):
            return dtype
        if key not in _KNOWN:
            raise CheckpointError(
                f"{self._file}: refused: it names {module_name}.{global_name}, which is no part of a saved state and "
                "could run code of its own"
            )
        return self._classes.setdefault(key, type(global_name, (_Record,), {}))


def _metadata(whole: Any) -> Metadata:
    fields = _fields(whole, "Metadata")
    entries: dict[str, Any] = {}
    for name, entry in _dict(fields["state_dict_metadata"]).items():
        entries[_text(name)] = _tensor(name, entry)
    stored: dict[MetadataIndex, _StorageInfo] = {}
    for key, entry in _dict(fields["storage_data"]).items():
        index = _fields(key, "MetadataIndex")
        offset = index.get("offset")
        place = MetadataIndex(_text(index["fqn"]), None if offset is None else _size(offset), index.get("index"))
        stored[place] = _stored(entry)
    return Metadata(state_dict_metadata=entries, storage_data=stored, storage_meta=StorageMeta())


def _tensor(name: str, entry: Any) -> TensorStorageMetadata:
    if type(entry).__name__ == "BytesStorageMetadata":
        raise ValueError(f"{name} is no tensor")
    fields = _fields(entry, "TensorStorageMetadata")
    properties = fields["properties"]
    if not isinstance(properties, _Record) or not isinstance(properties.state, tuple):
        raise ValueError(f"{name} has no properties")
    dtype = properties.state[0]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"the type of {name} is {dtype!r}")
    chunks = [_fields(chunk, "ChunkStorageMetadata") for chunk in fields["chunks"]]
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=dtype),
        size=_size(fields["size"]),
        chunks=[ChunkStorageMetadata(_size(chunk["offsets"]), _size(chunk["sizes"])) for chunk in chunks],
    )


def _stored(entry: Any) -> _StorageInfo:
    fields = _fields(entry, "_StorageInfo")
    name = _text(fields["relative_path"])
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} is no file of this folder")
    offset, length = fields["offset"], fields["length"]
    if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
        raise ValueError(f"a place of {name} is {offset!r}, {length!r}")
    if fields.get("transform_descriptors"):
        raise ValueError(f"{name} is packed in a way that is not read")
    return _StorageInfo(name, offset, length)


def _fields(record: Any, expected: str) -> Mapping[str, Any]:
    if not isinstance(record, _Record) or type(record).__name__ != expected or not isinstance(record.state, dict):
        raise ValueError(f"expected a {expected}, got {type(record).__name__}")
    return record.state


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, got {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a name, got {type(value).__name__}")
    return value


def _size(record: Any) -> torch.Size:
    if not isinstance(record, _Record) or type(record).__name__ != "Size":
        raise ValueError(f"expected a size, got {type(record).__name__}")
    numbers = record.arguments[0] if record.arguments else ()
    if not isinstance(numbers, tuple) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"a size is {numbers!r}")
    return torch.Size(numbers)


class StateReader(FileSystemReader):
    """What `dcp.load` reads a state folder through. Raises CheckpointError for a list that is not the format's."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        rank = kwargs.get("rank")
        return read_metadata(Path(self.path) / (METADATA if rank is None else f"__{rank}{METADATA}"))


class TensorsOnly(DefaultLoadPlanner):
    """What `dcp.load` fills tensors by, and nothing else than tensors."""

    def load_bytes(self, read_item: Any, value: Any) -> None:
        raise CheckpointError(f"{read_item.dest_index.fqn}: expected a tensor, got a pickle, which is not read")
