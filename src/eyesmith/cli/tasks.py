"""`--task FILE` of the verbs that make or open runs: a task from a file of the user's own."""

from typing import TYPE_CHECKING

from eyesmith.errors import ConfigError

if TYPE_CHECKING:
    from eyesmith.tasks import Task


def take_tasks(words: list[str]) -> tuple[list[str], list["type[Task]"]]:
    """The words without `--task FILE`, and the tasks of those files, which are run now: only their user asks for it."""
    rest: list[str] = []
    files: list[str] = []
    pending = iter(words)
    for word in pending:
        name, given, file = word.partition("=")
        if name != "--task":
            rest.append(word)
            continue
        file = file if given else next(pending, "")
        if not file:
            raise ConfigError("--task: expected a Python file that defines a task after it")
        files.append(file)
    if not files:
        return rest, []
    from eyesmith.tasks import register_task  # brings torch, which most wrong commands never need

    return rest, [register_task(file) for file in files]
