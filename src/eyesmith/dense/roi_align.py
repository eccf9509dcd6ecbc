"""Averages of a feature map over the cells of boxes, as two small products.

Bilinear sampling on a regular grid factorises: what a box gets is Wy F Wx^T, where a row of Wx holds the weights that
the samples of one bin give to the columns of the map. Nothing compiled is needed, and it differentiates.
Source: Mask R-CNN (arXiv 1703.06870), section 3; sampling and edges as in detectron2's aligned form.
"""

import torch
from torch import Tensor

from eyesmith.errors import ShapeError

_HELD = 1 << 23  # numbers of a part's windows that are held at a time


def roi_align(
    features: Tensor, boxes: Tensor, images: Tensor, output: tuple[int, int], *, stride: float, samples: int = 0
) -> Tensor:
    """[R, C, h, w]: the map's means over h by w bins of each box, in the type of the map.

    features: [B, C, H, W]; boxes: [R, 4] in pixels; images: int64 [R], which of the B a box lies in; output: h, w;
    stride: pixels a cell. samples: along each side of a bin; 0 takes as many as it has cells, rounded up, which makes
    1 x 1 the true average of a box (a fixed number would look at a few points of a large one). Samples more than a cell
    outside are zero; a box without width or height gets zeros. Raises ShapeError for inputs that do not fit.
    """
    if features.ndim != 4 or boxes.ndim != 2 or boxes.shape[1] != 4 or images.shape != boxes.shape[:1]:
        raise ShapeError(
            "roi_align: expected features [B, C, H, W], boxes [R, 4] and images [R], got "
            f"{list(features.shape)}, {list(boxes.shape)} and {list(images.shape)}"
        )
    if samples < 0 or min(output) < 1 or stride <= 0:
        raise ShapeError(f"roi_align: expected positive output and stride, got {output}, {stride}, samples {samples}")
    if not len(boxes):
        return features.new_zeros(0, features.shape[1], *output)
    if output == (1, 1):
        return _means(features, boxes, images, stride, samples)[:, :, None, None]
    cells = boxes.detach().float() / stride
    spans = (cells[:, 2:] - cells[:, :2]).amax(1)
    order = spans.argsort()  # alike ones together, so that a part's windows are no larger than they need to be
    channels, found, start = features.shape[1], list[Tensor](), 0
    rows = features.permute(0, 2, 3, 1).contiguous()  # [B, H, W, C], what reads windows fastest
    while start < len(order):
        # a guess from the box after a full part of the smallest; a part shrinks where its last box is larger
        count = _count(float(spans[order[start]]), channels, features.shape)
        count = _count(float(spans[order[min(start + count, len(order)) - 1]]), channels, features.shape)
        part = order[start : start + count]
        found.append(_windows(rows, boxes[part], images[part], output, stride, samples))
        start += count
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(found)[back]


def _count(span: float, channels: int, shape: torch.Size) -> int:
    side = min(int(span) + 3, max(shape[2:]))
    return max(1, _HELD // (side * side * channels))


def _windows(
    rows: Tensor, boxes: Tensor, images: Tensor, output: tuple[int, int], stride: float, samples: int
) -> Tensor:
    """[r, C, h, w], from the cells that each box touches alone."""
    height, width = rows.shape[1:3]
    wy, y0 = axis_weights(boxes[:, 1], boxes[:, 3], output[0], height, stride=stride, samples=samples)
    wx, x0 = axis_weights(boxes[:, 0], boxes[:, 2], output[1], width, stride=stride, samples=samples)
    ys = y0[:, None] + torch.arange(wy.shape[2], device=rows.device)  # [r, Lh]
    xs = x0[:, None] + torch.arange(wx.shape[2], device=rows.device)
    places = (images[:, None, None] * height + ys[:, :, None]) * width + xs[:, None, :]  # [r, Lh, Lw]
    windows = rows.flatten(0, 2).index_select(0, places.flatten()).view(*places.shape, -1)
    wy, wx = wy.to(rows.dtype), wx.to(rows.dtype)
    found = torch.bmm(wy, windows.flatten(2)).unflatten(2, (-1, rows.shape[3]))  # [r, h, Lw, C]
    found = torch.matmul(wx[:, None], found)  # [r, h, w, C]
    return found.permute(0, 3, 1, 2).contiguous()  # norms over channels are four times slower on the other order


def _means(features: Tensor, boxes: Tensor, images: Tensor, stride: float, samples: int) -> Tensor:
    """[R, C]: with one bin the weights of a box are one outer product, and all boxes of a picture one product."""
    height, width = features.shape[2:]
    cells = features.flatten(2).mT  # [B, HW, C]
    out = features.new_zeros(len(boxes), features.shape[1])
    for image in images.unique().tolist():
        for own in (images == image).nonzero()[:, 0].split(max(1, _HELD // (height * width))):
            wy, y0 = axis_weights(boxes[own, 1], boxes[own, 3], 1, height, stride=stride, samples=samples)
            wx, x0 = axis_weights(boxes[own, 0], boxes[own, 2], 1, width, stride=stride, samples=samples)
            wy, wx = _spread(wy[:, 0], y0, height), _spread(wx[:, 0], x0, width)
            weights = (wy[:, :, None] * wx[:, None, :]).flatten(1).to(features.dtype)
            out = out.index_copy(0, own, weights @ cells[image])
    return out


@torch.no_grad()
def plane_means(planes: Tensor, boxes: Tensor, side: int) -> Tensor:
    """`roi_align` at stride 1 of planes [R, H, W] over boxes [R, 4], of each its own: fp32 [R, side, side].

    With one channel the products over whole axes cost less than the windows cost to read.
    """
    height, width = planes.shape[1:]
    wy = _spread(*axis_weights(boxes[:, 1], boxes[:, 3], side, height, stride=1.0), height)
    wx = _spread(*axis_weights(boxes[:, 0], boxes[:, 2], side, width, stride=1.0), width)
    return wy @ planes.float() @ wx.mT


def _spread(weights: Tensor, start: Tensor, length: int) -> Tensor:
    """Weights of windows, [r, ..., L], as those of the whole axis, [r, ..., length]."""
    whole = weights.new_zeros(*weights.shape[:-1], length)
    places = start.view(-1, *[1] * (weights.ndim - 1)) + torch.arange(weights.shape[-1], device=weights.device)
    return whole.scatter_add(-1, places.expand_as(weights), weights)


def axis_weights(
    low: Tensor, high: Tensor, bins: int, length: int, *, stride: float, samples: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean bilinear weights of the samples of each bin along one axis, over windows of L cells of a map's `length`.

    low, high: [R] pixels. Returns fp32 [R, bins, L] and int64 [R], where each window starts.
    """
    low, high = low.detach().float() / stride, high.detach().float() / stride
    size = (high - low) / bins  # of a bin, cells
    count = torch.full_like(size, samples) if samples else size.ceil()  # [R]
    most = int(count.amax().clamp(min=1, max=4 * length + 8))
    count = count.clamp(max=most)
    steps = torch.arange(most, device=low.device)
    inner = (steps + 0.5) * (size / count.clamp(min=1))[:, None]  # [R, S]
    bin_start = (low - 0.5)[:, None] + torch.arange(bins, device=low.device) * size[:, None]  # [R, bins]
    at = bin_start[:, :, None] + inner[:, None]  # [R, bins, S]
    is_in = (steps < count[:, None])[:, None] & (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    first = at.floor()
    share = at - first
    weight = is_in / count.clamp(min=1)[:, None, None]
    first = first.long()
    last = (first + 1).clamp(max=length - 1)
    start = first.amin((1, 2))  # [R]
    window = min(length, int((last.amax((1, 2)) - start).amax()) + 1)
    start = start.clamp(max=length - window)
    first, last = first - start[:, None, None], last - start[:, None, None]
    found = low.new_zeros(len(low), bins, window)
    found.scatter_add_(2, first, weight * (1 - share))
    found.scatter_add_(2, last, weight * share)
    return found, start
