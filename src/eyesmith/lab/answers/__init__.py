from eyesmith.lab.answers.ablation import AblationAnswer, answer_ablation
from eyesmith.lab.answers.answer import Answer
from eyesmith.lab.answers.correlation import CorrelationAnswer, answer_correlation
from eyesmith.lab.answers.data import DataAnswer, answer_data
from eyesmith.lab.answers.every import Answers, answer_all, main_metric, results_csv, rows_csv, to_json
from eyesmith.lab.answers.hybrid import HybridAnswer, answer_hybrid
from eyesmith.lab.answers.published import PublishedModel, published_model, published_models
from eyesmith.lab.answers.resolution import answer_resolution
from eyesmith.lab.answers.size import answer_size
from eyesmith.lab.answers.spread import Metric, Point, Spread, points_of

__all__ = [
    "AblationAnswer",
    "Answer",
    "Answers",
    "CorrelationAnswer",
    "DataAnswer",
    "HybridAnswer",
    "Metric",
    "Point",
    "PublishedModel",
    "Spread",
    "answer_ablation",
    "answer_all",
    "answer_correlation",
    "answer_data",
    "answer_hybrid",
    "answer_resolution",
    "answer_size",
    "main_metric",
    "points_of",
    "published_model",
    "published_models",
    "results_csv",
    "rows_csv",
    "to_json",
]
