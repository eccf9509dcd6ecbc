"""Parts of pictures as an encoder sees them: boxes of its dense map, and boxes cut out and looked at alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError

CONTEXT = 1.1  # side of the square that is cut out, relative to the box's longer side


def box_means(features: Tensor, boxes: Tensor, images: Tensor, *, stride: int) -> Tensor:
    """The mean of a map inside each box, [R, C], every cell by the share of it that lies in the box.

    features: [B, C, H, W]; boxes: [R, 4] of x0, y0, x1, y1 in pixels, ends exclusive; images: int64 [R], the picture of
    each; stride: pixels a cell. What lies outside of the map counts for nothing. Differentiable in `features`. Raises
    ShapeError for shapes that do not fit, and for a box that holds nothing of the map.
    """
    _check(boxes, images)
    height, width = features.shape[2:]
    down = _shares(boxes[:, 1], boxes[:, 3], height, stride)  # [R, H]
    across = _shares(boxes[:, 0], boxes[:, 2], width, stride)  # [R, W]
    weights = down[:, :, None] * across[:, None, :]  # [R, H, W]
    total = weights.sum(dim=(1, 2))
    if bool((total <= 0).any()):
        row = int((total <= 0).nonzero()[0])
        raise ShapeError(f"boxes: {boxes[row].tolist()} holds nothing of a map of {height} x {width} cells")
    weights = (weights / total[:, None, None]).to(features.dtype).flatten(1)  # [R, H*W]
    # a product for each picture: gathering a map for each box would hold as many maps as there are boxes
    found = features.new_zeros(len(boxes), features.shape[1])
    for image in images.unique().tolist():
        own = (images == image).nonzero()[:, 0]
        found = found.index_copy(0, own, weights[own] @ features[image].flatten(1).mT)
    return found


def crop_boxes(
    pixels: Tensor, boxes: Tensor, images: Tensor, size: tuple[int, int], *, context: float = CONTEXT
) -> Tensor:
    """The square around each box, cut out and resized: uint8 [R, 3, h, w].

    pixels: [B, 3, H, W] uint8; boxes: [R, 4] of x0, y0, x1, y1 in pixels; images: int64 [R], the picture of each; size:
    h, w; context: side of the square relative to the longer side of the box. Outside of the picture its edge goes on.
    Bilinear, of as many samples a pixel as the square has pixels for it, up to 4 x 4. Raises ShapeError for shapes that
    do not fit.
    """
    _check(boxes, images)
    if not len(boxes):
        return pixels.new_zeros(0, 3, *size)
    height, width = pixels.shape[2:]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # [R, 2]
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) * context  # [R]
    found = torch.empty(len(boxes), 3, *size, dtype=torch.uint8, device=pixels.device)
    taps = (sides / min(size)).ceil().clamp(1, 4).long()
    extent = torch.tensor([width, height], dtype=torch.float32, device=pixels.device)
    for image in images.unique().tolist():
        for tap in taps[images == image].unique().tolist():
            own = ((images == image) & (taps == tap)).nonzero()[:, 0]
            grid = _unit_grid(size, tap, pixels.device)  # [h*tap, w*tap, 2] in -0.5..0.5
            points = centres[own, None, None] + sides[own, None, None, None] * grid  # [r, h*tap, w*tap, 2]
            # one picture, its boxes side by side: grid_sample wants as many pictures as grids
            rows = (points * (2 / extent) - 1).flatten(0, 1)[None]  # [1, r*h*tap, w*tap, 2]
            views = F.grid_sample(pixels[image][None].float(), rows, padding_mode="border", align_corners=False)
            views = views[0].unflatten(1, (len(own), -1)).transpose(0, 1)  # [r, 3, h*tap, w*tap]
            found[own] = F.avg_pool2d(views, tap).round().clamp(0, 255).to(torch.uint8)
    return found


def _shares(low: Tensor, high: Tensor, cells: int, stride: int) -> Tensor:
    """[R, cells]: how much of each cell of an axis lies between low and high, [R] in pixels."""
    edges = torch.arange(cells + 1, dtype=torch.float32, device=low.device) * stride
    begin = torch.maximum(low.float()[:, None], edges[:-1])
    end = torch.minimum(high.float()[:, None], edges[1:])
    return (end - begin).clamp(min=0) / stride


def _unit_grid(size: tuple[int, int], tap: int, device: torch.device) -> Tensor:
    """Sampling points of a square of side 1 about 0, [h*tap, w*tap, 2] of x, y."""
    axes = [(torch.arange(side * tap, device=device) + 0.5) / (side * tap) - 0.5 for side in size]
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _check(boxes: Tensor, images: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or images.shape != boxes.shape[:1]:
        raise ShapeError(f"boxes: expected [R, 4] and images [R], got {list(boxes.shape)} and {list(images.shape)}")
