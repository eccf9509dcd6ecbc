from eyesmith.eval.suites.choice import Summary, chosen_suite, summary_of
from eyesmith.eval.suites.engine import RECORDS, Progress, evaluate_suite, missing_names
from eyesmith.eval.suites.evaluator import SuiteEvaluator
from eyesmith.eval.suites.result import TaskResult
from eyesmith.eval.suites.wording import Wording, read_templates

__all__ = [
    "RECORDS",
    "Progress",
    "SuiteEvaluator",
    "Summary",
    "TaskResult",
    "Wording",
    "chosen_suite",
    "evaluate_suite",
    "missing_names",
    "read_templates",
    "summary_of",
]
