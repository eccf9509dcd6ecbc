"""Which suite a user means, and what came of it."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results.task_result import TaskResult
from eyesmith.eval.sets.registry import TASKS, find_task
from eyesmith.eval.sets.suite import SUITES, Suite, aggregate, missing_tasks

_MADE = ("all", "zero_shot", "retrieval")  # tasks of made data sets, named in messages


@dataclass(frozen=True, kw_only=True)
class Summary:
    """averages: by title, those that lack nothing. mains: the main metric's name by task key. notes: lines for a user:
    what is missing, what failed, which averages there are not. status: 1 where a set that is there failed."""

    averages: dict[str, float]
    mains: dict[str, str | None]
    notes: tuple[str, ...]
    status: int
    results: tuple[TaskResult, ...]

    def to_json(self) -> dict[str, Any]:
        """tasks, averages and missing, as plain values."""
        return {
            "tasks": {one.key: one.metrics for one in self.results if one.is_measured},
            "main": {one.key: one.main_metric for one in self.results if one.is_measured},
            "averages": self.averages,
            "missing": {one.key: one.problem for one in self.results if not one.is_measured},
        }


def chosen_suite(what: str, root: str | os.PathLike[str] | None) -> Suite:
    """The suite of that name, or one made of tasks named with commas between them.

    Raises ConfigError for an unknown name, without a root, and when the root holds none of the sets.
    """
    suite = SUITES.get(what) or _of_tasks(what)
    if root is None:
        raise ConfigError(
            f"{what}: expected --data DIR, the folder that holds the sets; `eyesmith data fetch {what} --to DIR` "
            "fills one"
        )
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder; expected the folder that holds the sets")
    if not any((Path(root) / task.folder).exists() for task in suite.tasks):
        folders = ", ".join(task.folder for task in suite.tasks[:3])
        raise DataError(
            f"{root}: holds none of the {len(suite.tasks)} sets of {what}; expected folders such as {folders}"
        )
    return suite


def is_suite_folder(what: str, root: str | os.PathLike[str] | None) -> bool:
    """Whether `what` names a suite of which the folder `root` holds a set: `retrieval` is also a task of made data."""
    return what in SUITES and root is not None and any((Path(root) / t.folder).exists() for t in SUITES[what].tasks)


def summary_of(suite: Suite, results: Sequence[TaskResult]) -> Summary:
    """The averages of a suite, and everything that is not in them by name."""
    values = {one.key: one.main_metric for one in results if one.is_measured}
    found = aggregate(suite, values, allow_missing=True)
    missing = [one.dataset for one in results if one.is_missing]
    failed = [f"{one.dataset} ({one.problem})" for one in results if not one.is_measured and not one.is_missing]
    notes = []
    if missing:
        notes.append(f"missing, not measured: {', '.join(missing)}")
    notes += [f"failed: {text}" for text in failed]
    left_out = [one for one in suite.aggregates if one.name not in found]
    if left_out:
        lacking = missing_tasks(suite, values)
        notes.append(
            f"no {', '.join(one.title for one in left_out)}: an average over a part would compare with nothing; "
            f"lacking: {', '.join(lacking)}"
        )
    return Summary(
        averages={one.title: found[one.name] for one in suite.aggregates if one.name in found},
        mains={task.key: suite.main_metric(task) for task in suite.tasks},
        notes=tuple(notes),
        status=1 if failed else 0,
        results=tuple(results),
    )


def _of_tasks(what: str) -> Suite:
    names = [name.strip() for name in what.split(",") if name.strip()]
    try:
        keys = tuple(dict.fromkeys(find_task(name).key for name in names))
    except ConfigError as error:
        if len(names) == 1:
            near = difflib.get_close_matches(what, [*_MADE, *SUITES, *TASKS], n=2)
            hint = f"; did you mean {' or '.join(near)}" if near else ""
            raise ConfigError(
                f"{what}: no folder, suite or task of that name{hint}. Suites: {', '.join(SUITES)}; of "
                f"a made data set: {', '.join(_MADE)}"
            ) from None
        raise error
    if not keys:
        raise ConfigError(f"expected a folder, a suite or a task, got {what!r}; suites: {', '.join(SUITES)}")
    return Suite(name=what, title=what, keys=keys, aggregates=())
