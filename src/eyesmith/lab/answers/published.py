"""The benchmark that the lab repeats in small, as data: 16 image encoders at 3 amounts of training samples.

The numbers stand in vitamin_fig2.tsv beside this file, as printed. Source: ViTamin (arXiv 2404.02132), Fig. 2 and the
table of its numbers: zero-shot ImageNet top-1 and the mean of DataComp's 38 tasks, all models trained with the same
short settings on DataComp-1B. Multiply-adds leave the products inside attention out, as the paper counts them.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal

from eyesmith.config import closest
from eyesmith.errors import ConfigError

SAMPLES = (128_000_000, 512_000_000, 1_280_000_000)
"""Images seen, by level: the k-th budget of a plan stands for the k-th."""

Score = Literal["imagenet", "average"]
SCORES: dict[Score, str] = {"imagenet": "ImageNet top-1", "average": "mean of 38 tasks"}


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One line. Parameters in millions, billions of multiply-adds for one image and one text; scores are fractions, by
    level. size: the paper's group, S, B or L."""

    model: str
    family: str
    size: str
    image_params_m: float
    text_params_m: float
    image_gmacs: float
    text_gmacs: float
    imagenet: tuple[float, float, float]
    average: tuple[float, float, float]

    def score(self, level: int, kind: Score = "imagenet") -> float:
        """A fraction; level: 0, 1 or 2."""
        return (self.imagenet if kind == "imagenet" else self.average)[level]


@lru_cache(maxsize=1)
def published_models() -> dict[str, PublishedModel]:
    """All lines by model, in the order of the paper."""
    content = resources.files("eyesmith.lab.answers").joinpath("vitamin_fig2.tsv").read_text(encoding="utf-8")
    models = [_parse(row) for row in csv.DictReader(content.splitlines(), delimiter="\t")]
    return {model.model: model for model in models}


def published_model(name: str) -> PublishedModel:
    """One line by the model's name there. Raises ConfigError for one that the paper does not have."""
    models = published_models()
    if name not in models:
        raise ConfigError(f"the paper's benchmark has no model {name!r}{closest(name, models)}")
    return models[name]


def _parse(row: dict[str, str]) -> PublishedModel:
    def scores(kind: Score) -> tuple[float, float, float]:
        first, second, third = (round(float(row[f"{kind}_{samples // 10**6}m"]) / 100, 4) for samples in SAMPLES)
        return first, second, third

    return PublishedModel(
        model=row["model"],
        family=row["family"],
        size=row["size"],
        image_params_m=float(row["image_params_m"]),
        text_params_m=float(row["text_params_m"]),
        image_gmacs=float(row["image_gmacs"]),
        text_gmacs=float(row["text_gmacs"]),
        imagenet=scores("imagenet"),
        average=scores("average"),
    )
