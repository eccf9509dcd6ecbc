from eyesmith.eval.tasks.registry import TASKS, find_task, register_task
from eyesmith.eval.tasks.suite import SUITES, Aggregate, Suite, aggregate, find_suite, missing_tasks
from eyesmith.eval.tasks.task import LAYOUTS, Layout, Task

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
