"""Named sets of tensors on disk, the last few of a run: each one file, or a folder with the parts of every process.

A state of step N is `state/step-N.pt`, or `state/step-N/` in torch.distributed.checkpoint's format, which any number
of processes reads, also one; `consolidate` makes the file of it. Either is written under another name, `.step-N*.part`,
and renamed when it is whole; none that is there is written to again, and an older one goes only when enough newer ones
are whole. A second state of one step is `step-N-2`.
"""

import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.files import atomic_path, sync_folder
from eyesmith.train.distributed import World, patient_group
from eyesmith.train.sharding import is_part

FOLDER = "state"
KEEP = 2
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?(?:\.pt)?")
_OLD_FILE = "last.pt"  # the one state of a run, until 0.1
_METADATA = ".metadata"


class DamagedStateError(CheckpointError):
    """A state that cannot be read; an older one may."""


def states(folder: Path) -> list[Path]:
    """All states below `folder` that were written to their end, files and folders, the newest first."""
    found = []
    for path in (folder / FOLDER).glob("step-*"):
        if named := _NAME.fullmatch(path.name):
            found.append((int(named[1]), int(named[2] or 1), path.is_file(), path))
    old = folder / FOLDER / _OLD_FILE
    if old.is_file():
        found.append((_step_of(old), 1, True, old))
    return [path for *_, path in sorted(found, reverse=True)]


def unfinished(folder: Path) -> list[Path]:
    """What a killed process left of states that it was writing."""
    return sorted((folder / FOLDER).glob(".*.part"))


def sizes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names in a state and the sizes of their tensors. Raises DamagedStateError where a part is missing."""
    if path.is_file():
        return {name: tuple(value.shape) for name, value in _read_file(path).items()}
    return {name: tuple(entry.size) for name, entry in _metadata(path).items()}


def read_into(path: Path, content: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `content` from a state, in place; of those spread over processes each reads its part.

    Raises CheckpointError when one is not there, DamagedStateError when the state cannot be read.
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
    folder: Path, content: Mapping[str, Tensor], *, step: int, world: World, in_background: bool, keep: int = KEEP
) -> Future[None] | None:
    """Write one file in the first process, which returns what is done when it is on disk; None where it already is."""
    if not world.is_first:
        return None
    if in_background:
        content = {name: value.detach().to("cpu", copy=True) for name, value in content.items()}
        return _in_thread(_write_file, folder, content, step, keep)
    _write_file(folder, content, step, keep)
    return None


def write_sharded(
    folder: Path, content: Mapping[str, Tensor], *, step: int, world: World, in_background: bool, keep: int = KEEP
) -> Future[None] | None:
    """Write this process's parts into one folder; done when those of all processes are there."""
    target = world.once(lambda: _free(folder, step, ""))
    part = target.with_name(f".{target.name}.part")
    world.once(lambda: _empty(part))
    save = _dcp().async_save if in_background else _dcp().save
    with _quiet():
        written = save(dict(content), checkpoint_id=part, process_group=_own_group())

    def finish() -> None:
        if in_background:
            written.result()
        if world.is_first:
            part.rename(target)
            sync_folder(target.parent)
            _remove_old(folder, keep)

    if in_background:
        return _in_thread(finish)
    finish()
    return None


def consolidate(folder: Path) -> Path:
    """Make one file of the newest state below a run folder, and remove those in parts; returns its path.

    Needs no other process. Raises CheckpointError when there is no state.
    """
    path = next(iter(states(folder)), None)
    if path is None:
        raise CheckpointError(f"{folder}: no state to consolidate, there is no {FOLDER}/step-*")
    if path.is_file():
        return path
    content = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in _metadata(path).items()}
    with _quiet(), _errors_of(path):
        _load_folder(path, content, no_dist=True)
    made = _write_file(folder, content, _step_of(path), KEEP)
    for other in states(folder):
        if other.is_dir():
            _remove(other)
    return made


def _write_file(folder: Path, content: Mapping[str, Tensor], step: int, keep: int) -> Path:
    target = _free(folder, step, ".pt")
    with atomic_path(target) as part, part.open("wb") as stream:
        torch.save(dict(content), stream)  # to a path it would not say that the disk is full
    _remove_old(folder, keep)
    return target


def _free(folder: Path, step: int, suffix: str) -> Path:
    """A name that no state has."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    taken = {path.name.removesuffix(".pt") for path in states(folder)}
    name, copy = f"step-{step:08d}", 1
    while name in taken:
        copy += 1
        name = f"step-{step:08d}-{copy}"
    return folder / FOLDER / f"{name}{suffix}"


def _empty(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)


def _remove_old(folder: Path, keep: int) -> None:
    """Remove what is older than the newest `keep` whole states, what is damaged, and what was never finished."""
    num_whole = 0
    for path in states(folder):
        if num_whole < keep and _is_whole(path):
            num_whole += 1
        else:
            _remove(path)
    for path in unfinished(folder):
        _delete(path)


def _remove(path: Path) -> None:
    """In a way that a kill leaves nothing that looks like a state."""
    gone = path.with_name(f".{path.name}.gone.part")
    path.rename(gone)
    _delete(gone)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    try:
        sizes(path)
    except CheckpointError:
        return False
    return True


def _step_of(path: Path) -> int:
    if named := _NAME.fullmatch(path.name):
        return int(named[1])
    try:
        return int(_read_file(path)["step"])
    except CheckpointError:
        return -1


def _metadata(path: Path) -> dict[str, Any]:
    """The list of a folder's tensors, after a look whether all that it names is there."""
    from eyesmith.train.checkpoint_reader import read_metadata

    with _errors_of(path):
        try:
            listed = read_metadata(path / _METADATA)
        except CheckpointError as error:
            raise DamagedStateError(str(error)) from None
        for place in listed.storage_data.values():
            has = (path / place.relative_path).stat().st_size
            if has < place.offset + place.length:
                raise DamagedStateError(f"{path / place.relative_path}: is {has} bytes, and there should be more")
    return dict(listed.state_dict_metadata)


def _load_folder(path: Path, content: Mapping[str, Tensor], *, no_dist: bool) -> None:
    from eyesmith.train.checkpoint_reader import StateReader, TensorsOnly

    group, reader = None if no_dist else _own_group(), StateReader(path)
    _dcp().load(dict(content), storage_reader=reader, planner=TensorsOnly(), process_group=group, no_dist=no_dist)


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
    except CheckpointError:
        raise
    except BaseException as error:  # damaged bytes reach every kind of error inside the unpickler
        is_of_reading = isinstance(error, Exception) and not isinstance(error, MemoryError)
        if not is_of_reading and type(error).__name__ != "CheckpointException":  # which is no Exception
            raise
        raise DamagedStateError(f"{path}: cannot be read ({error})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # dcp without a process group, and its own use of deprecated storage calls: nothing a user can act on
        warnings.simplefilter("ignore")
        yield


_groups: dict[int, Any] = {}


def _own_group() -> Any:
    """A group for what processes say to each other while they write and read, which must not mix with training.

    None where there is one process.
    """
    if not dist.is_initialized():
        return None
    key = id(dist.group.WORLD)
    if key not in _groups:
        _groups[key] = patient_group()
    return _groups[key]


def _in_thread(function: Callable[..., Any], *arguments: Any) -> Future[None]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="save")
    future = pool.submit(function, *arguments)
    pool.shutdown(wait=False)
    return future
