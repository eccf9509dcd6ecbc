from eyesmith.eval.features import ImageFeatures, encode_source
from eyesmith.eval.metrics import chance_of_hit, clustered_interval, target_ranks, top_candidates, wilson_interval
from eyesmith.eval.pixel_batches import BrokenImage
from eyesmith.eval.predictions import Confusion, Prediction, confusions, predictions
from eyesmith.eval.results import ResultRow, append_rows, read_rows
from eyesmith.eval.retrieval import Retrieval, first_hit_ranks
from eyesmith.eval.suite import SplitTasks, choose_splits, evaluate, split_tasks
from eyesmith.eval.text_features import TextFeatures
from eyesmith.eval.zero_shot import ZeroShot

__all__ = [
    "BrokenImage",
    "Confusion",
    "ImageFeatures",
    "Prediction",
    "ResultRow",
    "Retrieval",
    "SplitTasks",
    "TextFeatures",
    "ZeroShot",
    "append_rows",
    "chance_of_hit",
    "choose_splits",
    "clustered_interval",
    "confusions",
    "encode_source",
    "evaluate",
    "first_hit_ranks",
    "predictions",
    "read_rows",
    "split_tasks",
    "target_ranks",
    "top_candidates",
    "wilson_interval",
]
