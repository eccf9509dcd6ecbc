"""Tasks by name, their configs to JSON and back, and tasks that come from a file of the user's own.

A house task is the file of its name beside this one, imported when it is asked for. A file of the user's own is run
when it is registered, and at no other time: the runs it makes name its bytes, and are opened with it or not at all.
"""

import dataclasses
import hashlib
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eyesmith.config import closest, from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.files import write_atomic
from eyesmith.models.own import describe_error, run_file
from eyesmith.tasks.task import Task
from eyesmith.train.config import RunConfig

KEY = "objective"  # beside the fields of a config; contrastive runs, the first there were, have none
FILE_KEY = "task_file"  # of a task from a file of the user's own
TASK_FOLDER = "task"  # of a run folder: the copy of that file
_FIRST = "contrastive"
_NOT_TASKS = ("curve", "encoder_run", "on_eye", "registry", "task")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class UnregisteredTaskError(ConfigError):
    """A run's task comes from a file that was not registered in this process."""


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """A file that was run in this process, and the task that it defines."""

    name: str
    path: Path
    sha256: str
    source: bytes
    task: type[Task]


_OWN: dict[str, TaskFile] = {}  # by SHA-256


def task_names() -> list[str]:
    """The tasks of the house, sorted."""
    return sorted(one.name for one in pkgutil.iter_modules([str(Path(__file__).parent)]) if one.name not in _NOT_TASKS)


def task(name: str) -> type[Task]:
    """A task of the house. Raises ConfigError for an unknown name."""
    if name not in task_names():
        raise ConfigError(f"{KEY}: no kind of run is called {name!r}{closest(name, task_names())}")
    return _task_in(importlib.import_module(f"eyesmith.tasks.{name}"))


def task_of(config: RunConfig) -> type[Task]:
    """The task that a run of `config` learns: that of the file which defines the config's class."""
    found = _task_in(sys.modules[type(config).__module__])
    if found.config_type is not type(config):
        raise ConfigError(f"{type(config).__name__}: is the config of no task; {found.__name__} has another")
    return found


def task_name(found: type[Task]) -> str:
    """What config.json calls a task: the name of its file without .py."""
    file = next((file for file in _OWN.values() if file.task is found), None)
    return file.name if file is not None else found.__module__.rpartition(".")[2]


def default_config(found: type[Task]) -> RunConfig:
    """The config of a task as its file has it. Raises ConfigError where a field has no default."""
    needed = [
        field.name
        for field in dataclasses.fields(found.config_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if needed:
        raise ConfigError(f"{found.config_type.__name__}: expected a default for every field, {needed[0]} has none")
    return found.config_type()  # pyright: ignore[reportCallIssue]


def run_to_dict(config: RunConfig) -> dict[str, Any]:
    """A JSON-able mapping of a run's config that `run_from_dict` reads."""
    fields = to_dict(config)
    if (file := _file_of(config)) is not None:
        return {KEY: file.name, FILE_KEY: {"file": file.path.name, "sha256": file.sha256}, **fields}
    name = task_name(task_of(config))
    return fields if name == _FIRST else {KEY: name, **fields}


def run_from_dict(mapping: Mapping[str, Any], *, at: Path | None = None) -> RunConfig:
    """The config that `run_to_dict` wrote; at: the run folder, where a copy of a file of the user's own may lie.

    Raises ConfigError for an unknown task or a wrong field, UnregisteredTaskError where a file was not registered.
    """
    fields = dict(mapping)
    name, file = fields.pop(KEY, _FIRST), fields.pop(FILE_KEY, None)
    if file is None:
        return from_dict(task(str(name)).config_type, fields)
    if file["sha256"] not in _OWN:
        place = str(at / TASK_FOLDER / file["file"]) if at is not None else file["file"]
        other = next((one for one in _OWN.values() if one.name == name), None)
        why = "which was not registered. No file is run without being asked for: give"
        if other is not None:
            why = (
                f"and {other.path} has other bytes ({other.sha256[:12]}...). Results belong to the file as it was: give"
            )
        raise UnregisteredTaskError(
            f"task {name}: comes from the file {file['file']} (SHA-256 {file['sha256'][:12]}...), {why} "
            f"`--task {place}`, or call eyesmith.tasks.register_task({place!r}) first"
        )
    return from_dict(_OWN[file["sha256"]].task.config_type, fields)


def register_task(path: str | os.PathLike[str]) -> type[Task]:
    """Run a file that defines one task, so that its runs can be made and opened; returns the task.

    The file is run as it is, with the rights of this process. Its name without .py is the task's. Raises ConfigError
    for a missing file, one that defines no task, and a name that a task of the house has.
    """
    place = Path(path).expanduser().resolve()
    try:
        source = place.read_bytes()
    except OSError as error:
        raise ConfigError(f"{place}: expected a Python file that defines a task ({error.strerror})") from None
    sha256 = hashlib.sha256(source).hexdigest()
    if sha256 in _OWN:
        return _OWN[sha256].task
    if not _NAME.fullmatch(place.stem) or place.stem in task_names():
        raise ConfigError(
            f"{place}: the file's name is the task's; expected letters, digits and _, a letter first, and none of "
            f"{', '.join(task_names())}"
        )
    name = f"eyesmith_task_{sha256[:16]}"
    try:
        found = _task_in(run_file(place, source, name))
    except Exception as error:
        sys.modules.pop(name, None)
        raise ConfigError(f"{place}: defines no task: {describe_error(error, place)}") from error
    _OWN[sha256] = TaskFile(name=place.stem, path=place, sha256=sha256, source=source, task=found)
    return found


def save_task_file(folder: Path, config: RunConfig) -> None:
    """Keep the file that a user's own task comes from in its run folder. Nothing to do for tasks of the house."""
    if (file := _file_of(config)) is not None:
        write_atomic(folder / TASK_FOLDER / file.path.name, file.source)


def _file_of(config: RunConfig) -> TaskFile | None:
    return next((file for file in _OWN.values() if file.task.__module__ == type(config).__module__), None)


def _task_in(module: ModuleType) -> type[Task]:
    """The one task that a file defines."""
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Task) and one.__module__ == module.__name__
    ]
    found = [one for one in found if not any(other is not one and issubclass(other, one) for other in found)]
    if len(found) != 1 or not hasattr(found[0], "config_type"):
        raise ConfigError(
            f"{module.__file__}: expected one class derived from eyesmith.tasks.Task, with a config_type, got "
            f"{', '.join(one.__name__ for one in found) or 'none'}"
        )
    if found[0].config_type.__module__ != module.__name__:
        raise ConfigError(f"{module.__file__}: {found[0].__name__}.config_type: expected a class of the same file")
    return found[0]
