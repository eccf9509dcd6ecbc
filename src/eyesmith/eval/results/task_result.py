"""What is known of one task after a run, and how it is written."""

from dataclasses import dataclass
from typing import Any

from eyesmith.eval.results.rows import ResultRow


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task of a run.

    key, dataset: the task and its shown name. metrics: by the reference's names; main_metric: the number that averages
    take, None for a task without one. rows: the same as result lines with intervals. facts: of the run (model, data,
    precision). problem: why there is no result, "" where there is one; is_missing: because the data are not there;
    error: what was raised else.
    """

    key: str
    dataset: str
    metrics: dict[str, float | None]
    main_metric: float | None
    rows: tuple[ResultRow, ...] = ()
    facts: dict[str, Any] | None = None
    problem: str = ""
    is_missing: bool = False
    error: Exception | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there are numbers."""
        return not self.problem
