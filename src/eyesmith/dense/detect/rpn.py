"""Proposals: anchors at every cell, scored as something or nothing and moved onto it.

Sources: Faster R-CNN (arXiv 1506.01497) with FPN's anchors; numbers as F-ViT's configurations have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.boxes import decode, encode
from eyesmith.dense.detect.neck import Norm, convolution
from eyesmith.dense.detect.truths import Truths
from eyesmith.dense.matching import match, sample
from eyesmith.dense.nms import nms
from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RpnConfig:
    """The part that proposes boxes."""

    width: int = 256
    num_convs: int = 2
    norm: Norm = "none"
    anchor_cells: tuple[float, ...] = (8.0,)
    """Sides of square anchors, in cells of their level."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    positive: float = 0.7
    """IoU from which an anchor shows an object."""
    negative: float = 0.3
    """IoU below which it shows none."""
    samples: int = 256
    """Anchors of a picture that learn in a step, half of them with an object where there are so many."""
    before_nms: int = 2000
    """Of each level, the best."""
    after_nms: int = 1000
    nms: float = 0.7

    def __post_init__(self) -> None:
        if min(self.width, self.num_convs, self.samples, self.before_nms, self.after_nms) < 1:
            raise ConfigError(f"rpn: width, num_convs, samples, before_nms and after_nms must be positive, got {self}")
        if not self.anchor_cells or not self.ratios or min(*self.anchor_cells, *self.ratios) <= 0:
            raise ConfigError(f"rpn: expected positive anchor_cells and ratios, got {self.anchor_cells}, {self.ratios}")
        if not 0 <= self.negative <= self.positive <= 1 or not 0 <= self.nms <= 1:
            raise ConfigError("rpn: expected 0 <= negative <= positive <= 1, and nms in 0..1")

    @property
    def num_anchors(self) -> int:
        """At each cell."""
        return len(self.anchor_cells) * len(self.ratios)


class Proposals(NamedTuple):
    """Of one picture, best first. boxes: [n, 4]; scores: [n] in 0..1, of being anything at all."""

    boxes: Tensor
    scores: Tensor


def level_anchors(config: RpnConfig, size: tuple[int, int], stride: float, device: torch.device) -> Tensor:
    """[h * w * A, 4], row by row, the anchors of a cell together; their middle is the cell's upper left corner.

    size: h, w of the level's map.
    """
    shapes = [
        (cells * stride * ratio**0.5, cells * stride / ratio**0.5)
        for cells in config.anchor_cells
        for ratio in config.ratios
    ]
    base = torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for h, w in shapes], device=device)
    ys, xs = (torch.arange(side, device=device) * stride for side in size)
    corners = torch.stack([xs.expand(size[0], -1), ys[:, None].expand(-1, size[1])], -1)  # [h, w, 2]
    return (corners.repeat(1, 1, 2)[:, :, None] + base).flatten(0, 2)


class Rpn(nn.Module):
    """One head over all levels."""

    def __init__(self, config: RpnConfig, channels: int, strides: Sequence[float]) -> None:
        """channels, strides: of the pyramid."""
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        inner = (channels, *[config.width] * (config.num_convs - 1))
        self.convs = nn.Sequential(*(convolution(width, config.width, 3, config.norm) for width in inner))
        self.objectness = nn.Conv2d(config.width, config.num_anchors, 1)
        self.moves = nn.Conv2d(config.width, 4 * config.num_anchors, 1)
        for layer in (self.objectness, self.moves):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """A level each: logits fp32 [B, n], moves fp32 [B, n, 4], anchors [n, 4]."""
        logits, moves, anchors = [], [], []
        for features, stride in zip(pyramid, self.strides, strict=True):
            hidden = self.convs(features)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1).float())
            found = self.moves(hidden).permute(0, 2, 3, 1).float()
            moves.append(found.flatten(1).unflatten(1, (-1, 4)))
            anchors.append(level_anchors(self.config, (features.shape[2], features.shape[3]), stride, features.device))
        return logits, moves, anchors

    @torch.no_grad()
    def propose(
        self, logits: Sequence[Tensor], moves: Sequence[Tensor], anchors: Sequence[Tensor], sizes: Tensor
    ) -> list[Proposals]:
        """The best boxes of each picture. sizes: [B, 2] height and width of what of each picture is no padding."""
        config, found = self.config, []
        for row, (height, width) in enumerate(sizes.tolist()):
            boxes, scores, levels = [], [], []
            for level, (own, some, base) in enumerate(zip(logits, moves, anchors, strict=True)):
                top = own[row].topk(min(config.before_nms, own.shape[1]))
                boxes.append(decode(base[top.indices], some[row, top.indices], size=(height, width)))
                scores.append(top.values.sigmoid())
                levels.append(torch.full_like(top.indices, level))
            all_boxes, all_scores, all_levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
            has_area = ((all_boxes[:, 2:] - all_boxes[:, :2]) > 0).all(1)
            all_boxes, all_scores, all_levels = all_boxes[has_area], all_scores[has_area], all_levels[has_area]
            keep = nms(all_boxes, all_scores, config.nms, labels=all_levels)[: config.after_nms]
            found.append(Proposals(all_boxes[keep], all_scores[keep]))
        return found

    def losses(
        self,
        logits: Sequence[Tensor],
        moves: Sequence[Tensor],
        anchors: Sequence[Tensor],
        truths: Truths,
        *,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """Objectness (cross-entropy) and moves (L1), a mean over the sampled anchors of each picture: fp32 [B] each.

        Anchors may reach out of the picture. seed: of the step.
        """
        config = self.config
        all_logits, all_moves, all_anchors = (
            torch.cat(list(logits), 1),
            torch.cat(list(moves), 1),
            torch.cat(list(anchors)),
        )
        objectness, placing = [], []
        for row, place in enumerate(truths.rows.tolist()):
            boxes = truths.boxes_of(row)
            matched = match(
                all_anchors,
                boxes,
                positive=config.positive,
                negative=config.negative,
                forced_from=config.negative,
                ignored=truths.crowds_of(row),
            )
            drawn = sample(matched, config.samples, 0.5, seed=seed, row=place)
            both = torch.cat([drawn.positives, drawn.negatives])
            wanted = (matched[both] >= 0).float()
            count = max(len(both), 1)
            terms = F.binary_cross_entropy_with_logits(all_logits[row, both], wanted, reduction="sum")
            objectness.append(terms / count)
            origins = all_anchors[drawn.positives]
            goal = encode(origins, boxes[matched[drawn.positives]])
            placing.append((all_moves[row, drawn.positives] - goal).abs().sum() / count)
        return torch.stack(objectness), torch.stack(placing)
