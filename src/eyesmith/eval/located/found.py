"""What a model found in one picture, as it is scored: boxes or masks with scores and labels, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eyesmith.data.annotations.masks import encode_mask, rle_masks
from eyesmith.errors import DataError, ShapeError


@dataclass(frozen=True, kw_only=True)
class Found:
    """Detections of one picture; none is ordinary, their order matters for equal scores only (the first comes first).

    boxes: float64 [N, 4], left, top, right, bottom in pixels; scores: float64 [N]; labels: int64 [N], places in the
    categories; masks: run lengths as `encode_mask` gives them, one each, or None.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: tuple[dict[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, places: NDArray[np.int64]) -> "Found":
        """Those at some places, in that order."""
        masks = None if self.masks is None else tuple(self.masks[place] for place in places.tolist())
        return Found(boxes=self.boxes[places], scores=self.scores[places], labels=self.labels[places], masks=masks)


def found(
    boxes: Tensor | ArrayLike,
    scores: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    masks: Tensor | Sequence[NDArray[np.bool_]] | Sequence[dict[str, Any]] | None = None,
    *,
    where: str = "detections",
) -> Found:
    """Detections of one picture from tensors or arrays.

    boxes: [N, 4] xyxy in pixels; scores: [N]; labels: [N] integers; masks: bool [N, H, W], or run lengths, or None.
    where: the picture, for messages. Raises ShapeError for lengths that differ, DataError for NaN, infinite numbers, a
    right side left of the left one, labels below 0.
    """
    columns = {"boxes": _array(boxes), "scores": _array(scores), "labels": _array(labels)}
    number = len(columns["scores"]) if columns["scores"].ndim == 1 else -1
    shapes = {"boxes": (number, 4), "scores": (number,), "labels": (number,)}
    for name, shape in shapes.items():
        array = columns[name]
        if number == 0 and array.size == 0:
            columns[name] = array.reshape(shape)
        elif array.shape != shape:
            raise ShapeError(f"{where}: {name}: expected shape {_shape(shape)}, got {list(array.shape)}")
    if columns["labels"].size and columns["labels"].dtype.kind not in "iu":
        raise ShapeError(f"{where}: labels: expected integers, got {columns['labels'].dtype}")
    as_boxes = columns["boxes"].astype(np.float64)
    as_scores = columns["scores"].astype(np.float64)
    as_labels = columns["labels"].astype(np.int64)
    for name, array in (("boxes", as_boxes), ("scores", as_scores)):
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array).reshape(number, -1).all(1)))
            raise DataError(f"{where}: {name}: detection {row} is not finite: {array[row].tolist()}")
    bad = (as_boxes[:, 2:] < as_boxes[:, :2]).any(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{where}: boxes: expected left, top, right, bottom; detection {row} is {as_boxes[row].tolist()}"
        )
    if (as_labels < 0).any():
        raise DataError(f"{where}: labels: expected 0 and more, got {int(as_labels.min())}")
    if masks is not None and len(masks) != number:
        raise ShapeError(f"{where}: masks: expected {number}, got {len(masks)}")
    return Found(boxes=as_boxes, scores=as_scores, labels=as_labels, masks=None if masks is None else _runs(masks))


def without_void(found: Found, void: NDArray[np.bool_]) -> tuple[Found, NDArray[np.bool_]]:
    """Masks without the pixels that count for nothing, and which of them lie there by more than half, [N].

    void: [H, W]. Boxes stay as they are. What panoptic quality does not call wrong though it matches nothing.
    """
    if found.masks is None or not void.any():
        return found, np.zeros(len(found), np.bool_)
    masks, counted = rle_masks(), encode_mask(~void)
    cut = tuple(masks.merge([one, counted], intersect=True) for one in found.masks)
    areas = np.array([[int(masks.area(one)) for one in some] for some in (found.masks, cut)]).reshape(2, len(found))
    return replace(found, masks=cut), 2 * areas[1] < areas[0]


def _runs(masks: Tensor | Sequence[NDArray[np.bool_]] | Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(one if isinstance(one, dict) else encode_mask(_array(one).astype(np.bool_)) for one in masks)


def _array(value: Tensor | ArrayLike) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _shape(shape: tuple[int, ...]) -> str:
    return str(["N" if one == -1 else one for one in shape])
