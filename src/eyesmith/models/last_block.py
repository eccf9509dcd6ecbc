"""A transformer block taken apart, so that its attention can be another one without training.

The families write the same block with other names; here their names are known, and nowhere else. B batch, T tokens
(those before the patches first), C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.position import rotate


@dataclass(frozen=True, slots=True)
class OpenBlock:
    """What stands around the attention of one block, for one input.

    queries, keys, values: [B, heads, T, C/heads], as the attention compares and mixes them. join: mixed values of that
    shape to what the attention adds, [B, T, C]. finish: that to the block's result, [B, T, C].
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    join: Callable[[Tensor], Tensor]
    finish: Callable[[Tensor], Tensor]

    def plain(self) -> Tensor:
        """The block's own result, to see that it was taken apart rightly. Learned relative biases are left out."""
        return self.finish(self.join(F.scaled_dot_product_attention(self.queries, self.keys, self.values)))


def open_block(block: nn.Module, x: Tensor, places: Tensor | None = None) -> OpenBlock | None:
    """The block taken apart for its input x [B, T, C]; None for one that is built in another way.

    places: what a block of TrV gets beside it. Known are ours (ViTamin, TrV, ViT), and the plain pre-norm blocks of
    timm, open_clip and transformers.
    """
    parts = cast(Any, block)
    if hasattr(block, "attention") and hasattr(parts.attention, "qkv"):
        return _open_ours(parts, x, places)
    if all(hasattr(block, name) for name in ("attn", "norm1", "ls1", "norm2", "ls2")) and hasattr(parts.attn, "qkv"):
        return _open_timm(parts, x)
    if hasattr(block, "ln_1") and isinstance(getattr(block, "attn", None), nn.MultiheadAttention):
        return _open_open_clip(parts, x)
    if all(hasattr(block, name) for name in ("self_attn", "layer_norm1", "layer_norm2")):
        return _open_transformers(parts, x)
    return None


def _open_ours(block: Any, x: Tensor, places: Tensor | None) -> OpenBlock:
    attention = block.attention
    is_post = bool(getattr(block, "is_post", False))
    entered = x if is_post else block.norm1(x)
    if hasattr(attention, "q_bias"):
        qkv_bias = torch.cat((attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias))
        qkv = attention.qkv(entered, bias=qkv_bias)
    else:
        qkv = attention.qkv(entered)
    qkv = qkv.unflatten(-1, (3, attention.num_heads, -1))  # [B, T, 3, heads, C/heads]
    qk, v = qkv[:, :, :2], qkv[:, :, 2]
    if places is not None and getattr(attention, "relative", None) is None:
        qk = rotate(qk, places)
    q, k = (one.transpose(1, 2) for one in qk.unbind(2))
    inner = getattr(attention, "norm", None)
    scale1, scale2 = getattr(block, "scale1", _same), getattr(block, "scale2", _same)

    def join(heads: Tensor) -> Tensor:
        joined = _joined(heads)
        added = scale1(attention.out(joined if inner is None else inner(joined)))
        return block.norm1(added) if is_post else added

    def finish(added: Tensor) -> Tensor:
        y = x + added
        return y + (block.norm2(block.mlp(y)) if is_post else scale2(block.mlp(block.norm2(y))))

    return OpenBlock(q, k, v.transpose(1, 2), join, finish)


def _open_timm(block: Any, x: Tensor) -> OpenBlock:
    attention = block.attn
    qkv = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return OpenBlock(
        attention.q_norm(q),
        attention.k_norm(k),
        v,
        lambda heads: block.ls1(attention.proj(attention.norm(_joined(heads)))),
        lambda added: (x + added) + block.ls2(block.mlp(block.norm2(x + added))),
    )


def _open_open_clip(block: Any, x: Tensor) -> OpenBlock:
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scale1, scale2 = getattr(block, "ls_1", _same), getattr(block, "ls_2", _same)
    return OpenBlock(
        q,
        k,
        v,
        lambda heads: scale1(attention.out_proj(_joined(heads))),
        lambda added: (x + added) + scale2(block.mlp(block.ln_2(x + added))),
    )


def _open_transformers(block: Any, x: Tensor) -> OpenBlock:
    attention, entered = block.self_attn, block.layer_norm1(x)
    q, k, v = (
        product(entered).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for product in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return OpenBlock(
        q,
        k,
        v,
        lambda heads: attention.out_proj(_joined(heads)),
        lambda added: (x + added) + block.mlp(block.layer_norm2(x + added)),
    )


def _joined(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)  # [B, T, C]


def _same(x: Tensor) -> Tensor:
    return x
