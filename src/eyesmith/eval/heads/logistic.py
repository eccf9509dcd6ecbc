"""Logistic regression on frozen features: L-BFGS on the convex problem, in float64, to its optimum."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, DataError, EyesmithError, ShapeError


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """Logits of features: weight [K, D], bias [K], float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits [N, K] fp64 of features [N, D]."""
        return features.to(self.weight) @ self.weight.mT + self.bias


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    c: float,
    start: LinearHead | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-6,
) -> LinearHead:
    """The minimum of c * sum of cross-entropies + |W|^2 / 2; the bias is not penalised.

    features: [N, D], used as given (scale them before, if at all); labels: [N] int64 in 0..num_classes-1, each class
    at least once. c: inverse strength of L2, as scikit-learn's LogisticRegression has it, and with the same optimum
    (for two classes too, where that model has a single weight vector w: here rows -w/2 and w/2). start: a head to
    begin from. Stops when no entry of the gradient of the mean objective, in coordinates of about unit curvature,
    exceeds `tolerance`.
    Raises ShapeError or DataError for data of the wrong shape, EyesmithError when max_steps do not reach the optimum.
    """
    check_labelled(features, labels, num_classes)
    if not (math.isfinite(c) and c > 0):
        raise ConfigError(f"c: expected a positive number, got {c}")
    count = len(features)
    x = torch.cat([features.double(), torch.ones(count, 1, dtype=torch.float64)], dim=1)  # [N, D + 1]
    one_hot = F.one_hot(labels, num_classes).double()
    # two rows -w/2 and w/2 have half the penalty of the one row w
    decay = torch.full((x.shape[1],), (2.0 if num_classes == 2 else 1.0) / (c * count), dtype=torch.float64)
    decay[-1] = 0  # of the bias
    # in coordinates where the curvature at equal probabilities is the identity, features of very different spread
    # (those of frozen towers are) take tens of steps, not thousands
    curvature = x.mT @ x * ((num_classes - 1) / num_classes**2 / count) + torch.diag(decay)
    curvature += 1e-12 * curvature.trace() * torch.eye(len(curvature), dtype=torch.float64)
    factor = torch.linalg.cholesky(curvature)  # [D + 1, D + 1]

    def table_of(moved: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor, moved, upper=False, left=False)

    first = torch.zeros(num_classes, x.shape[1], dtype=torch.float64)
    if start is not None:
        first = torch.cat([start.weight, start.bias[:, None]], dim=1) @ factor
    moved = first.contiguous().requires_grad_(True)
    solver = torch.optim.LBFGS(
        [moved],
        max_iter=max_steps,
        max_eval=2 * max_steps,
        history_size=30,
        tolerance_grad=tolerance,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        with torch.no_grad():
            table = table_of(moved)  # [K, D + 1]
            log_probs = (x @ table.mT).log_softmax(1)  # [N, K]
            gradient = ((log_probs.exp() - one_hot) / count).mT @ x + decay * table
            moved.grad = torch.linalg.solve_triangular(factor.mT, gradient, upper=True, left=False).contiguous()
            return -(log_probs * one_hot).sum() / count + (decay * table.square()).sum() / 2

    solver.step(objective)
    objective()
    assert moved.grad is not None
    worst = float(moved.grad.abs().max())
    if not worst <= 10 * tolerance:
        raise EyesmithError(
            f"logistic regression did not reach its optimum in {max_steps} steps at c={c:g} (gradient {worst:.1e}, "
            f"wanted {tolerance:.0e}); use a smaller c (more regularisation) or features of unit length"
        )
    solution = table_of(moved.detach())
    return LinearHead(weight=solution[:, :-1].clone(), bias=solution[:, -1].clone())


def check_labelled(features: Tensor, labels: Tensor, num_classes: int, *, every_class: bool = True) -> None:
    """Raise ShapeError or DataError unless features [N, D] are finite and labels [N] int64 lie in 0..num_classes-1.

    every_class: each class must come at least once.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or labels.dtype != torch.int64 or not len(labels):
        raise ShapeError(
            f"expected features [N, D] and labels [N] int64, got {list(features.shape)} and {list(labels.shape)} "
            f"{labels.dtype}"
        )
    if num_classes < 2:
        raise DataError(f"a classifier needs at least 2 classes, got {num_classes}")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise DataError(f"labels: expected 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    if not bool(torch.isfinite(features).all()):
        raise EyesmithError("a feature is not finite (NaN or infinity): the weights are damaged")
    if every_class and len(empty := (torch.bincount(labels, minlength=num_classes) == 0).nonzero().flatten()):
        raise DataError(f"class {int(empty[0])} has no training sample ({len(empty)} such classes of {num_classes})")
