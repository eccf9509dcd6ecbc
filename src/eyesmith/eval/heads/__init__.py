from eyesmith.eval.heads.choose import accuracy, choose_c, choose_mixture, draw_shots, validation_split
from eyesmith.eval.heads.data import choose_splits, feature_store, read_labelled, zero_shot_head
from eyesmith.eval.heads.gaussian import GaussianStatistics, fit_gaussian, mix
from eyesmith.eval.heads.imagenet_variants import (
    Robustness,
    objectnet_answers,
    real_answers,
    real_labels,
    robustness,
    subset_answers,
    subset_classes,
)
from eyesmith.eval.heads.logistic import LinearHead, fit_logistic
from eyesmith.eval.heads.probe import Fitted, Labelled, ProbeResult, ZeroShotHead, align, probe, shared_samples
from eyesmith.eval.heads.prompt_sets import PromptSetResult, compare_prompt_sets
from eyesmith.eval.heads.rows import probe_rows, probe_task, write_probe_predictions
from eyesmith.eval.heads.run import ProbeLine, ProbePlan, run_probes
from eyesmith.eval.heads.score import Link, link_of, score

__all__ = [
    "Fitted",
    "GaussianStatistics",
    "Labelled",
    "LinearHead",
    "Link",
    "ProbeLine",
    "ProbePlan",
    "ProbeResult",
    "PromptSetResult",
    "Robustness",
    "ZeroShotHead",
    "accuracy",
    "align",
    "choose_c",
    "choose_mixture",
    "choose_splits",
    "compare_prompt_sets",
    "draw_shots",
    "feature_store",
    "fit_gaussian",
    "fit_logistic",
    "link_of",
    "mix",
    "objectnet_answers",
    "probe",
    "probe_rows",
    "probe_task",
    "read_labelled",
    "real_answers",
    "real_labels",
    "robustness",
    "run_probes",
    "score",
    "shared_samples",
    "subset_answers",
    "subset_classes",
    "validation_split",
    "write_probe_predictions",
    "zero_shot_head",
]
