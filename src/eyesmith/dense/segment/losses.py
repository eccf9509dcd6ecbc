"""Mask2Former's loss: queries are matched with the masks of a picture, then learn their class and their mask.

Every random point is given by `Points`, so that a loss is a function of its step and rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eyesmith.dense.segment.targets import MaskTargets
from eyesmith.errors import ConfigError, DataError
from eyesmith.train.rng import fractions

_LAYER_BITS, _MASK_BITS, _POINT_BITS = 6, 12, 17  # of a point's number, beside those of the row


@dataclass(frozen=True, kw_only=True)
class MaskLossConfig:
    """Weights and points of the loss; the defaults are Mask2Former's and FC-CLIP's."""

    class_weight: float = 2.0
    """Of the cross-entropy of classes, in matching and loss alike."""
    mask_weight: float = 5.0
    """Of the binary cross-entropy of mask points."""
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    """Weight of a query that is matched with nothing, beside 1 of the others."""
    num_points: int = 12_544
    """Points of a mask that are compared: 112 x 112."""
    oversample: float = 3.0
    """Points drawn for each that is compared, of which the least certain are taken."""
    importance_frac: float = 0.75
    """Share of the points that is taken by uncertainty; the rest is drawn evenly."""
    learns: Literal["names", "things"] = "names"
    """names: which class a mask has (FC-CLIP); things: that it has one, whichever: where pictures are few and names
    are many, masks are learnt sooner, and the frozen eye names them."""

    def __post_init__(self) -> None:
        if min(self.class_weight, self.mask_weight, self.dice_weight) < 0 or not (
            self.class_weight + self.mask_weight + self.dice_weight
        ):
            raise ConfigError(f"loss: expected weights of 0 or more that are not all 0, got {self}")
        if self.no_object_weight <= 0:
            raise ConfigError(f"loss.no_object_weight: expected a positive number, got {self.no_object_weight}")
        if self.num_points < 1 or self.oversample < 1 or not 0 <= self.importance_frac <= 1:
            raise ConfigError(
                "loss: expected num_points and oversample of 1 or more and importance_frac in 0..1, got "
                f"{self.num_points}, {self.oversample} and {self.importance_frac}"
            )
        if self.learns not in ("names", "things"):
            raise ConfigError(f"loss.learns: expected names or things, got {self.learns!r}")
        if self.num_drawn >> _POINT_BITS:
            raise ConfigError(
                f"loss: num_points x oversample: expected less than {1 << _POINT_BITS}, got {self.num_drawn}"
            )

    @property
    def num_candidates(self) -> int:
        """Points that are drawn to choose the uncertain ones from."""
        return int(self.num_points * self.oversample)

    @property
    def num_uncertain(self) -> int:
        """Points that are chosen by uncertainty."""
        return int(self.importance_frac * self.num_points)

    @property
    def num_drawn(self) -> int:
        """Points that are drawn for a mask: the candidates, and those taken as they come."""
        return self.num_candidates + self.num_points - self.num_uncertain


class Prediction(NamedTuple):
    """What the queries say after one layer.

    classes: logits [B, Q, K + 1], the last for no object. masks: logits [B, Q, h, w].
    """

    classes: Tensor
    masks: Tensor


class Points(Protocol):
    """Where masks are compared: x and y in 0..1 of the picture."""

    def matching(self, row: int) -> Tensor:
        """[P, 2] for one row of the batch, the same for all layers."""
        ...

    def sampling(self, layer: int, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Candidates [n, C, 2] and evenly drawn ones [n, R, 2] for the matched masks of all rows, one row after the
        other; counts: how many each row has."""
        ...


class SeededPoints:
    """Points that are a function of a seed and of each row's place in the global batch: equal however it is shared."""

    def __init__(self, config: MaskLossConfig, rows: Tensor, *, seed: int) -> None:
        """rows: int64 [b], places of the rows in the global batch; points are on their device. seed: of the step."""
        self._config, self._seed, self._rows = config, seed, rows

    def matching(self, row: int) -> Tensor:
        return self._drawn(self._rows[row : row + 1], 0, torch.zeros_like(self._rows[:1]), self._config.num_points)[0]

    def sampling(self, layer: int, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        config, device = self._config, self._rows.device
        rows = self._rows.repeat_interleave(torch.tensor(counts, device=device))
        masks = torch.cat([torch.arange(count, device=device) for count in counts])
        found = self._drawn(rows, 1 + layer, masks, config.num_drawn)
        return found[:, : config.num_candidates], found[:, config.num_candidates :]

    def _drawn(self, rows: Tensor, layer: int, masks: Tensor, count: int) -> Tensor:
        """[n, count, 2] for n masks of rows, both int64 [n]."""
        places = ((rows << _LAYER_BITS | layer) << _MASK_BITS | masks) << _POINT_BITS
        each = places[:, None] + torch.arange(count, device=rows.device)  # [n, count]
        return fractions(self._seed, 2, each.flatten()).mT.reshape(len(rows), count, 2)


class MaskLosses(NamedTuple):
    """Before their weights, fp32 [L] each, a value a layer."""

    classes: Tensor
    masks: Tensor
    dice: Tensor

    def total(self, config: MaskLossConfig) -> Tensor:
        """The weighted sum over all layers, []."""
        weighted = config.class_weight * self.classes + config.mask_weight * self.masks + config.dice_weight * self.dice
        return weighted.sum()


class Counts(NamedTuple):
    """What losses are divided by, fp32 [] each, known before the forward pass: several processes add theirs up.

    masks: to be found. weights: of all queries in the cross-entropy.
    """

    masks: Tensor
    weights: Tensor

    @classmethod
    def of(cls, targets: Sequence[MaskTargets], num_queries: int, config: MaskLossConfig) -> "Counts":
        """Of the rows of a batch."""
        found = [len(one) for one in targets]
        matched = sum(min(one, num_queries) for one in found)
        weights = matched + config.no_object_weight * (num_queries * len(targets) - matched)
        return cls(torch.tensor(float(sum(found))), torch.tensor(weights))


def mask_losses(
    predictions: Sequence[Prediction],
    targets: Sequence[MaskTargets],
    points: Points,
    config: MaskLossConfig,
    counts: Counts | None = None,
) -> MaskLosses:
    """The losses of every layer's prediction, each with a matching of its own.

    targets: of each row. counts: of the global batch; None: of these rows. A row with more masks than queries leaves
    the worst matched out. Raises DataError for a class that the logits have not. Source: Mask2Former (arXiv
    2112.01527); equal to transformers' Mask2FormerLoss, where the points of the matching are drawn anew each layer.
    """
    if not 0 < len(predictions) < (1 << _LAYER_BITS) - 1:
        raise ConfigError(f"predictions: expected 1 to {(1 << _LAYER_BITS) - 2} layers, got {len(predictions)}")
    classes, masks = predictions[0]
    num_rows, num_queries, num_outputs = classes.shape
    if len(targets) != num_rows or masks.shape[:2] != classes.shape[:2]:
        raise DataError(
            f"predictions: expected classes [B, Q, K + 1] and masks [B, Q, h, w] for {len(targets)} targets, got "
            f"{list(classes.shape)} and {list(masks.shape)}"
        )
    for row, one in enumerate(targets):
        one.check(num_outputs - 1, where=f"row {row}")
    if config.learns == "things":
        predictions = [Prediction(any_class(one.classes), one.masks) for one in predictions]
        targets = [MaskTargets(torch.zeros_like(one.labels), one.masks) for one in targets]
    device = classes.device
    if counts is None:
        counts = Counts.of(targets, num_queries, config)
    per_mask, per_weight = counts.masks.to(device).clamp(min=1), counts.weights.to(device)
    floats = [one.masks[:, None].to(device, torch.float32) for one in targets]  # [n, 1, H, W]
    labels = [one.labels.to(device) for one in targets]
    shared = [
        (where, _at(floats[row], where.expand(len(floats[row]), -1, -1)))
        for row, where in enumerate(map(points.matching, range(num_rows)))
    ]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for layer, (classes, masks) in enumerate(predictions):
        classes, masks = classes.float(), masks.float()
        pairs = [
            match(classes[row], masks[row], labels[row], where, wanted, config)
            for row, (where, wanted) in enumerate(shared)
        ]
        found.append(_layer(classes, masks, floats, labels, pairs, points, layer, config, per_mask, per_weight))
    return MaskLosses(*(torch.stack(one) for one in zip(*found, strict=True)))


def any_class(classes: Tensor) -> Tensor:
    """Logits of anything at all and of void, [..., 2], out of those of classes and void, [..., K + 1]."""
    return torch.stack([classes[..., :-1].logsumexp(-1), classes[..., -1]], -1)


@torch.no_grad()
def match(
    classes: Tensor, masks: Tensor, labels: Tensor, where: Tensor, wanted: Tensor, config: MaskLossConfig
) -> tuple[Tensor, Tensor]:
    """Queries and the targets they shall find, int64 [m] each, m the smaller of their numbers: the cheapest pairs.

    classes: logits [Q, K + 1]. masks: logits [Q, h, w]. labels: int64 [n]. where: points [P, 2]. wanted: the target
    masks there, [n, P]. Costs that are not finite count as the largest, so that a broken query is matched last.
    """
    count = len(labels)
    if not count:
        none = torch.zeros(0, dtype=torch.int64, device=labels.device)
        return none, none
    logits = F.grid_sample(masks[None], 2 * where[None, None] - 1, align_corners=False)[0, :, 0]  # [Q, P]
    by_class = -classes.softmax(-1)[:, labels]
    by_mask = (F.softplus(-logits) @ wanted.T + F.softplus(logits) @ (1 - wanted).T) / logits.shape[1]
    sure = logits.sigmoid()
    by_dice = 1 - (2 * sure @ wanted.T + 1) / (sure.sum(1)[:, None] + wanted.sum(1)[None] + 1)
    cost = config.mask_weight * by_mask + config.class_weight * by_class + config.dice_weight * by_dice
    largest = torch.finfo(cost.dtype).max
    cost = torch.nan_to_num(cost, nan=largest, posinf=largest, neginf=largest)
    queries, chosen = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(queries, device=labels.device), torch.as_tensor(chosen, device=labels.device)


def _layer(
    classes: Tensor,
    masks: Tensor,
    floats: Sequence[Tensor],
    labels: Sequence[Tensor],
    pairs: Sequence[tuple[Tensor, Tensor]],
    points: Points,
    layer: int,
    config: MaskLossConfig,
    per_mask: Tensor,
    per_weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, masks and dice of one prediction, [] each."""
    num_rows, num_queries, num_outputs = classes.shape
    nothing = num_outputs - 1
    wanted = torch.full((num_rows, num_queries), nothing, device=classes.device)
    for row, (queries, chosen) in enumerate(pairs):
        wanted[row, queries] = labels[row][chosen]
    weight = torch.ones(num_outputs, device=classes.device)
    weight[nothing] = config.no_object_weight
    by_class = F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), weight=weight, reduction="sum") / per_weight
    logits = torch.cat([masks[row, queries] for row, (queries, _) in enumerate(pairs)])[:, None]  # [N, 1, h, w]
    if not len(logits):
        nought = logits.sum()  # 0, and every parameter still has its part in it
        return by_class, nought, nought
    with torch.no_grad():
        candidates, evenly = points.sampling(layer, [len(queries) for queries, _ in pairs])
        doubt = -_at(logits, candidates).abs()  # [N, C]
        chosen_points = doubt.topk(config.num_uncertain, dim=1).indices
        where = torch.cat([candidates.gather(1, chosen_points[..., None].expand(-1, -1, 2)), evenly], 1)
        parts = where.split([len(queries) for queries, _ in pairs])
        # row by row, as pictures may differ in size
        target = torch.cat(
            [_at(floats[row][chosen], part) for row, ((_, chosen), part) in enumerate(zip(pairs, parts, strict=True))]
        )
    there = _at(logits, where)  # [N, P]
    by_mask = F.binary_cross_entropy_with_logits(there, target, reduction="none").mean(1).sum() / per_mask
    sure = there.sigmoid()
    by_dice = (1 - (2 * (sure * target).sum(1) + 1) / (sure.sum(1) + target.sum(1) + 1)).sum() / per_mask
    return by_class, by_mask, by_dice


def _at(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [n, P] of maps [n, 1, h, w] at points [n, P, 2], x and y in 0..1; 0 beyond the border."""
    if not len(maps):
        return maps.new_zeros(0, points.shape[1])
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]
