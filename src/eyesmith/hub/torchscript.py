"""The tensors of a TorchScript archive, such as OpenAI's `.pt`, without running the program in it.

The archive is a zip: `data.pkl` describes the module as a tree of objects, `data/N` holds the numbers, `code/` the
program. Of the pickle the tree and the tensors are built; a class of the program becomes an empty record, and any name
that is neither such a class nor one of the few that rebuild tensors is refused. The program is not looked at.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.files import DAMAGED_ZIP

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


def is_torchscript(file: Path) -> bool:
    """Whether a zip is one."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except DAMAGED_ZIP:
        return False  # torch says what is wrong with it


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The tensors that the archive's module holds, by the names of its state dict.

    Raises CheckpointError for a damaged archive, one without tensors, and one that names anything else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            root = next(name for name in names if name.endswith("/data.pkl"))[: -len("data.pkl")]
            reader = _Reader(archive.open(root + "data.pkl"), archive, root, file)
            module = reader.load()
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes reach every kind of error inside the unpickler
        raise CheckpointError(
            f"{file}: truncated or damaged TorchScript archive ({type(error).__name__}: {error}); get it again"
        ) from None
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors, set())
    if not tensors:
        raise CheckpointError(f"{file}: a TorchScript archive whose module holds no tensors")
    return tensors


class _Record:
    """An object of the archive's program: what it holds."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str, file: Path) -> None:
        super().__init__(stream)
        self._archive, self._root, self._file = archive, root, file
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.partition(".")[0] == "__torch__":
            return type(global_name, (_Record,), {})
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module_name, global_name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module_name == "torch" and global_name in _STORAGES:
            return _STORAGES[global_name]
        if module_name == "torch.jit._pickle" and global_name in (*_LISTS, "restore_type_tag"):
            return lambda value, *_: value
        raise CheckpointError(
            f"{self._file}: refused: this TorchScript archive names {module_name}.{global_name}, which is no part of a "
            "module's tensors and could run code of its own"
        )

    def persistent_load(self, pid: Any, /) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError(f"expected the place of a storage, got {pid!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(data)} bytes, {count} numbers of {dtype} were promised")
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    size, stride = tuple(size), tuple(stride)
    if min((*size, *stride, offset), default=0) < 0:
        raise ValueError(f"a tensor of size {size} and stride {stride}")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(storage):
        raise ValueError(f"a tensor of size {size} in a storage of {len(storage)} numbers")
    return storage.as_strided(size, stride, offset)


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor], seen: set[int]) -> None:
    """Put the tensors of an object and of those it holds into `tensors`."""
    if not isinstance(module, _Record) or not isinstance(module.state, dict) or id(module) in seen:
        return
    seen.add(id(module))
    for name, value in module.state.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        else:
            _collect(value, f"{prefix}{name}.", tensors, seen)
