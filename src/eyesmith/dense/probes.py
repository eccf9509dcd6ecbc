"""What a frozen map says by one linear layer: the class of each pixel, or its depth. Both fits have one optimum.

A cell of the map is a sample; its target is what most of its pixels are, or their mean depth. Answers are brought to
the pixels, bilinear. B batch, C channels, H W pixels, h w cells.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.data.annotations import VOID
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.heads.logistic import LinearHead, fit_logistic

_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Channels brought to mean 0 and deviation 1 over the cells of training. mean, std: [C]."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, cells: Tensor) -> "Scaling":
        """Of cells [N, C]."""
        spread, mean = torch.std_mean(cells, dim=0, correction=0)
        return cls(mean=mean, std=spread.clamp(min=_LEAST_SPREAD))

    def __call__(self, cells: Tensor) -> Tensor:
        """[..., C]."""
        return (cells - self.mean) / self.std


@dataclass(frozen=True, kw_only=True)
class SegmentationProbe:
    """A class for each pixel by a linear layer over cells."""

    head: LinearHead
    scaling: Scaling

    def logits(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, K, H, W] of maps [B, C, h, w]."""
        flat = self.head(self.scaling(maps.movedim(1, 3).double()).flatten(0, 2))
        cells = flat.unflatten(0, (len(maps), *maps.shape[2:])).movedim(3, 1)
        return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)

    def __call__(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """int64 [B, H, W]."""
        return self.logits(maps, size).argmax(1)


@dataclass(frozen=True, kw_only=True)
class DepthProbe:
    """A depth for each pixel by a linear layer over cells. weight: [C]; bias: [], the unit of the targets."""

    weight: Tensor
    bias: Tensor
    scaling: Scaling

    def __call__(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, H, W] of maps [B, C, h, w]."""
        cells = self.scaling(maps.movedim(1, 3).double()) @ self.weight + self.bias
        return F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def fit_segmentation(
    maps: Tensor, labels: Tensor, num_classes: int, *, c: float = 1.0, least_share: float = 0.5
) -> SegmentationProbe:
    """The logistic regression of cells on classes. maps: [B, C, h, w]; labels: int64 [B, H, W], VOID where unknown.

    c: inverse strength of L2, as scikit-learn has it. least_share: of a cell's pixels, that its commonest class must
    have; other cells are left out. Every class must have a cell. Raises DataError where one has none, ShapeError for
    sizes that do not fit.
    """
    target = cell_targets(labels, num_classes, (maps.shape[2], maps.shape[3]), least_share=least_share).flatten()
    used = target != VOID
    lacking = set(range(num_classes)) - set(target[used].unique().tolist())
    if lacking:
        raise DataError(
            f"labels: classes {sorted(lacking)} fill {100 * least_share:.0f} % of no cell; take more pictures, a finer "
            "map, or a smaller least_share"
        )
    return fit_cells(_cells(maps)[used], target[used], num_classes, c=c)


def fit_cells(cells: Tensor, target: Tensor, num_classes: int, *, c: float = 1.0) -> SegmentationProbe:
    """The logistic regression of cells [N, C] on classes int64 [N]; c: see `fit_segmentation`."""
    cells = cells.double()
    scaling = Scaling.of(cells)
    return SegmentationProbe(head=fit_logistic(scaling(cells), target, num_classes, c=c), scaling=scaling)


def cell_targets(labels: Tensor, num_classes: int, size: tuple[int, int], *, least_share: float = 0.5) -> Tensor:
    """What most pixels of each cell are: int64 [B, h, w], VOID where that is less than `least_share` of them.

    labels: int64 [B, H, W], VOID where unknown; size: h, w.
    """
    if not 0 < least_share <= 1:
        raise ConfigError(f"least_share: expected a share in 0..1, got {least_share}")
    share, target = cell_shares(labels, num_classes, size).max(-1)
    return torch.where(share >= least_share, target, VOID)


def fit_depth(maps: Tensor, depth: Tensor, *, penalty: float = 1.0) -> DepthProbe:
    """The ridge regression of cells on mean depths. maps: [B, C, h, w]; depth: [B, H, W], NaN or 0 where unknown.

    penalty: on the squared weights, beside the sum of squared errors; the bias is free. Solved, not trained. Raises
    DataError without a known depth, and for one below 0 or infinite.
    """
    if penalty <= 0:
        raise ConfigError(f"penalty: expected a positive number, got {penalty}")
    known = torch.isfinite(depth) & (depth > 0)
    if bool((depth.isinf() | (depth < 0)).any()):
        raise DataError("depth: expected 0 or more, NaN or 0 where it is unknown, got infinite or negative ones")
    if not bool(known.any()):
        raise DataError("depth: not one pixel has a known depth")
    size = (maps.shape[2], maps.shape[3])
    totals = F.adaptive_avg_pool2d(torch.where(known, depth, 0.0).double()[:, None], size)[:, 0].flatten()
    shares = F.adaptive_avg_pool2d(known.double()[:, None], size)[:, 0].flatten()
    cells, used = _cells(maps), shares >= 0.5
    if not bool(used.any()):
        raise DataError("depth: no cell has a known depth in half of its pixels")
    target = totals[used] / shares[used]
    scaling = Scaling.of(cells[used])
    given = scaling(cells[used])  # of mean 0, so that the bias is the mean of the targets
    bias = target.mean()
    matrix = given.mT @ given + penalty * torch.eye(given.shape[1], dtype=torch.float64, device=given.device)
    weight = torch.linalg.solve(matrix, given.mT @ (target - bias))
    return DepthProbe(weight=weight, bias=bias, scaling=scaling)


def cell_shares(labels: Tensor, num_classes: int, size: tuple[int, int]) -> Tensor:
    """The share of each cell's pixels that each class has: fp64 [B, h, w, K]. labels: int64 [B, H, W], VOID: none."""
    if labels.ndim != 3:
        raise ShapeError(f"labels: expected [B, H, W], got {list(labels.shape)}")
    if labels.numel() and not (int(labels.min()) >= VOID and int(labels.max()) < num_classes):
        raise DataError(f"labels: expected {VOID} to {num_classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    shares = [F.adaptive_avg_pool2d((labels == one).double()[:, None], size)[:, 0] for one in range(num_classes)]
    return torch.stack(shares, -1)


def depth_errors(found: Tensor, depth: Tensor) -> Mapping[str, float]:
    """rmse, abs_rel (mean of |error| / depth) and delta1 (share within a factor of 1.25) over known pixels."""
    if found.shape != depth.shape:
        raise ShapeError(f"depth: expected {list(found.shape)}, as what was found, got {list(depth.shape)}")
    known = torch.isfinite(depth) & (depth > 0)
    if not bool(known.any()):
        raise DataError("depth: not one pixel has a known depth")
    one, other = found[known].double(), depth[known].double()
    ratio = torch.maximum(one / other, other / one.clamp(min=1e-6))
    return dict(_errors(one, other, ratio))


def _errors(found: Tensor, depth: Tensor, ratio: Tensor) -> Iterator[tuple[str, float]]:
    yield "rmse", float((found - depth).square().mean().sqrt())
    yield "abs_rel", float(((found - depth).abs() / depth).mean())
    yield "delta1", float((ratio < 1.25).double().mean())


def _cells(maps: Tensor) -> Tensor:
    """fp64 [N, C] of maps [B, C, h, w], row by row. Raises DataError for numbers that are not finite."""
    if maps.ndim != 4:
        raise ShapeError(f"maps: expected [B, C, h, w], got {list(maps.shape)}")
    cells = maps.movedim(1, 3).flatten(0, 2).double()
    if not bool(torch.isfinite(cells).all()):
        raise DataError("maps: some numbers are not finite; is the encoder damaged, or a picture?")
    return cells
