"""A task of a user's own from one Python file: a set, a kind of measurement, or both.

The file has `TASK` (a `Task`, or a tuple of them); if it likes `read(place) -> EvaluationSet`, for a folder that no
layout of ours describes; and `KIND`, a `Kind` whose name the task's `kind` gives. It is run when a user names it, and
never because results that it gave are opened.
"""

import hashlib
import os
import traceback
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from eyesmith.errors import ConfigError
from eyesmith.eval.kinds.kind import Kind
from eyesmith.eval.kinds.registry import KINDS, register_kind
from eyesmith.eval.sets.registry import TASKS, register_task
from eyesmith.eval.sets.task import Task

_MODULE = "eyesmith_task_"  # before the name of a file, as the module of what it defines


def register_task_file(path: str | os.PathLike[str]) -> tuple[Task, ...]:
    """Run a file that defines tasks, so that they can be measured by their keys; returns them.

    It is run as it is, with the rights of this process. A file that was edited replaces what it defined before. Raises
    ConfigError for a missing file, one that defines no task or fails, and a key or kind that something else has.
    """
    file = Path(path)
    try:
        code = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror or error}); give a Python file with a TASK"
        ) from None
    module = ModuleType(f"{_MODULE}{file.stem}")
    module.__file__ = str(file)
    try:
        exec(compile(code, str(file), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ConfigError(f"{file}: line {error.lineno}: {error.msg}") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(f"{file}: line {where.lineno}: {type(error).__name__}: {error}") from error
    given = getattr(module, "TASK", None)
    listed = given if isinstance(given, tuple) else (given,)
    tasks = [task for task in listed if isinstance(task, Task)]
    if not tasks or len(tasks) < len(listed):
        raise ConfigError(f"{file}: expected TASK = Task(key=..., name=..., size=None, folder=...), got {given!r}")
    kind = getattr(module, "KIND", None)
    digest, found = hashlib.sha256(code).hexdigest(), []
    if kind is not None:
        _register_kind(kind, file)
    for task in tasks:
        mine = replace(task, reader=task.reader or getattr(module, "read", None), code=digest, is_published=False)
        if mine.scored_as not in KINDS:
            raise ConfigError(
                f"{file}: task {mine.key!r} is of kind {mine.scored_as!r}, which the file does not define"
            )
        if TASKS.get(mine.key) is not None and TASKS[mine.key].code:  # of a task file before
            del TASKS[mine.key]
        register_task(mine)
        found.append(mine)
    return tuple(found)


def _register_kind(kind: object, file: Path) -> None:
    if not isinstance(kind, Kind):
        raise ConfigError(f"{file}: expected KIND to be a Kind, got {type(kind).__name__}")
    known = KINDS.get(kind.name)
    if known is not None and type(known).__module__.startswith(_MODULE):
        del KINDS[kind.name]
    register_kind(kind)
