"""What was found in a picture: boxes, scores, names and masks as columns of equal length."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.boxes import check_boxes
from eyesmith.errors import MissingDependencyError, ShapeError
from eyesmith.eval.located import Found, found


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Of one picture, best first; empty is ordinary.

    boxes_px: [n, 4] of x0, y0, x1, y1 in its pixels; scores: [n] in 0..1; labels: int64 [n], places in `names`;
    size: its height and width. masks: probabilities over each box, fp32 [n, m, m], or None; `masks_px` are those of
    the picture.
    """

    boxes_px: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]
    size: tuple[int, int]
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        check_boxes(self.boxes_px, "boxes_px")
        count = len(self.boxes_px)
        if self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ShapeError(
                f"detections: expected {count} scores and labels, got {list(self.scores.shape)} and "
                f"{list(self.labels.shape)}"
            )
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != count):
            raise ShapeError(f"detections: expected masks [{count}, m, m], got {list(self.masks.shape)}")

    def __len__(self) -> int:
        return len(self.boxes_px)

    def __getitem__(self, which: Tensor | slice) -> "Detections":
        """Those that a slice, places int64 or a bool column name."""
        masks = None if self.masks is None else self.masks[which]
        return replace(
            self, boxes_px=self.boxes_px[which], scores=self.scores[which], labels=self.labels[which], masks=masks
        )

    @property
    def called(self) -> list[str]:
        """The name of each."""
        return [self.names[label] for label in self.labels.tolist()]

    def masks_px(self) -> Tensor:
        """bool [n, H, W]. Raises ShapeError where there are no masks."""
        if self.masks is None:
            raise ShapeError("detections: there are no masks; the detector has no mask head")
        return paste(self.masks, self.boxes_px, self.size)

    def to_found(self) -> Found:
        """As average precision is taken of them."""
        masks = None if self.masks is None else self.masks_px().numpy()
        return found(self.boxes_px, self.scores, self.labels, None if masks is None else list(masks))

    def to_hugging_face(self) -> dict[str, Tensor]:
        """As transformers' `post_process_object_detection` gives them: scores, labels, boxes (and masks)."""
        masks = {} if self.masks is None else {"masks": self.masks_px()}
        return {"scores": self.scores, "labels": self.labels, "boxes": self.boxes_px, **masks}

    def to_supervision(self) -> Any:
        """As `supervision.Detections`. Raises MissingDependencyError where that is not installed."""
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError("supervision is not installed; `pip install supervision` brings it") from error
        return supervision.Detections(
            xyxy=self.boxes_px.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            mask=None if self.masks is None else self.masks_px().numpy(),
            data={"class_name": self.called},
        )


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
