"""Boxes as rows of x0, y0, x1, y1 in pixels: how much they overlap, what they are relative to others, their flips."""

import math

import torch
from torch import Tensor

from eyesmith.errors import ShapeError

Spread = tuple[float, float, float, float]

UNIT: Spread = (1.0, 1.0, 1.0, 1.0)
MAX_STRETCH = abs(math.log(16 / 1000))  # of a side in one decoding; mmdet's wh_ratio_clip


def check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    """Raise ShapeError unless these are rows of four finite numbers, corners in order. Shape [N, 4], N may be 0."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise ShapeError(
            f"{name}: expected floats [N, 4] of x0, y0, x1, y1 in pixels, got {boxes.dtype} {list(boxes.shape)}"
        )
    if not bool(torch.isfinite(boxes).all()):
        row = int((~torch.isfinite(boxes)).any(1).nonzero()[0])
        raise ShapeError(f"{name}: expected finite numbers, row {row} is {boxes[row].tolist()}")
    if bool((boxes[:, 2:] < boxes[:, :2]).any()):
        row = int((boxes[:, 2:] < boxes[:, :2]).any(1).nonzero()[0])
        raise ShapeError(f"{name}: expected x0 <= x1 and y0 <= y1, row {row} is {boxes[row].tolist()}")


def areas(boxes: Tensor) -> Tensor:
    """Square pixels: [..., 4] -> [...]. A box that ends before it begins has none."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def intersections(ours: Tensor, theirs: Tensor) -> Tensor:
    """Square pixels that each pair shares: [N, 4], [M, 4] -> [N, M]."""
    x0, y0, x1, y1 = ours[:, :, None].unbind(1)  # [N, 1] each
    left, top, right, bottom = theirs.mT[:, None].unbind(0)  # [1, M] each
    width = torch.minimum(x1, right).sub_(torch.maximum(x0, left)).clamp_(min=0)
    return torch.minimum(y1, bottom).sub_(torch.maximum(y0, top)).clamp_(min=0).mul_(width)


def iou(ours: Tensor, theirs: Tensor) -> Tensor:
    """Intersection over union of each pair: [N, 4], [M, 4] -> [N, M] in 0..1; 0 where neither has an area."""
    shared = intersections(ours, theirs)
    union = areas(ours)[:, None] + areas(theirs)[None] - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def inside(ours: Tensor, theirs: Tensor) -> Tensor:
    """Share of each of our boxes that lies in each of theirs: [N, 4], [M, 4] -> [N, M] in 0..1."""
    return intersections(ours, theirs) / areas(ours)[:, None].clamp(min=torch.finfo(ours.dtype).tiny)


def encode(origins: Tensor, targets: Tensor, spread: Spread = UNIT) -> Tensor:
    """What must be added to each origin to reach its target: [N, 4] of dx, dy, log width, log height.

    origins, targets: [N, 4]. spread: standard deviations that the four are divided by. Sides below a thousandth of a
    pixel count as that, so that all is finite. Source: Faster R-CNN (arXiv 1506.01497), eq. 2.
    """
    centres, sides = _centred(origins)
    wanted_centres, wanted_sides = _centred(targets)
    moves = torch.cat([(wanted_centres - centres) / sides, (wanted_sides / sides).log()], 1)
    return moves / moves.new_tensor(spread)


def decode(origins: Tensor, moves: Tensor, spread: Spread = UNIT, *, size: tuple[int, int] | None = None) -> Tensor:
    """The boxes [N, 4] that `encode` gave the moves of; size: height and width of the picture that they are cut to.

    A side grows or shrinks by a factor of 62.5 at most.
    """
    moves = moves * moves.new_tensor(spread)
    centres, sides = _centred(origins)
    centres = centres + moves[:, :2] * sides
    half = sides * moves[:, 2:].clamp(-MAX_STRETCH, MAX_STRETCH).exp() / 2
    boxes = torch.cat([centres - half, centres + half], 1)
    return boxes if size is None else clip(boxes, size)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut to a picture: [..., 4]; size: height, width in pixels."""
    height, width = size
    xs, ys = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([xs[..., 0], ys[..., 0], xs[..., 1], ys[..., 1]], -1)


def flipped(boxes: Tensor, width: float) -> Tensor:
    """Boxes of the picture seen in a mirror, left and right exchanged: [..., 4]; width: of the picture, pixels."""
    return torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sides, [N, 2] each."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
