from eyesmith.eval.sets.registry import TASKS, find_task, register_task
from eyesmith.eval.sets.suite import SUITES, Aggregate, Suite, aggregate, find_suite, missing_tasks
from eyesmith.eval.sets.task import LAYOUTS, Layout, Task

__all__ = [
    "LAYOUTS",
    "SUITES",
    "TASKS",
    "Aggregate",
    "Layout",
    "Suite",
    "Task",
    "aggregate",
    "find_suite",
    "find_task",
    "missing_tasks",
    "register_task",
]
