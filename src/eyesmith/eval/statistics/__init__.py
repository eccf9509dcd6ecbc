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
from eyesmith.eval.statistics.paired import McNemar, Paired, compare_paired, holm, mcnemar_exact, permutation_test
from eyesmith.eval.statistics.robustness import RobustnessLine, fit_robustness_line

__all__ = [
    "Bin",
    "Calibration",
    "Interval",
    "McNemar",
    "Paired",
    "RobustnessLine",
    "bootstrap_interval",
    "calibration",
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
    "reliability",
    "resampled",
    "worst_group",
]
