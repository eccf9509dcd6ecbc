"""Splits of the training set and the settings chosen on them. The test set has no part in any choice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads.gaussian import GaussianStatistics, mix
from eyesmith.eval.heads.logistic import LinearHead, fit_logistic, row_blocks
from eyesmith.eval.statistics.metrics import target_ranks

C_GRID = tuple(10.0**power for power in range(-2, 6))
"""Inverse strengths of L2 for unit features, tried in this order."""
SHRINKAGE_GRID = (0.01, 0.1, 0.3, 0.6, 0.9)
ALPHA_GRID = (0.0, *(10.0 ** (power / 2) for power in range(-8, 5)), math.inf)
"""Weights of the Gaussian logits beside the zero-shot ones; inf: the Gaussian ones alone."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A setting, its accuracy on the validation part, and the accuracy of every setting tried."""

    value: float
    accuracy: float
    tried: tuple[tuple[float, float], ...]


def validation_split(labels: Tensor, *, frac: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices (train, validation) of labels [N], by class: `frac` of each, at least one of every class that has two.

    A class with one sample stays in train. Raises DataError when no class has two.
    """
    if not 0 < frac < 1:
        raise ConfigError(f"frac: expected a number between 0 and 1, got {frac}")
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten().numpy()
        if len(own) > 1:
            held += rng.permutation(own)[: max(1, min(len(own) - 1, round(frac * len(own))))].tolist()
    if not held:
        raise DataError(
            "no class has two training samples, so none can be held out to choose a setting; set it by hand"
        )
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    is_held[held] = True
    return (~is_held).nonzero().flatten(), is_held.nonzero().flatten()


def draw_shots(
    labels: Tensor, num_classes: int, shots: int, *, seed: int, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """`shots` samples of each class for training and up to min(shots, 4) others for validation: indices (train, val).

    The same seed draws nested sets: the samples of 4 shots contain those of 2. Raises DataError when a class has fewer
    than `shots` samples (naming it, from `names`). A class with no sample left gives none to validation.
    Source of the size of the validation part: CoOp (arXiv 2109.01134), section 4.1.
    """
    if shots < 1:
        raise ConfigError(f"shots: expected at least 1, got {shots}")
    train: list[int] = []
    held: list[int] = []
    for label in range(num_classes):
        own = (labels == label).nonzero().flatten().numpy()
        if len(own) < shots:
            name = repr(names[label]) if names else str(label)
            raise DataError(f"class {name} has {len(own)} training samples, {shots} shots need {shots}; ask for fewer")
        order = np.random.default_rng([seed, label]).permutation(own)
        train += order[:shots].tolist()
        held += order[len(order) - min(shots, 4, len(order) - shots) :].tolist() if len(order) > shots else []
    return torch.tensor(train), torch.tensor(held, dtype=torch.int64)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose highest logit is the label's; the lowest index wins among equals."""
    return float((target_ranks(logits, labels) == 0).double().mean())


def choose_c(
    train: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
    num_classes: int,
    grid: Sequence[float] = C_GRID,
    *,
    device: torch.device | None = None,
) -> Chosen:
    """The inverse strength of L2 that is best on `held` after fitting on `train` ((features, labels) each).

    device: that fits. Each fit starts from the
    one before. Equal accuracies: the strongest regularisation, the smallest c.
    """
    tried, start = [], None
    for c in sorted(grid):
        start = fit_logistic(*train, num_classes, c=c, start=start, tolerance=1e-5, max_steps=2000, device=device)
        tried.append((c, _accuracy_of(start, *held)))
    return _best(tried)


def choose_mixture(
    statistics: GaussianStatistics,
    held: tuple[Tensor, Tensor],
    zero_shot: Tensor | None,
    *,
    shrinkages: Sequence[float] = SHRINKAGE_GRID,
    alphas: Sequence[float] = ALPHA_GRID,
) -> tuple[float, Chosen]:
    """The shrinkage, and the alpha for `mixed_logits`, that are best on `held` ((features, labels)).

    zero_shot: logits of the held-out samples [V, K] at the model's scale; None: alphas must be (inf,). Equal
    accuracies: the larger likelihood of the held-out labels, then the first tried.
    """
    if not shrinkages or not alphas:
        raise ConfigError("shrinkages, alphas: expected at least one value of each to try")
    features, labels = held
    best = (-1.0, 0.0, 0.0, 0.0)
    tried: dict[float, float] = {}
    for shrinkage in shrinkages:
        head = statistics.head(shrinkage)
        for alpha in alphas:
            logits = mixed_logits(head, features, zero_shot, alpha)
            share = accuracy(logits, labels)
            likelihood = float(logits.log_softmax(1).gather(1, labels[:, None]).mean())
            tried[alpha] = max(share, tried.get(alpha, 0.0))
            if (share, likelihood) > best[:2] or best[0] < 0:
                best = (share, likelihood, shrinkage, alpha)
    return best[2], Chosen(value=best[3], accuracy=best[0], tried=tuple(tried.items()))


def mixed_logits(head: LinearHead, features: Tensor, zero_shot: Tensor | None, alpha: float) -> Tensor:
    """Logits [N, K] of a Gaussian head, mixed with those of zero-shot [N, K] unless alpha is inf."""
    if math.isinf(alpha):
        return head(features)
    if zero_shot is None:
        raise ConfigError(f"alpha={alpha:g} mixes with zero-shot logits, but there are none")
    return mix(zero_shot, head(features), alpha)


def _accuracy_of(head: LinearHead, features: Tensor, labels: Tensor) -> float:
    hits = 0
    for part in row_blocks(len(features), max(head.weight.shape)):
        hits += int((target_ranks(head(features[part]), labels[part]) == 0).sum())
    return hits / len(labels)


def _best(tried: Sequence[tuple[float, float]]) -> Chosen:
    if not tried:
        raise ConfigError("grid: expected at least one value to try")
    value, share = max(tried, key=lambda pair: pair[1])  # max takes the first among equals
    return Chosen(value=value, accuracy=share, tried=tuple(tried))
