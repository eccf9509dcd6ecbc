"""What a detector found in a picture: objects whose masks are probabilities over their boxes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.boxes import check_boxes
from eyesmith.dense.result import Objects
from eyesmith.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class Detections(Objects):
    """Objects of one picture, best first. masks: probabilities over each box, fp32 [n, m, m], or None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_boxes(self.boxes_px, "boxes_px")

    def mask_shape(self, count: int) -> tuple[int, ...]:
        sides = () if self.masks is None else self.masks.shape[1:]
        return (count, *(sides if len(sides) == 2 else (-1, -1)))

    def masks_px(self) -> Tensor:
        """bool [n, H, W]. Raises ShapeError where there are no masks."""
        if self.masks is None:
            raise ShapeError("detections: there are no masks; the detector has no mask head")
        return paste(self.masks, self.boxes_px, self.size)


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], *, threshold: float = 0.5) -> Tensor:
    """Masks over boxes as pixels of a picture: bool [n, H, W].

    masks: probabilities [n, m, m]; boxes: [n, 4] in pixels; size: H, W. A pixel belongs to a mask where the bilinear
    value at its middle reaches the threshold; outside of the box there is nothing.
    """
    height, width = size
    found = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    for row, box in enumerate(boxes.tolist()):
        left, top = max(int(box[0]), 0), max(int(box[1]), 0)
        right, bottom = min(int(-(-box[2] // 1)), width), min(int(-(-box[3] // 1)), height)
        if right <= left or bottom <= top or box[2] <= box[0] or box[3] <= box[1]:
            continue
        xs = (torch.arange(left, right, device=masks.device) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        ys = (torch.arange(top, bottom, device=masks.device) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack([xs.expand(len(ys), -1), ys[:, None].expand(-1, len(xs))], -1)[None]
        values = F.grid_sample(masks[row][None, None], grid, align_corners=False, padding_mode="zeros")
        found[row, top:bottom, left:right] = values[0, 0] >= threshold
    return found
