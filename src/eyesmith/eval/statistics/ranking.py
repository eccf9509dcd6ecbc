"""Every image against every class, block by block: the rank of the right class and the best five, never all scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.errors import ShapeError
from eyesmith.eval.statistics.metrics import check_finite, exact_device, similarity

_BLOCK = 1024  # images
TOP = 5


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What classification needs to know of N images.

    ranks: int32 [N], classes that come before the right one (0: right). top: int32 [N, 5], the best classes, best
    first, -1 where there are fewer than five. top_score: fp32 [N, 5], their cosines, NaN there.
    """

    ranks: Tensor
    top: Tensor
    top_score: Tensor

    def hits(self, k: int) -> Tensor:
        """[N] bool: whether the right class is among the best k."""
        return self.ranks < k


def rank_classes(features: Tensor, weights: Tensor, targets: Tensor, *, device: torch.device | None = None) -> Ranking:
    """Rank the classes of each image: features [N, D], weights [K, D], unit rows; targets [N] int64 in 0..K-1.

    device: that compares them, a block at a time; where the features are when None. Equal scores rank by
    index: the class that comes first wins. Raises ShapeError for targets out of range, EyesmithError for scores that
    are not finite.
    """
    if targets.shape != features.shape[:1]:
        raise ShapeError(f"ranking: {list(features.shape)} features with {list(targets.shape)} targets")
    if targets.numel() and not (int(targets.min()) >= 0 and int(targets.max()) < len(weights)):
        raise ShapeError(f"ranking: a target lies outside 0..{len(weights) - 1}")
    ranks = torch.empty(len(features), dtype=torch.int32)
    top = torch.full((len(features), TOP), -1, dtype=torch.int32)
    top_score = torch.full((len(features), TOP), torch.nan)
    device = features.device if device is None else exact_device(device)
    weights, column = weights.to(device), torch.arange(len(weights), device=device)
    for start in range(0, len(features), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = similarity(features[part].to(device), weights)  # [n, K]
        right = targets[part, None].to(device)  # [n, 1]
        check_finite(scores)
        own = scores.gather(1, right)
        ranks[part] = ((scores > own) | ((scores == own) & (column < right))).sum(1).int()
        for place in range(min(TOP, len(weights))):
            best = scores.argmax(1, keepdim=True)  # the first among equals
            top[part, place] = best[:, 0].int()
            top_score[part, place] = scores.gather(1, best)[:, 0]
            scores.scatter_(1, best, -torch.inf)
    return Ranking(ranks=ranks, top=top, top_score=top_score)
