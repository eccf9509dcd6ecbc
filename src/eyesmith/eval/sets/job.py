"""Something to measure: a task, and how its set is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.eval.sets.task import Task


@dataclass(frozen=True, kw_only=True)
class Job:
    """place: where the set lies; a job without it is missing. split: as named in result lines."""

    task: Task
    place: Path
    split: str
    open: Callable[[], EvaluationSet]
