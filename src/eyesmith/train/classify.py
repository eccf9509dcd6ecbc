"""Training by classes: the cross-entropy of labelled images."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from eyesmith.losses.class_labels import class_losses
from eyesmith.models.classifier import Classifier
from eyesmith.models.cost import encoder_cost
from eyesmith.train.accumulate import add_up, cut
from eyesmith.train.batches import Batch
from eyesmith.train.class_batches import ClassBatch
from eyesmith.train.classify_config import ClassifyConfig
from eyesmith.train.objective import Objective, StepLoss
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws, step_seed
from eyesmith.train.sharding import Parallel

_PASSES = 2 * 3  # a multiply-add counts two; the backward pass is twice the forward


class _Logits(nn.Module):
    """The classifier, to be wrapped."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(pixels)


class Classify(Objective):
    """Labelled images: a mean over all rows of the global batch."""

    model: Classifier

    def __init__(self, classifier: Classifier, config: ClassifyConfig) -> None:
        self.model, self.config = classifier, config
        self._flops: float | None = None

    def module(self) -> nn.Module:
        return _Logits(self.model)

    def blocks(self) -> list[nn.Module]:
        return self.model.blocks()

    def rebuild(self) -> Classifier:
        return self.model.config.build()

    def watched(self) -> dict[str, nn.Module]:
        return {"image": self.model.image}

    def flops(self, text_len: int | None) -> float | None:
        if self._flops is None:
            self._flops = float(_PASSES * encoder_cost(self.model.config.image).tower.macs)
        return self._flops

    def backward(self, parallel: Parallel, batch: Batch, step: int) -> StepLoss:
        config, device = self.config, self.device
        precision = choose_precision(config.precision, device)
        assert isinstance(batch, ClassBatch)
        assert batch.labels is not None
        pixels, labels = batch.pixels.to(device), batch.labels.to(device)
        mixed = None if batch.partners is None or batch.share is None else (batch.partners, batch.share)
        world = parallel.world
        count = world.total(torch.full((), float(len(labels)), device=device))

        def part(rows: slice) -> Tensor:
            draws.give(batch.rows[rows])
            partners, share = (None, None) if mixed is None else (value[rows].to(device) for value in mixed)
            with autocast(precision, device):
                logits = parallel(pixels[rows])
            losses = class_losses(
                logits, labels[rows], smoothing=config.label_smoothing, partners=partners, share=share
            )
            return losses.sum() * (world.size / count)  # processes average their gradients, the mean is over all rows

        parts = [partial(part, rows) for rows in cut(len(labels), config.accumulate)]
        with StepDraws(self.model, seed=step_seed(config.seed, step), device=device) as draws:
            loss = add_up(parallel, parts)
        return StepLoss(world.total(loss) / world.size, chance=math.log(self.model.embed_dim))
