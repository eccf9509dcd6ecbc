"""A task of one's own: an encoder learns without labels, by telling how far an image was turned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.data import open_source
from eyesmith.data.loader import Batch
from eyesmith.eval import ResultRow
from eyesmith.images import PreprocessConfig, evaluation_pixels
from eyesmith.models.classifier import Classifier, classifier_config
from eyesmith.models.eva02.model import EVA02, Eva02Config
from eyesmith.tasks import MeanTask
from eyesmith.train import DataConfig, RunConfig

TURNS = ("0", "90", "180", "270")  # degrees


@dataclass(frozen=True, kw_only=True)
class RotationConfig(RunConfig):
    """A complete run; every field has a default, so that the file can stand for a recipe."""

    model: Eva02Config = field(default_factory=lambda: replace(EVA02["nano"], embed_dim=0, pooling="mean"))
    data: DataConfig = field(default_factory=lambda: DataConfig(path="photos"))
    reads_texts = False
    model_name = "TrV-Nano by rotation"


def turned(pixels: Tensor, turns: Tensor) -> Tensor:
    """[b, 3, S, S], each turned as often by 90 degrees as `turns`, int64 [b], says."""
    views = torch.stack([pixels.rot90(count, (2, 3)) for count in range(len(TURNS))])  # [4, b, 3, S, S]
    return views[turns, torch.arange(len(pixels), device=pixels.device)]


class Rotation(MeanTask[Classifier]):
    """A classifier of turns: a mean of cross-entropies over all images of the global batch."""

    config_type = RotationConfig

    @classmethod
    def new_model(cls, config: RotationConfig) -> Classifier:
        return classifier_config(config.model_name, config.model, TURNS).build()

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Drawn row by row, so that a resumed run and any number of processes draw the same."""
        draws = [np.random.default_rng([self.config.seed, step, row]) for row in batch.rows.tolist()]
        return {"turns": torch.tensor([int(draw.integers(len(TURNS))) for draw in draws])}

    def outputs(self, model: Any, part: Batch) -> Tensor:
        return model(turned(part.pixels, part.extra["turns"]))  # [b, 4]

    def terms(self, outputs: Tensor, part: Batch) -> Tensor:
        return F.cross_entropy(outputs.float(), part.extra["turns"], reduction="none")

    def chance_loss(self) -> float:
        return math.log(len(TURNS))

    @torch.no_grad()
    def rows(self, model: Any, splits: Sequence[str], context: Any) -> list[ResultRow]:
        """The share of turns that are told, on every image of these splits turned in all four ways."""
        rows = []
        for split in splits:
            source = open_source(self.config.data.path, split=split, require_text=False)
            size = PreprocessConfig(image_size=self.config.model.image_size)
            pixels = torch.stack([evaluation_pixels(source.image_bytes(i), size) for i in range(len(source))])
            hits = [(model(turned(pixels, torch.full((len(pixels),), k))).argmax(-1) == k).float() for k in range(4)]
            share, num = torch.cat(hits).mean().item(), 4 * len(pixels)
            facts = {"task": "rotation", "split": split, "metric": "acc1", "n": num, "chance": 0.25}
            rows.append(ResultRow(model=self.config.model_name, value=share, low=None, high=None, **facts))
        return rows
