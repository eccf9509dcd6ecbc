"""From queries to a picture's segments: panoptic, semantic and instances, at the picture's own size.

Source: FC-CLIP's inference, which is Mask2Former's with other thresholds. Q queries, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError

VOID = 0  # the id of pixels without a segment


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a segmenter says of one picture, before it is cut into segments.

    classes: probabilities [Q, K], without void. void: [Q], the rest. masks: logits [Q, H, W].
    """

    classes: Tensor
    void: Tensor
    masks: Tensor

    def __post_init__(self) -> None:
        count = len(self.classes)
        if self.classes.ndim != 2 or tuple(self.void.shape) != (count,) or self.masks.ndim != 3:
            raise ShapeError(
                f"answer: expected classes [Q, K], void [Q] and masks [Q, H, W], got {list(self.classes.shape)}, "
                f"{list(self.void.shape)} and {list(self.masks.shape)}"
            )
        if len(self.masks) != count:
            raise ShapeError(f"answer: {count} queries with classes and {len(self.masks)} with masks")

    def at(
        self, size: tuple[int, int], *, padded: tuple[int, int] | None = None, valid: tuple[int, int] | None = None
    ) -> "Answer":
        """The same with masks at the picture's own size, height and width.

        padded: pixels of the encoder's input, valid: those of the picture in its upper left corner; both None where
        the input is the whole picture. Masks grow to the input, lose the padding, then get the picture's size.
        """
        masks = self.masks[None].float()
        if padded is not None and valid is not None and valid != padded:
            masks = _sized(masks, padded)[:, :, : valid[0], : valid[1]]
        return replace(self, masks=_sized(masks, size)[0])


@dataclass(frozen=True, kw_only=True)
class FoundSegment:
    """One segment of a panoptic picture. id: in its map, from 1. label: place in the vocabulary."""

    id: int
    label: int
    is_thing: bool
    score: float
    area_px: int


@dataclass(frozen=True, kw_only=True)
class Panoptic:
    """ids: int64 [H, W], VOID where nothing is; segments: one for every other id."""

    ids: Tensor
    segments: tuple[FoundSegment, ...]

    def mask(self, segment: FoundSegment) -> Tensor:
        """bool [H, W]."""
        return self.ids == segment.id


@dataclass(frozen=True, kw_only=True)
class Instances:
    """Best first. labels: int64 [n]. scores: fp32 [n], 0..1. masks: bool [n, H, W]; they may overlap."""

    labels: Tensor
    scores: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class PanopticRule:
    """When a query becomes a segment. The defaults are FC-CLIP's; Mask2Former asks for a score of 0.8."""

    min_score: float = 0.0
    """Queries whose best class has no more probability than this are dropped."""
    min_won_frac: float = 0.8
    """Share of a mask's pixels that it must win against the others."""
    void: Literal["best", "half"] = "best"
    """Which queries are nothing: those of which void is the most probable class (the release), or those of which it has
    more than a half: with hundreds of alike names no one of them may reach a small void."""

    def __post_init__(self) -> None:
        if not (0 <= self.min_score < 1 and 0 <= self.min_won_frac <= 1):
            raise ConfigError(f"panoptic: expected min_score and min_won_frac in 0..1, got {self}")
        if self.void not in ("best", "half"):
            raise ConfigError(f"panoptic.void: expected best or half, got {self.void!r}")


def panoptic(answer: Answer, is_thing: Sequence[bool], rule: PanopticRule | None = None) -> Panoptic:
    """Each pixel goes to the query of the greatest class times mask probability; a query that wins too little of its
    mask is dropped, the segments of one stuff become one.

    is_thing: of each class. Queries that are void are not asked.
    """
    rule = rule or PanopticRule()
    _check_things(answer, is_thing)
    height, width = answer.masks.shape[1:]
    ids = torch.zeros(height, width, dtype=torch.int64, device=answer.masks.device)
    scores, labels = answer.classes.max(1) if answer.classes.shape[1] else (answer.void * 0, answer.void.long() * 0)
    is_something = scores > answer.void if rule.void == "best" else answer.void < 0.5
    kept = is_something & (scores > rule.min_score)
    scores, labels, masks = scores[kept], labels[kept], answer.masks[kept].float().sigmoid()
    if not len(scores):
        return Panoptic(ids=ids, segments=())
    winner = (scores[:, None, None] * masks).argmax(0)
    segments: list[FoundSegment] = []
    stuff: dict[int, int] = {}
    for place, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        won, own = winner == place, masks[place] >= 0.5
        mask = won & own
        area, whole = int(mask.sum()), int(own.sum())
        if not area or int(won.sum()) / whole < rule.min_won_frac:
            continue
        if not is_thing[label] and label in stuff:
            former = segments[stuff[label]]
            ids[mask] = former.id
            segments[stuff[label]] = replace(former, score=max(former.score, score), area_px=former.area_px + area)
            continue
        if not is_thing[label]:
            stuff[label] = len(segments)
        ids[mask] = len(segments) + 1
        thing = bool(is_thing[label])
        segments.append(FoundSegment(id=len(segments) + 1, label=label, is_thing=thing, score=score, area_px=area))
    return Panoptic(ids=ids, segments=tuple(segments))


def semantic(answer: Answer) -> Tensor:
    """The class of each pixel, int64 [H, W]: the greatest sum over queries of class times mask probability."""
    return torch.einsum("qk,qhw->khw", answer.classes.float(), answer.masks.float().sigmoid()).argmax(0)


def instances(answer: Answer, is_thing: Sequence[bool] | None = None, *, count: int = 100) -> Instances:
    """The `count` best pairs of query and class; a score is that of the class times the mean probability inside.

    is_thing: of each class, to leave out what is stuff; None: all classes. Masks without a pixel are left out.
    """
    if count < 1:
        raise ConfigError(f"count: expected 1 or more instances, got {count}")
    if is_thing is not None:
        _check_things(answer, is_thing)
    num_classes = answer.classes.shape[1]
    scores, places = answer.classes.float().flatten().topk(min(count, answer.classes.numel()))
    queries, labels = places // max(num_classes, 1), places % max(num_classes, 1)
    if is_thing is not None:
        things = torch.tensor(is_thing, dtype=torch.bool, device=labels.device)[labels]
        scores, queries, labels = scores[things], queries[things], labels[things]
    logits = answer.masks[queries].float()
    masks = logits > 0
    areas = masks.flatten(1).sum(1)
    inside = (logits.sigmoid() * masks).flatten(1).sum(1) / areas.clamp(min=1)
    order = (scores * inside).argsort(descending=True, stable=True)
    order = order[areas[order] > 0]
    return Instances(labels=labels[order], scores=(scores * inside)[order], masks=masks[order])


def _check_things(answer: Answer, is_thing: Sequence[bool]) -> None:
    if len(is_thing) != answer.classes.shape[1]:
        raise ShapeError(f"is_thing: expected one for each of {answer.classes.shape[1]} classes, got {len(is_thing)}")


def _sized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(masks.shape[2:]) == size:
        return masks
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
