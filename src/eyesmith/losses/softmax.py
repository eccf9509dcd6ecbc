"""Softmax contrastive loss in any form: all logits at once, by tiles, or round a ring of processes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.losses.contrastive import contrastive_loss
from eyesmith.losses.forms import Form, check_features, choose_form, comparable, gather_batch
from eyesmith.losses.positives import Same
from eyesmith.losses.ring import Ring, world_size_of
from eyesmith.losses.tiles import Tiles, accumulate, compute_dtype


def softmax_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    same: Same | Tensor | None = None,
    *,
    form: Form = "auto",
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Symmetric softmax loss over all image-text pairs of the global batch.

    image, text: [b, D], unit L2 rows, row i of both is one sample; b rows of this rank, which may differ between ranks.
    scale: [] 1/temperature, equal on every rank. same: codes of the rows (or a [B, B] bool matrix, dense form in one
    process only); pairs that agree are left out of both softmaxes, the diagonal is always kept.
    Returns [], nats per sample, half from each direction: the mean over the rows of all ranks, equal on each. fp32, or
    fp64 for such features.

    Gradients: after a MEAN over ranks, as DDP and FSDP take of parameter gradients, they are those of one process on
    the global batch; so each rank's own are `world size` times its part. No second derivative.

    form: `dense` holds B x B logits; `tiled` holds one tile of tile_rows x 2 tile_rows logits and a buffer of that
    size, and computes each tile twice; `ring` is tiled, and the texts of the other ranks come by in turn, so that no
    rank ever holds more than two blocks of them. Dense and tiled gather the features of all ranks where there are
    several, and each rank computes the whole. `auto`: see `choose_form`. group: None is the default group.
    Half-precision features are multiplied in their own format on CUDA (summed in fp32), converted to fp32 elsewhere.

    Raises ShapeError for shapes that do not agree, ConfigError for a form that cannot be had.
    Source: CLIP (arXiv 2103.00020), fig. 3; flat memory as in arXiv 2410.17243. Departs: own pairs stand outside of the
    sums, loss = log(1 + sum over negatives of exp(l_ij - l_ii)), so that a small loss keeps its digits.
    """
    check_features(image, text, same, tile_rows)
    form = choose_form(form, len(image), world_size_of(group), same)
    with torch.autocast(image.device.type, enabled=False):
        if isinstance(same, Tensor):
            return contrastive_loss(image, text, scale, same)
        ring = Ring.of(len(image), image.device, group)
        if form != "ring":
            image, text, same = gather_batch(image, text, same, ring)
            ring = Ring(rank=0, sizes=(len(image),))
        if form == "dense":
            return contrastive_loss(image, text, scale, None if same is None else same.matrix())
        codes = () if same is None else same.distinct()
        return _TiledSoftmax.apply(comparable(image), comparable(text), scale, codes, ring, tile_rows)  # pyright: ignore


class _TiledSoftmax(torch.autograd.Function):
    """First pass in forward: log-sum-exp of rows and columns. Second in backward: the tiles again, and gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        codes: Sequence[Tensor],
        ring: Ring,
        tile_rows: int | None,
    ) -> Tensor:
        own = own_logits(image, text, scale)  # [b]
        tiles = Tiles(image, scale, codes=codes, tile_rows=tile_rows)
        rows, columns = log_sums(tiles, text, ring)
        row_odds, column_odds = _log(rows) - own, _log(columns) - own  # log of (other terms / own term), -inf for none
        ctx.save_for_backward(image, text, scale, own, row_odds, column_odds, *codes)
        ctx.ring, ctx.tile_rows = ring, tile_rows
        loss = (_log1p_exp(row_odds) + _log1p_exp(column_odds)).sum() / (2 * ring.num_rows)
        return ring.total(loss)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return _softmax_gradients(ctx, grads[0])


def _softmax_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
    """The second pass: each tile once more, its probabilities, and their products with the features."""
    image, text, scale, own, row_odds, column_odds, *codes = ctx.saved_tensors
    ring: Ring = ctx.ring
    wants_image, wants_text, wants_scale = ctx.needs_input_grad[:3]
    wants_image |= wants_scale and not wants_text  # the gradient of the scale is read off one of the two
    row_norms = own + _log1p_exp(row_odds)  # [b]: log-sum-exp of the row, own pair included
    column_norms = own + _log1p_exp(column_odds)
    tiles = Tiles(image, scale, codes=codes, tile_rows=ctx.tile_rows)
    image_sum = torch.zeros(image.shape if wants_image else (), dtype=own.dtype, device=own.device)
    text_sums = ring.sums()
    for owner, (texts, norms, *others) in ring.blocks([text, column_norms, *codes]):
        text_share = torch.zeros(texts.shape if wants_text else (), dtype=own.dtype, device=own.device)
        for tile in tiles.negatives(texts, others, is_own=owner == ring.rank):
            torch.sub(tile.logits, row_norms[tile.rows, None], out=tile.spare).exp_()
            weights = tile.logits.sub_(norms[tile.columns]).exp_().add_(tile.spare)  # [R, C] both probabilities
            if wants_image:
                accumulate(image_sum[tile.rows], weights, texts[tile.columns])
            if wants_text:
                accumulate(text_share[tile.columns], weights.mT, image[tile.rows])
        if wants_text:
            text_sums.add(text_share)
    own_weights = row_odds.sigmoid() + column_odds.sigmoid()  # [b] how far the own pair is from certain
    factor = grad * (ring.world_size / (2 * ring.num_rows))
    return feature_gradients(
        ctx.needs_input_grad[:3],
        (image, text, scale),
        image_sum if wants_image else None,
        text_sums.home() if wants_text else None,
        own_weights,
        factor,
    )


def own_logits(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """[b] logits of the pairs of this rank, image i with text i."""
    dtype = compute_dtype(image)
    return torch.linalg.vecdot(image.to(dtype), text.to(dtype)) * scale


def log_sums(tiles: Tiles, text: Tensor, ring: Ring) -> tuple[Tensor, Tensor]:
    """Sums over negatives of exp(logit), of the rows and of the columns of this rank's samples, each [b, 2].

    They are kept as (largest logit m, sum of exp(logit - m)), which neither overflows nor loses digits to a large m.
    """
    rows = _no_terms(len(tiles.image), tiles)
    columns = ring.sums()
    for owner, (texts, *others) in ring.blocks([text, *tiles.codes]):
        share = _no_terms(len(texts), tiles)
        for tile in tiles.negatives(texts, others, is_own=owner == ring.rank):
            for sums, part, axis in ((rows, tile.rows, 1), (share, tile.columns, 0)):
                largest = tile.logits.amax(axis).clamp_(min=torch.finfo(tile.logits.dtype).min)  # -inf: no negatives
                torch.sub(tile.logits, largest.unsqueeze(axis), out=tile.spare).exp_()
                sums[part] = _merge(sums[part], torch.stack([largest, tile.spare.sum(axis)], dim=1))
        columns.add(share, _merge)
    return rows, columns.home()


def log_norms(tiles: Tiles, text: Tensor, own: Tensor, ring: Ring) -> tuple[Tensor, Tensor]:
    """Log-sum-exp [b] of the rows and of the columns of this rank's samples, own pairs (logits own [b]) included."""
    rows, columns = log_sums(tiles, text, ring)
    return own + _log1p_exp(_log(rows) - own), own + _log1p_exp(_log(columns) - own)


def feature_gradients(
    wanted: tuple[bool, bool, bool],
    inputs: tuple[Tensor, Tensor, Tensor],
    image_sum: Tensor | None,
    text_sum: Tensor | None,
    own_weights: Tensor,
    factor: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
    """Gradients of (image, text, scale) from the weighted sums over negatives, which are overwritten.

    image_sum, text_sum: [b, D] sum over negatives j of weight_ij times the other side's row j; own_weights: [b] the
    weight, with its sign turned, of the own pair; factor: [] what all weights are to be multiplied by.
    """
    image, text, scale = inputs
    scale_grad = None
    grads: list[Tensor | None] = [None, None]
    for side, (sums, this, other) in enumerate(((image_sum, image, text), (text_sum, text, image))):
        if sums is None:
            continue
        sums.addcmul_(own_weights[:, None], other.to(sums.dtype), value=-1)
        if wanted[2] and scale_grad is None:
            scale_grad = (torch.linalg.vecdot(this.to(sums.dtype), sums).sum() * factor).to(scale.dtype)
        if wanted[side]:
            grads[side] = sums.mul_(factor * scale).to(this.dtype)
    return grads[0], grads[1], scale_grad, None, None, None


def _no_terms(num_rows: int, tiles: Tiles) -> Tensor:
    dtype = compute_dtype(tiles.image)
    sums = torch.zeros(num_rows, 2, dtype=dtype, device=tiles.image.device)
    sums[:, 0] = torch.finfo(dtype).min
    return sums


def _merge(left: Tensor, right: Tensor) -> Tensor:
    """Two [n, 2] sums of exponentials as one."""
    largest = torch.maximum(left[:, 0], right[:, 0])
    total = left[:, 1] * (left[:, 0] - largest).exp() + right[:, 1] * (right[:, 0] - largest).exp()
    return torch.stack([largest, total], dim=1)


def _log(sums: Tensor) -> Tensor:
    """[n] log-sum-exp of [n, 2] sums; -inf for a sum without terms."""
    return sums[:, 0] + sums[:, 1].log()


def _log1p_exp(value: Tensor) -> Tensor:
    """log(1 + exp(value)) to the last digit at both ends (torch's softplus is cut off at 20)."""
    return torch.logaddexp(value, value.new_zeros(()))
