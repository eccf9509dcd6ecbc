"""A named set of tensors on disk: in one file, or in a folder into which every process writes its own parts.

The folder form is torch.distributed.checkpoint's, read by any number of processes, also by one; `consolidate` makes the
file of it. Either is there whole or not at all: the file is renamed into place, the folder counts once its `.metadata`,
which the first process renames into place after all have written, is there.
"""

import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.files import atomic_path
from eyesmith.train.distributed import World
from eyesmith.train.sharding import is_part

STATE_FILE = "state/last.pt"
_FOLDER = re.compile(r"step-(\d+)")
_METADATA = ".metadata"


def newest(folder: Path) -> Path | None:
    """The latest whole state below `folder`, file or folder; None where there is none. Damaged files count."""
    found = [(step, path) for step, path in _sharded(folder)]
    file = folder / STATE_FILE
    if file.is_file():
        found.append((int(_read_file(file)["step"]) if found else 0, file))
    return max(found)[1] if found else None


def sizes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names in a state and the sizes of their tensors. Raises CheckpointError for a damaged one."""
    if path.is_file():
        return {name: tuple(value.shape) for name, value in _read_file(path).items()}
    return {name: tuple(entry.size) for name, entry in _metadata(path).items()}


def read_into(path: Path, content: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `content` from a state, in place; of those spread over processes each reads its part.

    Raises CheckpointError when one is not there, or the state is damaged.
    """
    stored = sizes(path)
    if missing := [name for name in content if name not in stored]:
        raise CheckpointError(f"{path}: has no {missing[0]}; it was saved with other settings of the run")
    if not path.is_file():
        with _quiet(), _errors_of(path):
            _load_folder(path, content, no_dist=not dist.is_initialized())
        return
    values = _read_file(path)
    for name, value in content.items():
        whole = values[name]
        if is_part(value):
            from torch.distributed.tensor import distribute_tensor

            part: Any = value
            whole = distribute_tensor(whole.to(value.device), part.device_mesh, part.placements)
        with torch.no_grad():
            value.copy_(whole)


def write_file(
    folder: Path, content: Mapping[str, Tensor], *, step: int, world: World, in_background: bool
) -> Future[None] | None:
    """Write last.pt in the first process, which returns what is done when it is on disk; None where it already is."""
    if not world.is_first:
        return None
    if in_background:
        content = {name: value.detach().to("cpu", copy=True) for name, value in content.items()}
        return _in_thread(_write_file, folder, content)
    _write_file(folder, content)
    return None


def write_sharded(
    folder: Path, content: Mapping[str, Tensor], *, step: int, world: World, in_background: bool
) -> Future[None] | None:
    """Write this process's parts into the folder of the step; done when those of all processes are there."""
    target = folder / "state" / f"step-{step:08d}"
    target.mkdir(parents=True, exist_ok=True)
    if not in_background:
        with _quiet():
            _dcp().save(dict(content), checkpoint_id=target)
        _clean(folder, step, world)
        return None
    with _quiet():
        written = _dcp().async_save(dict(content), checkpoint_id=target, process_group=_own_group())
    assert isinstance(written, Future)

    def finish() -> None:
        written.result()
        _clean(folder, step, world)

    return _in_thread(finish)


def consolidate(folder: Path) -> Path:
    """Make one file, state/last.pt, of the newest state below a run folder, and remove the parts; returns its path.

    Needs no other process. Raises CheckpointError when there is no state.
    """
    path = newest(folder)
    if path is None:
        raise CheckpointError(f"{folder}: no state to consolidate, there is neither {STATE_FILE} nor state/step-*")
    if not path.is_file():
        content = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in _metadata(path).items()
        }
        with _quiet(), _errors_of(path):
            _load_folder(path, content, no_dist=True)
        _write_file(folder, content)
    return folder / STATE_FILE


def _write_file(folder: Path, content: Mapping[str, Tensor]) -> None:
    with atomic_path(folder / STATE_FILE) as part, part.open("wb") as stream:
        torch.save(dict(content), stream)  # to a path it would not say that the disk is full
    for _, path in _sharded(folder):
        shutil.rmtree(path)


def _clean(folder: Path, step: int, world: World) -> None:
    """Remove what the state of `step` replaces."""
    if world.is_first:
        (folder / STATE_FILE).unlink(missing_ok=True)
        for path in (folder / "state").iterdir():
            named = _FOLDER.fullmatch(path.name)
            if named and int(named[1]) != step:
                shutil.rmtree(path)


def _sharded(folder: Path) -> list[tuple[int, Path]]:
    """Whole folder states with their steps."""
    paths = sorted((folder / "state").glob("step-*"))
    named = [(match, path) for path in paths if (match := _FOLDER.fullmatch(path.name))]
    return [(int(match[1]), path) for match, path in named if (path / _METADATA).is_file()]


def _metadata(path: Path) -> dict[str, Any]:
    from eyesmith.train.checkpoint_reader import read_metadata

    with _errors_of(path):
        return dict(read_metadata(path / _METADATA).state_dict_metadata)


def _load_folder(path: Path, content: Mapping[str, Tensor], *, no_dist: bool) -> None:
    from eyesmith.train.checkpoint_reader import planner, reader

    _dcp().load(dict(content), storage_reader=reader(path), planner=planner(), no_dist=no_dist)


def _read_file(path: Path) -> dict[str, Tensor]:
    with _errors_of(path):
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path}: is no state of a run, it holds something else than named tensors")
    return values


def _dcp() -> Any:
    """torch.distributed.checkpoint, which takes a second to import."""
    import torch.distributed.checkpoint as dcp

    return dcp


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        known = (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError)
        if not isinstance(error, known) and type(error).__name__ != "CheckpointException":  # which is no Exception
            raise
        raise CheckpointError(f"{path}: cannot be read ({error}); delete the run and start it again") from None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # dcp without a process group, and its own use of deprecated storage calls: nothing a user can act on
        warnings.simplefilter("ignore")
        yield


_groups: dict[int, Any] = {}


def _own_group() -> Any:
    """A gloo group for exchanges in the background, which must not mix with those of training."""
    key = id(dist.group.WORLD)
    if key not in _groups:
        _groups[key] = dist.new_group(backend="gloo")
    return _groups[key]


def _in_thread(function: Any, *arguments: Any) -> Future[None]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="save")
    future = pool.submit(function, *arguments)
    pool.shutdown(wait=False)
    return future
