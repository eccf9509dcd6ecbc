from eyesmith.eval.suites.choice import Summary, chosen_suite, summary_of
from eyesmith.eval.suites.engine import RECORDS, Progress, evaluate_suite, missing_names
from eyesmith.eval.suites.result import TaskResult

__all__ = [
    "RECORDS",
    "Progress",
    "Summary",
    "TaskResult",
    "chosen_suite",
    "evaluate_suite",
    "missing_names",
    "summary_of",
]
