"""Logistic regression on frozen features: L-BFGS on the convex problem, in float64, to its optimum."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, DataError, EyesmithError, ShapeError
from eyesmith.eval.statistics.metrics import exact_device

_BLOCK_NUMBERS = 1 << 24  # 128 MiB in float64: of the rows, or of their logits, that are looked at together
_HELD_NUMBERS = 1 << 26  # 512 MiB: features of a smaller set are kept in float64 from step to step


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """Logits of features: weight [K, D], bias [K], float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits [N, K] fp64 of features [N, D], where these are; computed where the head is, in blocks of rows."""
        parts = [
            (features[part].to(self.weight) @ self.weight.mT + self.bias).to(features.device)
            for part in row_blocks(len(features), max(self.weight.shape))
        ]
        return torch.cat(parts) if len(parts) != 1 else parts[0]


def row_blocks(count: int, width: int) -> list[slice]:
    """`count` rows of `width` numbers in parts that fit into memory; one part of none for no rows."""
    step = max(1, _BLOCK_NUMBERS // max(1, width))
    return [slice(start, start + step) for start in range(0, max(1, count), step)]


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    c: float,
    start: LinearHead | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-6,
    device: torch.device | None = None,
) -> LinearHead:
    """The minimum of c * sum of cross-entropies + |W|^2 / 2; the bias is not penalised.

    features: [N, D], used as given (scale them before, if at all); labels: [N] int64 in 0..num_classes-1, each class
    at least once. c: inverse strength of L2, as scikit-learn's LogisticRegression has it, and with the same optimum
    (for two classes too, where that model has a single weight vector w: here rows -w/2 and w/2). start: a head to
    begin from. Stops when no entry of the gradient of the mean objective, in coordinates of about unit curvature,
    exceeds `tolerance`. device: that computes, and has the head then; where the features are when None.
    Rows are taken in blocks: of a large set no [N, K] and no [N, D] is ever there in float64.
    Raises ShapeError or DataError for data of the wrong shape, EyesmithError when max_steps do not reach the optimum.
    """
    check_labelled(features, labels, num_classes)
    if not (math.isfinite(c) and c > 0):
        raise ConfigError(f"c: expected a positive number, got {c}")
    device = features.device if device is None else exact_device(device)
    count, width = len(features), features.shape[1] + 1
    parts = row_blocks(count, max(width, num_classes))
    held = [_block(features[part], device) for part in parts] if count * width <= _HELD_NUMBERS else None

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:  # [n, D + 1] with a column of ones, and one-hot [n, K]
        for place, part in enumerate(parts):
            x = _block(features[part], device) if held is None else held[place]
            yield x, F.one_hot(labels[part].to(device), num_classes).double()

    # two rows -w/2 and w/2 have half the penalty of the one row w
    decay = torch.full((width,), (2.0 if num_classes == 2 else 1.0) / (c * count), dtype=torch.float64, device=device)
    decay[-1] = 0  # of the bias
    # in coordinates where the curvature at equal probabilities is the identity, features of very different spread
    # (those of frozen towers are) take tens of steps, not thousands
    products = torch.zeros(width, width, dtype=torch.float64, device=device)
    for x, _ in blocks():
        products += x.mT @ x
    curvature = products * ((num_classes - 1) / num_classes**2 / count) + torch.diag(decay)
    curvature += 1e-12 * curvature.trace() * torch.eye(width, dtype=torch.float64, device=device)
    factor = torch.linalg.cholesky(curvature)  # [D + 1, D + 1]

    def table_of(moved: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor, moved, upper=False, left=False)

    first = torch.zeros(num_classes, width, dtype=torch.float64, device=device)
    if start is not None:
        first = torch.cat([start.weight, start.bias[:, None]], dim=1).to(device) @ factor
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
            gradient, fit = torch.zeros_like(table), torch.zeros((), dtype=torch.float64, device=device)
            for x, one_hot in blocks():
                log_probs = (x @ table.mT).log_softmax(1)  # [n, K]
                gradient += ((log_probs.exp() - one_hot) / count).mT @ x
                fit += (log_probs * one_hot).sum()
            gradient += decay * table
            moved.grad = torch.linalg.solve_triangular(factor.mT, gradient, upper=True, left=False).contiguous()
            return -fit / count + (decay * table.square()).sum() / 2

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


def _block(features: Tensor, device: torch.device) -> Tensor:
    """[n, D + 1] fp64 on the device: the features and a column of ones, for the bias."""
    return F.pad(features.to(device).double(), (0, 1), value=1.0)


def check_labelled(
    features: Tensor, labels: Tensor, num_classes: int, *, every_class: bool = True, names: Sequence[str] = ()
) -> None:
    """Raise ShapeError or DataError unless features [N, D] are finite and labels [N] int64 lie in 0..num_classes-1.

    every_class: each class must come at least once. names: of the classes, for the message.
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
        first = repr(names[int(empty[0])]) if names else str(int(empty[0]))
        raise DataError(f"class {first} has no training sample ({len(empty)} such classes of {num_classes})")
