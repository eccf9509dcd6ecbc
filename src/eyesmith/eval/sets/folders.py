"""Tasks and suites on disk: fetched below one root, and checked against what the table of tasks says of them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyesmith.config import closest
from eyesmith.data.check import CheckReport
from eyesmith.data.evaluation.check import check_evaluation_set, is_evaluation_set
from eyesmith.data.evaluation.convert import fetch_rows
from eyesmith.data.evaluation.fetch import Hub, OnBytes, fetch_evaluation_set
from eyesmith.data.sample import Finding
from eyesmith.errors import ConfigError, DataError, EyesmithError
from eyesmith.eval.sets.registry import TASKS, find_task
from eyesmith.eval.sets.suite import SUITES
from eyesmith.eval.sets.task import Task


@dataclass(frozen=True, kw_only=True)
class FetchRow:
    """What became of one task. state: "fetched", "there" (nothing to do), "by hand" (no repository) or "failed"."""

    key: str
    folder: Path
    state: str
    num_bytes: int
    detail: str = ""


def tasks_of(name: str) -> tuple[Task, ...]:
    """The tasks of a suite, or the one task, that a user calls `name`. Raises ConfigError for an unknown name."""
    if name in SUITES:
        return SUITES[name].tasks
    try:
        return (find_task(name),)
    except ConfigError as error:
        if "unknown" not in str(error):
            raise
        raise ConfigError(f"{name!r} is neither a task nor a suite{closest(name, [*TASKS, *SUITES])}") from error


def fetch_tasks(
    names: Sequence[str],
    root: str | os.PathLike[str],
    *,
    hub: Hub | None = None,
    on_task: Callable[[FetchRow], None] | None = None,
    on_bytes: OnBytes | None = None,
) -> list[FetchRow]:
    """Fetch what tasks and suites need below `root`, each into its own folder; one that fails does not stop the others.

    A task that is not on the hub is "by hand": its detail says what is expected where. on_task: called with each row
    as it is done. Raises ConfigError for an unknown name, before anything is fetched.
    """
    chosen = list({task.folder: task for name in names for task in tasks_of(name)}.values())
    rows = []
    for task in chosen:
        folder = Path(root) / task.folder
        row = _fetch(task, folder, hub, on_bytes)
        rows.append(row)
        if on_task is not None:
            on_task(row)
    return rows


def check_folder(
    path: str | os.PathLike[str],
    *,
    num_workers: int = 2,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, CheckReport]:
    """Check an evaluation set (own class folders and tables too), or every one directly below `path`, by folder name.

    A folder that a task is kept in is compared with the task's size and number of classes. Of several,
    one that cannot be opened at all gives a report with the one error "unusable"; of one, DataError is raised.
    """
    place = Path(path)
    inside = sorted(entry for entry in place.iterdir() if is_evaluation_set(entry)) if place.is_dir() else []
    folders = inside if inside and not is_evaluation_set(place) else [place]
    reports = {}
    for folder in folders:
        name = folder.resolve().name
        task = next((task for task in TASKS.values() if task.folder == name), None)
        try:
            reports[name] = check_evaluation_set(
                folder,
                layout=task.layout if task else None,
                size=task.size if task else None,
                num_classes=task.num_classes if task else None,
                prompts=task.prompts if task else "",
                class_list=task.class_list if task else "",
                num_workers=num_workers,
                on_progress=None if on_progress is None else lambda done, total, n=name: on_progress(n, done, total),
            )
        except DataError as error:
            if len(folders) == 1:
                raise
            finding = Finding("unusable", "error", "", name, str(error))
            reports[name] = CheckReport(
                path=os.fspath(folder), splits={"": 0}, findings=[finding], seconds=0.0, images_per_s=0.0
            )
    return reports


def _fetch(task: Task, folder: Path, hub: Hub | None, on_bytes: OnBytes | None) -> FetchRow:
    last: dict[str, int] = {}

    def count(file: str, done: int, total: int) -> None:
        last[file] = done
        if on_bytes is not None:
            on_bytes(f"{task.key} {file}", done, total)

    if not task.hub:
        detail = "videos in class folders" if task.layout == "video" else "the folder of its shards and names"
        return FetchRow(
            key=task.key, folder=folder, state="by hand", num_bytes=0, detail=f"no repository; expected {detail}"
        )
    try:
        if task.layout == "retrieval" or task.layout == "winogavil":
            fetch_rows(task.hub, folder, task.layout, hub=hub, on_bytes=count)
            came = sum(last.values())
        else:
            came = fetch_evaluation_set(task.hub, folder, hub=hub, on_bytes=count).num_bytes
    except EyesmithError as error:
        detail = str(error)
        return FetchRow(key=task.key, folder=folder, state="failed", num_bytes=sum(last.values()), detail=detail)
    return FetchRow(key=task.key, folder=folder, state="fetched" if came else "there", num_bytes=came)
