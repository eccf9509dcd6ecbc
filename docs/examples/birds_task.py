"""A set of one's own: pictures whose class stands in their names, as in owl_017.jpg."""

from pathlib import Path

from eyesmith.data.evaluation import EvaluationSet, labelled_set
from eyesmith.eval.sets import Task

TASK = Task(key="mine/birds", name="Birds", size=None, metric="mean_per_class_recall", folder="birds")


def read(place: Path) -> EvaluationSet:
    files = sorted(place.glob("*_*.png"))
    return labelled_set("birds", files, [file.stem.split("_")[0] for file in files], templates=["a photo of a {}."])
