from eyesmith.eval.engine import Settings, SuiteEvaluator, evaluate, evaluate_own, evaluate_suite
from eyesmith.eval.features.batches import BrokenImage
from eyesmith.eval.features.images import ImageFeatures, encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.kinds.measurement import Measurement
from eyesmith.eval.results.rows import ResultRow, append_rows, current_name, read_rows
from eyesmith.eval.results.task_result import TaskResult
from eyesmith.eval.sets.made import SplitTasks, choose_splits, retrieval, split_tasks, zero_shot
from eyesmith.eval.sets.wording import Wording, read_templates

__all__ = [
    "BrokenImage",
    "ImageFeatures",
    "Measurement",
    "ResultRow",
    "Settings",
    "SplitTasks",
    "SuiteEvaluator",
    "TaskResult",
    "TextFeatures",
    "Wording",
    "append_rows",
    "choose_splits",
    "current_name",
    "encode_source",
    "evaluate",
    "evaluate_own",
    "evaluate_suite",
    "read_rows",
    "read_templates",
    "retrieval",
    "split_tasks",
    "zero_shot",
]
