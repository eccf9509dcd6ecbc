"""What a segmenter shall find in a picture: a class and a mask each, out of panoptic, instance or semantic labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import DataError


@dataclass(frozen=True, slots=True)
class MaskTargets:
    """The things and stuff of one picture; none at all is ordinary.

    labels: int64 [n], places in the vocabulary. masks: bool [n, H, W]; masks of things may overlap.
    """

    labels: Tensor
    masks: Tensor

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.labels.ndim != 1 or len(self.labels) != len(self.masks):
            raise DataError(
                f"targets: expected labels [n] and masks [n, H, W], got {list(self.labels.shape)} and "
                f"{list(self.masks.shape)}"
            )
        if self.masks.dtype != torch.bool:
            raise DataError(f"targets: expected masks of bool, got {self.masks.dtype}; a probability is no mask")
        if self.labels.dtype != torch.int64 or (len(self.labels) and int(self.labels.min()) < 0):
            raise DataError(f"targets: expected labels of int64, 0 or more, got {self.labels.dtype} {self.labels}")

    def __len__(self) -> int:
        return len(self.labels)

    def kept(self, which: Tensor) -> "MaskTargets":
        """Those where `which`, bool [n], is set."""
        return MaskTargets(self.labels[which], self.masks[which])

    def visible(self, *, min_px: int = 1) -> "MaskTargets":
        """Without those of fewer pixels: what is cut away by a crop is nothing to find."""
        return self.kept(self.masks.flatten(1).sum(1) >= min_px) if len(self) else self

    def check(self, num_classes: int, *, where: str) -> None:
        """Raise DataError for a label that the vocabulary has not. where: the picture, for the message."""
        if len(self) and (worst := int(self.labels.max())) >= num_classes:
            raise DataError(
                f"{where}: class {worst} of {num_classes}; the vocabulary must hold every class of the data"
            )


@dataclass(frozen=True, slots=True)
class Segment:
    """One entry of a panoptic picture's list. id: its pixels in the map. label: place in the vocabulary."""

    id: int
    label: int
    is_crowd: bool = False


def panoptic_targets(ids: Tensor, segments: Sequence[Segment], is_thing: Sequence[bool]) -> MaskTargets:
    """Every thing has a mask of its own, the segments of one stuff share one; crowds and void are not to be found.

    ids: int64 [H, W], the segment of each pixel; ids that no segment has are void. is_thing: of each class. Raises
    DataError where a segment has no pixel, an id appears twice, or a class is beyond `is_thing`. Source: Mask2Former.
    """
    if ids.ndim != 2:
        raise DataError(f"panoptic map: expected [H, W], got {list(ids.shape)}; decode its colours to ids first")
    if len({one.id for one in segments}) != len(segments):
        raise DataError(f"panoptic segments: an id appears twice in {[one.id for one in segments]}")
    present = set(torch.unique(ids).tolist())
    labels: list[int] = []
    masks: list[Tensor] = []
    stuff: dict[int, int] = {}
    for one in segments:
        if not 0 <= one.label < len(is_thing):
            raise DataError(f"panoptic segment {one.id}: class {one.label} of {len(is_thing)}")
        if one.id not in present:
            raise DataError(f"panoptic segment {one.id}: has no pixel; do the map and its list belong together?")
        if one.is_crowd:
            continue
        mask = ids == one.id
        if not is_thing[one.label] and one.label in stuff:
            masks[stuff[one.label]] |= mask
            continue
        if not is_thing[one.label]:
            stuff[one.label] = len(labels)
        labels.append(one.label)
        masks.append(mask)
    return _stacked(labels, masks, ids.shape)


def semantic_targets(classes: Tensor, *, ignored: int | None = 255) -> MaskTargets:
    """One mask a class that is there. classes: int64 [H, W]; `ignored` marks pixels without a class."""
    if classes.ndim != 2:
        raise DataError(f"class map: expected [H, W], got {list(classes.shape)}")
    labels = [int(one) for one in torch.unique(classes) if ignored is None or int(one) != ignored]
    return _stacked(labels, [classes == one for one in labels], classes.shape)


def instance_targets(labels: Tensor, masks: Tensor) -> MaskTargets:
    """Masks of things as they are, the empty ones left out. labels: int64 [n]. masks: bool [n, H, W]."""
    return MaskTargets(labels, masks).visible()


def sized(targets: MaskTargets, size: tuple[int, int]) -> MaskTargets:
    """The masks at another size, by the nearest pixel's centre; those of nothing afterwards are kept, empty."""
    if tuple(targets.masks.shape[1:]) == size or not len(targets):
        return MaskTargets(targets.labels, targets.masks.new_zeros(0, *size)) if not len(targets) else targets
    masks = F.interpolate(targets.masks[None].float(), size=size, mode="nearest-exact")[0] > 0.5
    return MaskTargets(targets.labels, masks)


def _stacked(labels: list[int], masks: list[Tensor], size: torch.Size) -> MaskTargets:
    found = torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool)
    return MaskTargets(torch.tensor(labels, dtype=torch.int64), found)
