from eyesmith.tasks.registry import register_task, run_from_dict, run_to_dict, task, task_names, task_of
from eyesmith.tasks.task import Evaluator, FrozenTeacher, MeanTask, RunContext, Task

__all__ = [
    "Evaluator",
    "FrozenTeacher",
    "MeanTask",
    "RunContext",
    "Task",
    "register_task",
    "run_from_dict",
    "run_to_dict",
    "task",
    "task_names",
    "task_of",
]
