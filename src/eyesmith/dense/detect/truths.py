"""What is marked in the pictures of a step, as tensors of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.boxes import check_boxes
from eyesmith.dense.rows import CROWD, NONE
from eyesmith.errors import DataError, ShapeError


@dataclass(frozen=True, kw_only=True)
class Truths:
    """Objects of B pictures, M places each. Boxes are pixels of the picture as the encoder sees it.

    boxes: [B, M, 4]; labels: int64 [B, M], classes, NONE or CROWD; masks: bool or uint8 [B, M, H, W], or None; sizes:
    [B, 2] height and width of what is no padding; rows: int64 [B] on the CPU, places in the global batch, by which
    draws are made.
    """

    boxes: Tensor
    labels: Tensor
    sizes: Tensor
    rows: Tensor
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if (
            self.boxes.ndim != 3
            or self.labels.shape != self.boxes.shape[:2]
            or self.sizes.shape != (len(self.boxes), 2)
        ):
            raise ShapeError(
                "truths: expected boxes [B, M, 4], labels [B, M] and sizes [B, 2], got "
                f"{list(self.boxes.shape)}, {list(self.labels.shape)} and {list(self.sizes.shape)}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def boxes_of(self, row: int) -> Tensor:
        """[m, 4], of the objects of a picture."""
        return self.boxes[row, self.labels[row] >= 0]

    def labels_of(self, row: int) -> Tensor:
        """int64 [m]."""
        return self.labels[row, self.labels[row] >= 0]

    def masks_of(self, row: int) -> Tensor:
        """[m, H, W] as stored. Raises DataError where there are none."""
        if self.masks is None:
            raise DataError("masks: a mask head learns from masks, and the data have boxes only; set has_masks=false")
        return self.masks[row, self.labels[row] >= 0]

    def crowds_of(self, row: int) -> Tensor:
        """[c, 4]."""
        return self.boxes[row, self.labels[row] == CROWD]


def truths_of(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    size: tuple[int, int],
    *,
    masks: Sequence[Tensor] | None = None,
    sizes: Sequence[tuple[float, float]] | None = None,
    rows: Sequence[int] | None = None,
) -> Truths:
    """Truths of pictures of one size, each with its own number of objects. Raises ShapeError for what is no box."""
    count = max([1, *(len(one) for one in boxes)])
    for one in boxes:
        check_boxes(one)
    padded = [F.pad(one, (0, 0, 0, count - len(one))) for one in boxes]
    named = [F.pad(one, (0, count - len(one)), value=NONE) for one in labels]
    shown = None
    if masks is not None:
        shown = torch.stack([F.pad(one.to(torch.uint8), (0, 0, 0, 0, 0, count - len(one))) for one in masks])
    return Truths(
        boxes=torch.stack(padded),
        labels=torch.stack(named),
        masks=shown,
        sizes=torch.tensor(list(sizes) if sizes is not None else [size] * len(boxes), dtype=torch.float32),
        rows=torch.tensor(list(rows) if rows is not None else list(range(len(boxes)))),
    )
