"""Softmax contrastive loss: all logits at once for few rows, else own images against all texts by tiles."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from eyesmith.losses.all_pairs import (
    AllPairs,
    Gradients,
    check_features,
    comparable,
    compute_dtype,
    gathered_codes,
    is_whole,
)
from eyesmith.losses.exchange import Ranks
from eyesmith.losses.positives import Same


def softmax_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    same: Same | Tensor | None = None,
    *,
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
    max_rows: int | None = None,
) -> Tensor:
    """Symmetric softmax loss over all image-text pairs of the global batch.

    image, text: [b, D], unit L2 rows, row i of both is one sample; rows of this rank. scale: [] 1/temperature, equal on
    every rank. same: codes of the rows (or a [B, B] bool matrix, in one process without tile_rows only); pairs that
    agree are left out of both softmaxes, the diagonal is always kept.
    Returns [], nats per sample, half from each direction: the mean over the rows of all ranks, equal on each. fp32, or
    fp64 for such features.

    Gradients: after a MEAN over ranks, as DDP and FSDP take of parameter gradients, they are those of one process on
    the global batch; so each rank's own are `world size` times its part. No second derivative.

    Fewer than 1,024 rows of one process are computed with all logits at once; others, and any with tile_rows, by tiles
    of 2 tile_rows^2 logits and a buffer of that size, each tile twice. Ranks gather the texts once, each takes its own
    images against them, and what belongs to a text's column is added up over ranks: four exchanges in forward (one more
    with codes, one with max_rows) and two in backward, none of which waits for the device. group: None is the default
    group. max_rows: the most rows that a rank may have; None: all have as many as this one, or it must be told.
    Half-precision features are multiplied in their own format on CUDA (summed in fp32), converted to fp32 elsewhere.

    Raises ShapeError for shapes that do not agree, ConfigError for tile_rows below 1 or with a matrix.
    Source: CLIP (arXiv 2103.00020), fig. 3; flat memory as in arXiv 2410.17243. Departs: own pairs stand outside of the
    sums of tiles, loss = log(1 + sum over negatives of exp(l_ij - l_ii)), so that a small loss keeps its digits; the
    caller bounds `scale`, not this function.
    """
    check_features(image, text, same, tile_rows)
    ranks = Ranks.of(image, group, max_rows)
    with torch.autocast(image.device.type, enabled=False):
        if is_whole(same, tile_rows, ranks):
            return _whole(image, text, scale, same.matrix() if isinstance(same, Same) else same)
        codes = gathered_codes(same, ranks)  # pyright: ignore[reportArgumentType]  # no matrix, `is_whole` says
        return _TiledSoftmax.apply(comparable(image), comparable(text), scale, codes, ranks, tile_rows)  # pyright: ignore


def _whole(image: Tensor, text: Tensor, scale: Tensor, same: Tensor | None) -> Tensor:
    dtype = compute_dtype(image)
    logits = scale * image.to(dtype) @ text.to(dtype).mT  # [B, B]
    if same is not None:
        others = same & ~torch.eye(len(logits), dtype=torch.bool, device=same.device)
        logits = logits.masked_fill(others, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2


class _TiledSoftmax(torch.autograd.Function):
    """First pass in forward: log-sum-exp of rows and columns. Second in backward: the tiles again, and gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        codes: tuple[Tensor, ...],
        ranks: Ranks,
        tile_rows: int | None,
    ) -> Tensor:
        pairs = AllPairs(
            image=image, text=ranks.gather(text), scale=scale, codes=codes, ranks=ranks, tile_rows=tile_rows
        )
        own = pairs.own_logits()  # [b]
        row_odds, column_odds = (sums - own for sums in log_sums(pairs))  # log of (other terms / own), -inf for none
        ctx.save_for_backward(image, pairs.text, scale, own, row_odds, column_odds, *codes)
        ctx.ranks, ctx.tile_rows = ranks, tile_rows
        loss = (log1p_exp(row_odds) + log1p_exp(column_odds)).sum() / (2 * ranks.num_rows)
        return ranks.total(loss)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        image, text, scale, own, row_odds, column_odds, *codes = ctx.saved_tensors
        ranks: Ranks = ctx.ranks
        with torch.autocast(image.device.type, enabled=False):
            pairs = AllPairs(image=image, text=text, scale=scale, codes=codes, ranks=ranks, tile_rows=ctx.tile_rows)
            row_norms = own + log1p_exp(row_odds)  # [b]: log-sum-exp of the row, own pair included
            column_norms = ranks.gather(own + log1p_exp(column_odds))  # [G]
            found = Gradients(pairs, ctx.needs_input_grad)
            for tile in pairs.negatives():
                torch.sub(tile.logits, row_norms[tile.rows, None], out=tile.spare).exp_()
                weights = tile.logits.sub_(column_norms[tile.columns]).exp_().add_(tile.spare)  # [R, C] both softmaxes
                found.add(tile, weights)
            own_weights = row_odds.sigmoid() + column_odds.sigmoid()  # [b] how far the own pair is from certain
            factor = grads[0] * (ranks.world_size / (2 * ranks.num_rows))
            return (*found.finish(own_weights, factor), None, None, None)


def log_sums(pairs: AllPairs) -> tuple[Tensor, Tensor]:
    """Log of the sums over negatives of exp(logit), of the rows and of the columns of own samples, each [b].

    -inf for a sum without terms. While tiles and ranks add to it, a sum is kept as (largest logit m, sum of
    exp(logit - m)), which neither overflows nor loses digits to a large m.
    """
    dtype = compute_dtype(pairs.image)
    rows, columns = (torch.zeros(len(side), 2, dtype=dtype, device=side.device) for side in (pairs.image, pairs.text))
    lowest = torch.finfo(dtype).min  # -inf less itself would be nan
    for sums in (rows, columns):
        sums[:, 0].fill_(lowest)
    for tile in pairs.negatives():
        for sums, part, axis in ((rows, tile.rows, 1), (columns, tile.columns, 0)):
            largest = tile.logits.amax(axis).clamp_(min=lowest)
            torch.sub(tile.logits, largest.unsqueeze(axis), out=tile.spare).exp_()
            sums[part] = _merged(sums[part], torch.stack([largest, tile.spare.sum(axis)], dim=1))
    largest = pairs.ranks.largest(columns[:, 0])
    total = pairs.ranks.total(columns[:, 1] * (columns[:, 0] - largest).exp())
    return rows[:, 0] + rows[:, 1].log(), (largest + total.log())[pairs.ranks.own]


def _merged(left: Tensor, right: Tensor) -> Tensor:
    """Two [n, 2] sums of exponentials as one."""
    largest = torch.maximum(left[:, 0], right[:, 0])
    total = left[:, 1] * (left[:, 0] - largest).exp() + right[:, 1] * (right[:, 0] - largest).exp()
    return torch.stack([largest, total], dim=1)


def log1p_exp(value: Tensor) -> Tensor:
    """log(1 + exp(value)) to the last digit at both ends (torch's softplus is cut off at 20)."""
    return torch.logaddexp(value, value.new_zeros(()))
