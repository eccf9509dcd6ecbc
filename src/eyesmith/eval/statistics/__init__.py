from eyesmith.eval.statistics.answers import Answers, MetricName, answers
from eyesmith.eval.statistics.bootstrap import (
    Interval,
    bootstrap_interval,
    f1_macro,
    group_mean,
    mean,
    resampled,
    worst_group,
)
from eyesmith.eval.statistics.calibration import (
    Bin,
    Calibration,
    calibration,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from eyesmith.eval.statistics.compare import ModelComparison, TaskComparison, compare_folders
from eyesmith.eval.statistics.paired import McNemar, Paired, compare_paired, holm, mcnemar_exact, permutation_test
from eyesmith.eval.statistics.prediction_files import (
    TaskPredictions,
    prediction_files,
    read_predictions,
    write_predictions,
)
from eyesmith.eval.statistics.robustness import RobustnessLine, fit_robustness_line

__all__ = [
    "Answers",
    "Bin",
    "Calibration",
    "Interval",
    "McNemar",
    "MetricName",
    "ModelComparison",
    "Paired",
    "RobustnessLine",
    "TaskComparison",
    "TaskPredictions",
    "answers",
    "bootstrap_interval",
    "calibration",
    "compare_folders",
    "compare_paired",
    "expected_calibration_error",
    "f1_macro",
    "fit_robustness_line",
    "fit_temperature",
    "group_mean",
    "holm",
    "mcnemar_exact",
    "mean",
    "permutation_test",
    "prediction_files",
    "read_predictions",
    "reliability",
    "resampled",
    "worst_group",
    "write_predictions",
]
