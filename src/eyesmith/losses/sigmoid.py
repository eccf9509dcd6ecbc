"""Sigmoid loss, every pair a yes-or-no question: all logits at once for few rows, else by tiles."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from eyesmith.losses.all_pairs import (
    AllPairs,
    Gradients,
    OnePass,
    check_features,
    comparable,
    compute_dtype,
    gathered_codes,
    is_whole,
)
from eyesmith.losses.exchange import Ranks
from eyesmith.losses.positives import Same


def sigmoid_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    same: Same | Tensor | None = None,
    *,
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
    max_rows: int | None = None,
) -> Tensor:
    """Binary cross-entropy over all pairs of the global batch, own pairs against all others, summed over texts.

    image, text: [b, D], unit L2 rows, row i of both is one sample. scale, bias: [] of the logits, equal on every rank;
    a run starts with bias -10, so that the first step is not swamped by negatives. same: codes of the rows (or a
    [B, B] bool matrix, in one process without tile_rows only); pairs that agree are left out, own pairs never.
    Returns [], nats per sample: the mean over the images of all ranks, equal on each; fp32, or fp64 for such features.

    Gradients between processes, tiles, group, max_rows, half precision and errors: as `softmax_loss`. Each tile is
    computed once, value and gradients in one pass, in forward; between processes three exchanges (one more with codes,
    one with max_rows).
    Source: SigLIP (arXiv 2303.15343), eq. 1.
    """
    check_features(image, text, same, tile_rows)
    ranks = Ranks.of(image, group, max_rows)
    with torch.autocast(image.device.type, enabled=False):
        if is_whole(same, tile_rows, ranks):
            return _whole(image, text, scale, bias, same.matrix() if isinstance(same, Same) else same)
        codes = gathered_codes(same, ranks)  # pyright: ignore[reportArgumentType]  # no matrix, `is_whole` says
        return _TiledSigmoid.apply(  # pyright: ignore[reportReturnType]
            comparable(image), comparable(text), scale, bias, codes, ranks, tile_rows, torch.is_grad_enabled()
        )


def _whole(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, same: Tensor | None) -> Tensor:
    dtype = compute_dtype(image)
    logits = scale * image.to(dtype) @ text.to(dtype).mT + bias  # [B, B]
    is_own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if same is not None:
        logits = logits.masked_fill(same & ~is_own, -torch.inf)
    sign = 2 * is_own.to(dtype) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


class _TiledSigmoid(OnePass):
    """One pass, in forward: no sum over a row must be known before the gradient of a pair."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        codes: tuple[Tensor, ...],
        ranks: Ranks,
        tile_rows: int | None,
        has_grad: bool,
    ) -> Tensor:
        wanted: tuple[bool, ...] = ctx.needs_input_grad[:4] if has_grad else (False,) * 4
        pairs = AllPairs(
            image=image, text=ranks.gather(text), scale=scale, bias=bias, codes=codes, ranks=ranks, tile_rows=tile_rows
        )
        own = pairs.own_logits()  # [b]
        found = Gradients(pairs, wanted)
        losses, weight_sums = [_softplus(-own).sum()], [own.new_zeros(())]
        for tile in pairs.negatives():
            losses.append(_softplus(tile.logits, out=tile.spare).sum())
            if any(wanted):
                weights = tile.logits.sigmoid_()  # [R, C]
                weight_sums.append(weights.sum())
                found.add(tile, weights)
        if any(wanted):
            own_weights, factor = (-own).sigmoid(), ranks.world_size / ranks.num_rows
            bias_grad = (torch.stack(weight_sums).sum() - own_weights.sum()) * factor
            OnePass.keep(ctx, [*found.finish(own_weights, factor), bias_grad.to(bias.dtype) if wanted[3] else None])
        return ranks.total(torch.stack(losses).sum() / ranks.num_rows)


def _softplus(value: Tensor, out: Tensor | None = None) -> Tensor:
    """log(1 + exp(value)); torch's cut-off, 20, is moved to where it changes no digit of fp64."""
    return torch.ops.aten.softplus.out(value, 1, 40, out=torch.empty_like(value) if out is None else out)
