"""Ranks, top-k and 95 % intervals. Ties: the lowest index wins, always.

An undefined tie order would make numbers depend on the machine: equal class names, duplicated captions and collapsed
models all give exact ties.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eyesmith.errors import EyesmithError, ShapeError

_BLOCK_SCORES = 1 << 23  # 64 MiB in fp64
Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def exact_device(device: torch.device) -> torch.device:
    """Where products for a model on `device` are computed: there, unless it has no fp64, as Apple's GPUs."""
    return torch.device("cpu") if device.type == "mps" else device


def similarity(left: Tensor, right: Tensor, *, device: torch.device | None = None) -> Tensor:
    """Dot products of all rows: left [N, D], right [K, D] -> [N, K] fp32, where `left` is.

    device: that computes them, where `left` is when None. In blocks of rows: beside the result only a part of it is
    ever there in fp64. Summed in fp64 and rounded once, so that equal rows get equal scores wherever they stand in a
    batch; fp32 products differ in the last bits with the block shape and break ties at random.
    """
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ShapeError(f"similarity: expected [N, D] and [K, D], got {list(left.shape)} and {list(right.shape)}")
    device = left.device if device is None else exact_device(device)
    columns = right.to(device).double().T
    block = max(1, _BLOCK_SCORES // max(1, len(right)))
    if len(left) <= block:
        return (left.to(device).double() @ columns).float().to(left.device)
    found = torch.empty(len(left), len(right), device=left.device)
    for start in range(0, len(left), block):
        found[start : start + block] = (left[start : start + block].to(device).double() @ columns).float()
    return found


def target_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """How many candidates come before the right one: scores [N, K], targets [N] int64 in 0..K-1 -> [N] int64.

    A candidate comes before when its score is higher, or equal at a lower index. Raises ShapeError on wrong shapes or
    targets out of range, EyesmithError when a score is not finite (NaN would otherwise count as right).
    """
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(f"ranks: expected [N, K] and [N], got {list(scores.shape)} and {list(targets.shape)}")
    if targets.numel() and not (int(targets.min()) >= 0 and int(targets.max()) < scores.shape[1]):
        raise ShapeError(f"ranks: a target lies outside 0..{scores.shape[1] - 1}")
    check_finite(scores)
    own = scores.gather(1, targets[:, None])  # [N, 1]
    earlier = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]  # [N, K]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def top_candidates(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best candidates of each row: scores [N, K] -> values [N, k], indices [N, k], best first.

    k above K gives all K. Raises EyesmithError when a score is not finite.
    """
    check_finite(scores)
    values, indices = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]


def check_finite(scores: Tensor) -> None:
    """Raise EyesmithError when `scores` [N, K] holds NaN or infinity."""
    if not bool(torch.isfinite(scores).all()):
        broken = int((~torch.isfinite(scores)).any(1).sum())
        raise EyesmithError(
            f"{broken} of {len(scores)} images or texts have scores that are not finite (NaN or infinity): "
            "the weights are damaged or the training diverged"
        )


def wilson_interval(hits: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion: `hits` of `n` independent trials (an effective, fractional n is allowed).

    Source: Wilson 1927 (the score interval without continuity correction); never leaves 0..1, and is no point at 0
    or n hits, as the usual normal interval is. Raises ValueError unless n > 0 and 0 <= hits <= n.
    """
    if not (n > 0 and 0 <= hits <= n):
        raise ValueError(f"wilson_interval: expected 0 <= hits <= n and n > 0, got {hits} of {n}")
    share = hits / n
    centre = share + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    # the outer bound is exactly 0 or 1 there, rounding must not say otherwise
    low = 0.0 if hits == 0 else (centre - half) / scale
    high = 1.0 if hits == n else (centre + half) / scale
    return low, high


def clustered_interval(correct: Tensor, clusters: Tensor) -> tuple[float, float]:
    """95 % interval of the mean of `correct` [N] bool when members of a cluster (`clusters` [N] int64) are alike.

    Five captions of one image are no five independent trials. Wilson's interval with n divided by the design effect:
    the variance of the mean between clusters over the variance of independent trials, never below 1. Where nothing
    varies (all right or all wrong) each cluster counts as one trial.
    Source: Kish 1965 for the design effect; Korn and Graubard 1998 for the effective sample size in such intervals.
    """
    n = len(correct)
    if n == 0 or correct.shape != clusters.shape or correct.ndim != 1:
        raise ShapeError(f"clustered_interval: expected two [N], got {list(correct.shape)} and {list(clusters.shape)}")
    _, member = clusters.unique(return_inverse=True)
    sizes = torch.bincount(member).double()
    share = float(correct.double().mean())
    if len(sizes) == n:
        return wilson_interval(int(correct.sum()), n)
    effective = float(len(sizes))
    if 0 < share < 1 and len(sizes) > 1:
        hits = torch.bincount(member, weights=correct.double(), minlength=len(sizes))
        between = len(sizes) / (len(sizes) - 1) * float(((hits - share * sizes) ** 2).sum()) / n**2
        effective = n / max(1.0, between / (share * (1 - share) / n))
    return wilson_interval(share * effective, effective)


def chance_of_hit(num_candidates: int, num_positives: Sequence[int], k: int) -> float:
    """Mean chance that k candidates drawn at random hold at least one positive, over queries.

    num_positives: for each query, how many of the candidates are right. Exact (hypergeometric); k/K for one positive.
    """
    counts: dict[int, int] = {}
    for positives in num_positives:
        counts[positives] = counts.get(positives, 0) + 1
    total = math.comb(num_candidates, k)
    misses = sum(count * (math.comb(num_candidates - positives, k) / total) for positives, count in counts.items())
    return 1 - misses / len(num_positives)
