"""F-ViT's detector over the taps of any frozen encoder: neck, proposals, box head, mask head, a vocabulary.

It holds no encoder: maps come in by tap, so that they may be computed once and kept, in windows or whole.
B pictures, R regions, K classes, D embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.boxes import decode, encode
from eyesmith.dense.detect.neck import Neck, Norm, check_maps, plan_levels
from eyesmith.dense.detect.roi import (
    SPREAD,
    BoxHead,
    BoxHeadConfig,
    MaskHead,
    MaskHeadConfig,
    mask_targets,
    pool_levels,
)
from eyesmith.dense.detect.rpn import Proposals, Rpn, RpnConfig
from eyesmith.dense.detect.truths import Truths
from eyesmith.dense.matching import match, sample
from eyesmith.dense.roi_align import roi_align
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.encoder import Encoder, Tap

LOSSES = ("objectness", "anchors", "classes", "boxes", "masks", "distill")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """A detector's head; the defaults are F-ViT's, but for group norms where it has batch norms over all GPUs."""

    width: int = 256
    """Channels of the pyramid."""
    num_levels: int = 4
    """Levels that regions are read from: 4 (strides p/4, p/2, p, 2p of an encoder with stride p), or 3 without 2p."""
    has_extra: bool = True
    """A level more for proposals, every second cell of the coarsest."""
    norm: Norm = "group"
    """Of the neck. group works with few pictures a step; batch is the release's."""
    rpn: RpnConfig = field(default_factory=RpnConfig)
    box: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    has_masks: bool = False
    """Whether it outlines what it finds; it then learns from masks."""
    background: Literal["text", "learned"] = "text"
    """What background is compared with: the text vector of the word, or a vector that trains."""
    distill_weight: float = 0.0
    """Of ViLD's loss, which draws regions' vectors to the frozen encoder's own; 0 leaves it out."""
    distill_samples: int = 64
    """Proposals of a picture that ViLD's loss sees."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.distill_samples < 1:
            raise ConfigError(f"head.width and head.distill_samples must be positive, got {self}")
        if self.num_levels not in (3, 4):
            raise ConfigError(f"head.num_levels: expected 3 or 4, got {self.num_levels}")
        if self.distill_weight < 0:
            raise ConfigError(f"head.distill_weight: expected 0 or more, got {self.distill_weight}")
        if self.background not in ("text", "learned"):
            raise ConfigError(f"head.background: expected text or learned, got {self.background!r}")


class Regions(NamedTuple):
    """What is proposed in one picture, before it is named.

    proposals: [n, 4], where the heads looked; boxes: [n, 4], moved onto what is there; objectness: [n] in 0..1;
    vectors: [n, D] unit rows.
    """

    proposals: Tensor
    boxes: Tensor
    objectness: Tensor
    vectors: Tensor


class Detector(nn.Module):
    """Trained by `forward`, used by `regions`, `scores` and `masks`; `predict.py` puts these together.

    The vocabulary is no part of its weights: `use` exchanges it.
    """

    def __init__(self, config: DetectorConfig, taps: Mapping[str, Tap], half_tap: str | None, embed_dim: int) -> None:
        """taps, half_tap: of the encoder, see `models.encoder`; embed_dim: of the text vectors."""
        super().__init__()
        self.config, self.embed_dim = config, embed_dim
        levels = plan_levels(taps, half_tap, config.num_levels)
        self.neck = Neck(levels, config.width, config.norm, has_extra=config.has_extra)
        self.rpn = Rpn(config.rpn, config.width, self.neck.strides)
        self.box = BoxHead(config.box, config.width, embed_dim)
        self.mask = MaskHead(config.mask, config.width) if config.has_masks else None
        self.background = None
        if config.background == "learned":
            self.background = nn.Parameter(F.normalize(torch.randn(embed_dim), dim=0))
        self.vocabulary: Vocabulary | None = None
        self._ground: Tensor | None = None

    @property
    def taps(self) -> tuple[str, ...]:
        """The maps that it needs, each once."""
        return tuple(dict.fromkeys(level.tap for level in self.neck.levels))

    def use(self, vocabulary: Vocabulary, background: Tensor | None = None) -> None:
        """Find these classes from now on. background: [D], the vector of the word, unless it is learned.

        Raises ConfigError where one is needed, ShapeError for vectors of another width.
        """
        if vocabulary.embed_dim != self.embed_dim:
            raise ShapeError(f"vocabulary: expected vectors of {self.embed_dim}, got {vocabulary.embed_dim}")
        if self.background is None and background is None:
            raise ConfigError("background: expected the text vector of the word 'background', got none")
        device = self.box.scale.device
        self.vocabulary = vocabulary.to(device)
        self._ground = None if background is None else F.normalize(background.to(device).float(), dim=0)

    def ground(self) -> Tensor:
        """[D], unit length: what background is compared with."""
        if self.background is not None:
            return F.normalize(self.background.float(), dim=0)
        assert self._ground is not None, "use() gives the vector"
        return self._ground

    def logits(self, vectors: Tensor) -> Tensor:
        """[..., K + 1] fp32, background last, of unit vectors [..., D]. Raises ConfigError before `use`."""
        if self.vocabulary is None:
            raise ConfigError("vocabulary: none is set; call use(vocabulary, background)")
        cosines = torch.cat([self.vocabulary.scores(vectors), (vectors @ self.ground())[..., None]], -1)
        return cosines * self.box.scale

    def forward(
        self,
        maps: Mapping[str, Tensor],
        truths: Truths,
        seen: Tensor,
        seed: int,
        teacher: "Teach | None" = None,
        *,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The losses of each picture by the order of `LOSSES`: fp32 [6, B], weighted, those that are off 0.

        seen: bool [K], the classes that are learnt; the others are left out of the softmax, and no truth has one.
        seed: of the step, with the rows of the truths all that is drawn from. weights: [K] of classes in the class
        loss. teacher: gives the frozen encoder's unit vectors of boxes, for ViLD's loss. Each loss is a mean over what
        was sampled of a picture (mmdet divides by the sum over the pictures of a GPU, the same where all are full).
        """
        check_maps(self.neck.levels, maps)
        pyramid = self.neck(maps)
        logits, moves, anchors = self.rpn(pyramid)
        objectness, placing = self.rpn.losses(logits, moves, anchors, truths, seed=seed)
        proposals = self.rpn.propose(
            [one.detach() for one in logits], [one.detach() for one in moves], anchors, truths.sizes
        )
        regions = [self._regions(row, truths, proposals[row].boxes, seed) for row in range(len(truths))]
        heads = pyramid[: self.config.num_levels]
        classes, boxes, vectors = self._box_losses(heads, regions, seen, weights)
        masks = self._mask_losses(heads, truths, regions) if self.mask is not None else torch.zeros_like(boxes)
        taught = torch.zeros_like(boxes)
        if self.config.distill_weight:
            if teacher is None:
                raise ConfigError("distill_weight: ViLD's loss needs the frozen encoder's map; it is not given")
            taught = self._distilled(regions, vectors, teacher) * self.config.distill_weight
        return torch.stack([objectness, placing, classes, boxes, masks, taught])

    @torch.no_grad()
    def regions(self, maps: Mapping[str, Tensor], sizes: Tensor) -> tuple[list[Regions], list[Tensor]]:
        """What is proposed in each picture, and the pyramid that `masks` reads. sizes: [B, 2], without padding."""
        check_maps(self.neck.levels, maps)
        pyramid = self.neck(maps)
        logits, moves, anchors = self.rpn(pyramid)
        proposals: list[Proposals] = self.rpn.propose(logits, moves, anchors, sizes)
        heads = pyramid[: self.config.num_levels]
        found = []
        for row, own in enumerate(proposals):
            rows = torch.full((len(own.boxes),), row, device=own.boxes.device)
            vectors, moves = self._read(heads, own.boxes, rows)
            size = (float(sizes[row, 0]), float(sizes[row, 1]))
            boxes = decode(own.boxes, moves, SPREAD, size=size)  # pyright: ignore[reportArgumentType]
            found.append(Regions(own.boxes, boxes, own.scores, vectors))
        return found, heads

    @torch.no_grad()
    def masks(self, heads: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
        """Probabilities [R, 28, 28] over each box. Raises ConfigError for a detector without a mask head."""
        if self.mask is None:
            raise ConfigError("masks: this detector was trained without a mask head (head.has_masks)")
        box = self.config.box
        strides = self.neck.strides[: len(heads)]  # the extra level is for proposals alone
        pooled = pool_levels(heads, strides, boxes, images, self.config.mask.pool, box.finest_px)
        return self.mask(pooled).sigmoid()

    def _read(self, heads: Sequence[Tensor], boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config.box
        strides = self.neck.strides[: len(heads)]
        return self.box(pool_levels(heads, strides, boxes, images, BoxHead.POOL, config.finest_px))

    def _regions(self, row: int, truths: Truths, proposals: Tensor, seed: int) -> "_Sampled":
        """What the heads learn from in a picture: truths among the proposals, as in the release."""
        config, boxes = self.config.box, truths.boxes_of(row)
        everything = torch.cat([boxes, proposals])
        matched = match(
            everything, boxes, positive=config.positive, negative=config.positive, ignored=truths.crowds_of(row)
        )
        place = int(truths.rows[row])
        drawn = sample(matched, config.samples, config.positive_frac, seed=seed, row=place, layer=1)
        both = torch.cat([drawn.positives, drawn.negatives])
        if not len(both):  # everything lies in a crowd: something must be looked at, so that all weights take part
            return _Sampled(
                boxes.new_tensor([[0.0, 0.0, 1.0, 1.0]]), matched.new_full((1,), -1), boxes, boxes[:, 0].long()
            )
        return _Sampled(everything[both], matched[both], boxes, truths.labels_of(row))

    def _box_losses(
        self, heads: Sequence[Tensor], regions: Sequence["_Sampled"], seen: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        counts = [len(one.boxes) for one in regions]
        images = torch.arange(len(counts), device=heads[0].device).repeat_interleave(
            torch.tensor(counts).to(heads[0].device)
        )
        vectors, moves = self._read(heads, torch.cat([one.boxes for one in regions]), images)
        logits = self.logits(vectors)
        hidden = torch.cat([~seen.to(logits.device), torch.zeros(1, dtype=torch.bool, device=logits.device)])
        logits = logits.masked_fill(hidden, -torch.inf)
        ground = logits.shape[1] - 1
        heavy = logits.new_ones(ground + 1) if weights is None else F.pad(weights.to(logits), (0, 1))
        heavy[ground] = self.config.box.background_weight
        classes, boxes = [], []
        for one, own, some in zip(regions, logits.split(counts), moves.split(counts), strict=True):
            wanted = one.wanted(ground)
            classes.append((F.cross_entropy(own, wanted, reduction="none") * heavy[wanted]).mean())
            is_object = one.matched >= 0
            goal = encode(one.boxes[is_object], one.truths[one.matched[is_object]], SPREAD)
            boxes.append((some[is_object] - goal).abs().sum() / len(own))
        return torch.stack(classes), torch.stack(boxes), list(vectors.split(counts))

    def _mask_losses(self, heads: Sequence[Tensor], truths: Truths, regions: Sequence["_Sampled"]) -> Tensor:
        """[B], a mean over the pixels of all sampled objects of a picture, 0 where there are none."""
        assert self.mask is not None
        boxes, images, targets, counts = [], [], [], []
        side = 2 * self.config.mask.pool
        for row, one in enumerate(regions):
            places = (one.matched >= 0).nonzero()[:, 0]
            counts.append(len(places))
            if len(places):
                boxes.append(one.boxes[places])
                shown = truths.masks_of(row)[one.matched[places]]
                targets.append(mask_targets(shown, one.boxes[places], side))
            else:  # so that every weight takes part in every process
                boxes.append(one.boxes[:1])
                targets.append(one.boxes.new_zeros(1, side, side))
            images.append(torch.full((len(boxes[-1]),), row, device=heads[0].device))
        pooled = pool_levels(
            heads,
            self.neck.strides[: len(heads)],
            torch.cat(boxes),
            torch.cat(images),
            self.config.mask.pool,
            self.config.box.finest_px,
        )
        logits = self.mask(pooled)
        terms = F.binary_cross_entropy_with_logits(logits, torch.cat(targets), reduction="none").mean((1, 2))
        parts = terms.split([max(count, 1) for count in counts])
        return torch.stack([part.mean() * bool(count) for part, count in zip(parts, counts, strict=True)])

    def _distilled(self, regions: Sequence["_Sampled"], vectors: Sequence[Tensor], teacher: "Teach") -> Tensor:
        """[B]: mean absolute difference to the teacher's vectors, times D. Source: ViLD (arXiv 2104.13921), eq. 5."""
        found = []
        for row, (one, own) in enumerate(zip(regions, vectors, strict=True)):
            count = min(self.config.distill_samples, len(own))
            boxes, own = one.boxes[:count], own[:count]  # objects come first
            wanted = teacher(row, boxes)
            found.append((own - wanted).abs().sum(-1).mean())
        return torch.stack(found)


class Teach:
    """The frozen encoder's own vectors of boxes: its last map averaged over each, then projected."""

    def __init__(self, encoder: Encoder, dense: Tensor) -> None:
        """dense: [B, C, h, w] of the encoder's `dense`."""
        self.encoder, self.dense = encoder, dense

    @torch.no_grad()
    def __call__(self, row: int, boxes: Tensor) -> Tensor:
        """[r, D] unit rows of boxes [r, 4] in picture `row` of the batch."""
        images = torch.full((len(boxes),), row, device=boxes.device)
        pooled = roi_align(self.dense, boxes, images, (1, 1), stride=float(self.encoder.stride))[:, :, 0, 0]
        return F.normalize(self.encoder.project(pooled).float(), dim=-1)


class _Sampled(NamedTuple):
    """Boxes of a picture that learn, [n, 4], the truth of each (below 0: none), and the picture's truths."""

    boxes: Tensor
    matched: Tensor
    truths: Tensor
    labels: Tensor

    def wanted(self, ground: int) -> Tensor:
        """int64 [n], the class of each, `ground` for background."""
        padded = torch.cat([self.labels, self.labels.new_full((1,), ground)])
        return padded[torch.where(self.matched >= 0, self.matched, len(self.labels))]
