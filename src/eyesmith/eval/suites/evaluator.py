"""A suite as an evaluator of the training hook: the same tasks, sets and metrics as `eyesmith eval`."""

import os
from collections.abc import Iterator
from pathlib import Path

from eyesmith.errors import DataError
from eyesmith.eval.suites.choice import chosen_suite
from eyesmith.eval.suites.engine import evaluate_suite
from eyesmith.eval.tasks import aggregate
from eyesmith.models.clip import Clip


class SuiteEvaluator:
    """Measures a suite, or tasks named with commas between them, whose sets lie below a folder.

    limit: only the first so many images of each set, 0 for all. Raises ConfigError for an unknown name, DataError for a
    set that is not there: a curve must not change its meaning when a folder comes or goes.
    """

    def __init__(self, what: str, root: str | os.PathLike[str], *, limit: int = 0, num_workers: int = 4) -> None:
        self.suite, self.root = chosen_suite(what, root), Path(root)
        self._limit, self._num_workers = limit or None, num_workers
        lost = [task.name for task in self.suite.tasks if not (self.root / task.folder).exists()]
        if lost:
            raise DataError(f"{root}: lacks {len(lost)} sets of {what}: {', '.join(lost)}; fetch them, or name tasks")

    def run(self, clip: Clip) -> Iterator[tuple[str, float]]:
        """Yield (task/metric, value) of each task's main metric, then (suite/average, value).

        Raises what a set raised.
        """
        results = evaluate_suite(
            clip, self.suite, self.root, out=None, limit=self._limit, num_workers=self._num_workers
        )
        for result, task in zip(results, self.suite.tasks, strict=True):
            if result.error is not None:
                raise result.error
            if result.main_metric is not None:
                yield f"{result.key}/{self.suite.main_metric(task)}", result.main_metric
        values = {one.key: one.main_metric for one in results}
        for name, value in aggregate(self.suite, values, allow_missing=True).items():
            yield f"{self.suite.name}/{name}", value
