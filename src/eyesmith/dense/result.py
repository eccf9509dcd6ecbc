"""What was found in a picture: objects as columns of equal length, or a class for every pixel."""

from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from eyesmith.data.annotations.types import VOID
from eyesmith.errors import MissingDependencyError, ShapeError
from eyesmith.eval.located.found import Found, found


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one picture; none is ordinary.

    boxes_px: fp32 [N, 4] of x0, y0, x1, y1 in its pixels. scores: fp32 [N] in 0..1. labels: int64 [N], places in names.
    size: height and width of the picture. masks: as the class says, or None where boxes are all that is known;
    `masks_px` are those of the picture.
    """

    boxes_px: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]
    size: tuple[int, int]
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes_px)
        expected = {
            "boxes_px": (self.boxes_px, (count, 4)),
            "scores": (self.scores, (count,)),
            "labels": (self.labels, (count,)),
        }
        if self.masks is not None:
            expected["masks"] = (self.masks, self.mask_shape(count))
        for name, (column, shape) in expected.items():
            if tuple(column.shape) != shape:
                raise ShapeError(f"{name}: expected {list(shape)}, got {list(column.shape)}")

    def mask_shape(self, count: int) -> tuple[int, ...]:
        """Of the masks of so many objects: [N, H, W]."""
        return (count, *self.size)

    def __len__(self) -> int:
        return len(self.boxes_px)

    def __getitem__(self, which: Tensor | slice) -> Self:
        """Those that a slice, places (int64) or a bool column name."""
        masks = None if self.masks is None else self.masks[which]
        return replace(
            self, boxes_px=self.boxes_px[which], scores=self.scores[which], labels=self.labels[which], masks=masks
        )

    @property
    def called(self) -> list[str]:
        """The name of each."""
        return [self.names[label] for label in self.labels.tolist()]

    def best(self, count: int) -> Self:
        """At most `count`, highest score first."""
        return self[self.scores.argsort(descending=True, stable=True)[:count]]

    def masks_px(self) -> Tensor:
        """bool [N, H, W]. Raises ShapeError where there are none."""
        if self.masks is None:
            raise ShapeError("masks: these objects have boxes only")
        return self.masks

    def to_found(self) -> Found:
        """As they are scored."""
        masks = None if self.masks is None else list(self.masks_px().cpu().numpy())
        return found(self.boxes_px, self.scores, self.labels, masks)

    def to_hugging_face(self) -> dict[str, Tensor]:
        """As transformers' `post_process_object_detection` gives it: scores, labels, boxes; and masks where known."""
        masks = {} if self.masks is None else {"masks": self.masks_px()}
        return {"scores": self.scores, "labels": self.labels, "boxes": self.boxes_px, **masks}

    def to_supervision(self) -> Any:
        """As a `supervision.Detections`. Raises MissingDependencyError where that package is not installed."""
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError("supervision is not installed: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes_px.numpy(),
            mask=None if self.masks is None else self.masks_px().numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": self.called},
        )


@dataclass(frozen=True, kw_only=True)
class FoundObjects(Objects):
    """Objects in any order, with masks bool [N, H, W] of the picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.names):
            raise ShapeError(f"labels: expected places among {len(self.names)} names, got {self.labels.tolist()}")

    @property
    def xyxy(self) -> Tensor:
        """supervision's name of the boxes."""
        return self.boxes_px

    @property
    def confidence(self) -> Tensor:
        """supervision's name of the scores."""
        return self.scores

    @property
    def class_id(self) -> Tensor:
        """supervision's name of the labels."""
        return self.labels

    @property
    def mask(self) -> Tensor | None:
        """supervision's name of the masks."""
        return self.masks


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """A class for every pixel of a picture.

    labels: int64 [H, W], places in names, VOID (-1) where nothing is likely enough. scores: fp32 [H, W], the
    probability of the class that is likeliest.
    """

    labels: Tensor
    scores: Tensor
    names: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.labels.shape[0], self.labels.shape[1]

    def fractions(self) -> Tensor:
        """Which part of the picture each class has: fp32 [K]; what is missing to 1 is void."""
        counts = torch.bincount(self.labels[self.labels != VOID].flatten(), minlength=len(self.names))
        return counts.float() / self.labels.numel()

    def only(self, count: int) -> "ClassMap":
        """The first `count` classes alone; pixels of the others, as of words for a background, become void."""
        return replace(self, labels=self.labels.masked_fill(self.labels >= count, VOID), names=self.names[:count])

    def to_hugging_face(self) -> dict[str, Any]:
        """As transformers' `post_process_panoptic_segmentation` gives it, a segment a class: a map of segment numbers
        (0 for void) and what they are."""
        present = self.labels.unique().tolist()
        segments = [
            {
                "id": label + 1,
                "label_id": label,
                "was_fused": True,
                "score": float(self.scores[self.labels == label].mean()),
            }
            for label in present
            if label != VOID
        ]
        return {"segmentation": self.labels + 1, "segments_info": segments}

    def objects(self, *, min_px: int = 1, limit: int = 100) -> FoundObjects:
        """Connected regions of one class as objects: box, mask, and the mean probability inside; best first.

        min_px: smaller ones are left out. limit: as many at most. Objects of a class that touch are one. Raises
        MissingDependencyError without scipy.
        """
        try:
            from scipy import ndimage
        except ImportError as error:
            raise MissingDependencyError("regions need scipy: pip install 'eyesmith[dense]'") from error
        regions: list[_Region] = []
        for label in self.labels.unique().tolist():
            if label == VOID:
                continue
            numbers, _ = cast(Any, ndimage.label((self.labels == label).numpy()))
            for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), 1):
                inside = torch.from_numpy(numbers[rows, columns] == number)
                if int(inside.sum()) >= min_px:
                    score = float(self.scores[rows, columns][inside].mean())
                    regions.append(_Region(score, label, (rows, columns), inside))
        regions = sorted(regions, key=lambda one: -one.score)[:limit]
        masks = torch.zeros(len(regions), *self.size, dtype=torch.bool)
        for mask, region in zip(masks, regions, strict=True):
            mask[region.place] = region.inside
        boxes = [
            [columns.start, rows.start, columns.stop, rows.stop] for rows, columns in (one.place for one in regions)
        ]
        return FoundObjects(
            boxes_px=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            scores=torch.tensor([one.score for one in regions]),
            labels=torch.tensor([one.label for one in regions], dtype=torch.int64),
            names=self.names,
            size=self.size,
            masks=masks,
        )


@dataclass(frozen=True, slots=True)
class _Region:
    score: float
    label: int
    place: tuple[slice, slice]
    inside: Tensor
