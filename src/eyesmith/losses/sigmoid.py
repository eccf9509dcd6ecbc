"""Sigmoid loss (every pair a yes-or-no question) in any form: all logits at once, by tiles, or round a ring."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from eyesmith.losses.forms import Form, check_features, choose_form, comparable, gather_batch
from eyesmith.losses.positives import Same
from eyesmith.losses.ring import Ring, world_size_of
from eyesmith.losses.softmax import feature_gradients, own_logits
from eyesmith.losses.tiles import Tiles, accumulate, compute_dtype


def sigmoid_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    same: Same | Tensor | None = None,
    *,
    form: Form = "auto",
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Binary cross-entropy over all pairs of the global batch, own pairs against all others, summed over texts.

    image, text: [b, D], unit L2 rows, row i of both is one sample. scale, bias: [] of the logits, equal on every rank;
    a run starts with bias -10, so that the first step is not swamped by negatives. same: codes of the rows (or a
    [B, B] bool matrix, dense form in one process only); pairs that agree are left out, own pairs never.
    Returns [], nats per sample: the mean over the images of all ranks, equal on each; fp32, or fp64 for such features.

    Gradients between processes, forms, group, half precision and errors: as `softmax_loss`. The tiled form computes
    each tile once: value and gradients in one pass, in forward.
    Source: SigLIP (arXiv 2303.15343), eq. 1.
    """
    check_features(image, text, same, tile_rows)
    form = choose_form(form, len(image), world_size_of(group), same)
    with torch.autocast(image.device.type, enabled=False):
        if isinstance(same, Tensor):
            return _dense(image, text, scale, bias, same)
        ring = Ring.of(len(image), image.device, group)
        if form != "ring":
            image, text, same = gather_batch(image, text, same, ring)
            ring = Ring(rank=0, sizes=(len(image),))
        if form == "dense":
            return _dense(image, text, scale, bias, None if same is None else same.matrix())
        codes = () if same is None else same.distinct()
        return _TiledSigmoid.apply(  # pyright: ignore[reportReturnType]
            comparable(image), comparable(text), scale, bias, codes, ring, tile_rows, torch.is_grad_enabled()
        )


def _dense(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, same: Tensor | None) -> Tensor:
    dtype = compute_dtype(image)
    logits = scale * image.to(dtype) @ text.to(dtype).mT + bias  # [B, B]
    is_own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if same is not None:
        logits = logits.masked_fill(same & ~is_own, -torch.inf)
    sign = 2 * is_own.to(dtype) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


class _TiledSigmoid(torch.autograd.Function):
    """One pass, in forward: no sum over a row must be known before the gradient of a pair."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        codes: Sequence[Tensor],
        ring: Ring,
        tile_rows: int | None,
        has_grad: bool,
    ) -> Tensor:
        wanted: tuple[bool, ...] = ctx.needs_input_grad[:4] if has_grad else (False,) * 4
        wants_text = wanted[1]
        wants_image = wanted[0] or (wanted[2] and not wants_text)  # the scale's gradient is read off one of the two
        own = own_logits(image, text, scale) + bias  # [b]
        tiles = Tiles(image, scale, bias, codes, tile_rows=tile_rows)
        image_sum = torch.zeros(image.shape if wants_image else (), dtype=own.dtype, device=own.device)
        text_sums = ring.sums()
        losses, weight_sums = [_softplus(-own).sum()], [own.new_zeros(())]
        for owner, (texts, *others) in ring.blocks([text, *codes]):
            text_share = torch.zeros(texts.shape if wants_text else (), dtype=own.dtype, device=own.device)
            for tile in tiles.negatives(texts, others, is_own=owner == ring.rank):
                losses.append(_softplus(tile.logits, out=tile.spare).sum())
                if not any(wanted):
                    continue
                weights = tile.logits.sigmoid_()  # [R, C]
                weight_sums.append(weights.sum())
                if wants_image:
                    accumulate(image_sum[tile.rows], weights, texts[tile.columns])
                if wants_text:
                    accumulate(text_share[tile.columns], weights.mT, image[tile.rows])
            if wants_text:
                text_sums.add(text_share)
        if any(wanted):
            own_weights = (-own).sigmoid()
            factor = own.new_tensor(ring.world_size / ring.num_rows)
            grads = feature_gradients(
                (wanted[0], wanted[1], wanted[2]),
                (image, text, scale),
                image_sum if wants_image else None,
                text_sums.home() if wants_text else None,
                own_weights,
                factor,
            )
            bias_grad = (torch.stack(weight_sums).sum() - own_weights.sum()) * factor
            ctx.wanted = [grad is not None for grad in grads[:3]] + [wanted[3]]
            ctx.save_for_backward(*(grad for grad in (*grads[:3], bias_grad.to(bias.dtype)) if grad is not None))
        return ring.total(torch.stack(losses).sum() / ring.num_rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        given = [next(saved) * grads[0] if is_wanted else None for is_wanted in ctx.wanted]
        return (*given, None, None, None, None)


def _softplus(value: Tensor, out: Tensor | None = None) -> Tensor:
    """log(1 + exp(value)); torch's cut-off, 20, is moved to where it changes no digit of fp64."""
    return torch.ops.aten.softplus.out(value, 1, 40, out=torch.empty_like(value) if out is None else out)
