"""Segments of a trained segmenter in the form that drawing and writing take."""

import torch
from torch import Tensor

from eyesmith.data.annotations.types import VOID
from eyesmith.dense.result import ClassMap, FoundObjects
from eyesmith.dense.segment.inference import Panoptic


def segments_found(found: Panoptic, names: tuple[str, ...], *, threshold: float = 0.0) -> tuple[ClassMap, FoundObjects]:
    """The class of each pixel (void where no segment is), and the segments as objects, best first.

    threshold: segments with a lower score are left out of both.
    """
    ids = found.ids.cpu()
    size = (ids.shape[0], ids.shape[1])
    kept = sorted((one for one in found.segments if one.score >= threshold), key=lambda one: -one.score)
    labels, scores = torch.full(size, VOID), torch.zeros(size)
    masks = torch.zeros(len(kept), *size, dtype=torch.bool)
    for mask, segment in zip(masks, kept, strict=True):
        mask |= ids == segment.id
        labels[mask], scores[mask] = segment.label, segment.score
    objects = FoundObjects(
        boxes_px=mask_boxes(masks) if kept else torch.zeros(0, 4),
        scores=torch.tensor([one.score for one in kept]),
        labels=torch.tensor([one.label for one in kept], dtype=torch.int64),
        names=names,
        size=size,
        masks=masks,
    )
    return ClassMap(labels=labels, scores=scores, names=names), objects


def mask_boxes(masks: Tensor) -> Tensor:
    """x0, y0, x1, y1 around the pixels of each mask, ends exclusive: fp32 [n, 4]. masks: bool [n, H, W], none empty."""
    across, down = masks.any(1), masks.any(2)  # [n, W], [n, H]
    width, height = across.shape[1], down.shape[1]
    left, top = across.long().argmax(1), down.long().argmax(1)
    right, bottom = width - across.flip(1).long().argmax(1), height - down.flip(1).long().argmax(1)
    return torch.stack([left, top, right, bottom], 1).float()
