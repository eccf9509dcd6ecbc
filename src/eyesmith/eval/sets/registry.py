"""Every task by its key, and finding one by what a user calls it."""

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.eval.sets.datacomp import DATACOMP
from eyesmith.eval.sets.eva02 import CORRECTED, EVA02_EXTRA, IMAGENET_EXTRA, MULTILABEL, VIDEO
from eyesmith.eval.sets.task import Task

TASKS: dict[str, Task] = {
    task.key: task for task in (*DATACOMP, *EVA02_EXTRA, *IMAGENET_EXTRA, *MULTILABEL, *VIDEO, *CORRECTED)
}


def register_task(task: Task) -> None:
    """Add a task of your own. Raises ConfigError when its key or name is taken."""
    if task.key in TASKS or any(task.name == known.name for known in TASKS.values()):
        raise ConfigError(
            f"there is a task {task.key!r} or one named {task.name!r} already; choose another key and name"
        )
    TASKS[task.key] = task


def find_task(name: str) -> Task:
    """The task with that key, shown name or folder; case and the part of a key before "/" may be left out.

    Raises ConfigError for a name that is unknown, or that several tasks share.
    """
    if name in TASKS:
        return TASKS[name]
    wanted = name.casefold()
    for spell in (lambda task: (task.key, task.name, task.folder), lambda task: (task.key.rpartition("/")[2],)):
        found = [task for task in TASKS.values() if wanted in (text.casefold() for text in spell(task))]
        found = (
            found[:1] if len({task.folder for task in found}) == 1 else found
        )  # a corrected variant shares its folder
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{name!r} is the name of several tasks: {', '.join(task.key for task in found)}")
    known = [*TASKS, *(task.name for task in TASKS.values())]
    raise ConfigError(f"unknown task {name!r}{closest(name, known)}")
