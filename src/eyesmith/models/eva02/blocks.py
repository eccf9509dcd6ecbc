"""The parts of a TrV: attention with rotary positions, SwiGLU with sub-LN; and of the steps from ViT to it.

B batch, N patches, C channels; token 0 is the class token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.cpu_ops import attend
from eyesmith.models.drop_path import DropPath
from eyesmith.models.linear import Linear, can_fuse
from eyesmith.models.position import rotate

EPS = 1e-6  # of every LayerNorm


class Attention(nn.Module):
    """Multi-head self-attention with a bias on q and v, none on k."""

    def __init__(self, width: int, num_heads: int, *, has_norm: bool = False, relative_rows: int = 0) -> None:
        """has_norm: a LayerNorm on the joined heads. relative_rows: of a table of relative positions, 0 for none."""
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width, bias=False)  # rows q, k, v; in each head by head
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.relative = nn.Parameter(torch.zeros(relative_rows, num_heads)) if relative_rows else None
        self.norm = nn.LayerNorm(width, eps=EPS) if has_norm else None
        self.out = Linear(width, width)

    def forward(
        self, x: Tensor, places: Tensor | None, *, plus: Tensor | None = None, is_first_wanted: bool = False
    ) -> Tensor:
        """x: [B, 1 + N, C]. places: rope_table's, or relative_index's [1 + N, 1 + N]. plus: added to the result.

        is_first_wanted: [B, 1, C] of the class token alone comes out.
        """
        width, heads = x.shape[2], (self.num_heads, x.shape[2] // self.num_heads)
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        rope = places if self.relative is None else None
        if is_first_wanted:
            q = F.linear(x[:, :1], self.qkv.weight[:width], bias[:width]).unflatten(-1, heads)
            kv = F.linear(x, self.qkv.weight[width:], bias[width:]).unflatten(-1, (2, *heads))
            k, v = kv.unbind(2)
            if rope is not None:
                q, k = rotate(q, rope.narrow(-3, 0, 1)), rotate(k, rope)
        else:
            qkv = self.qkv(x, bias=bias).unflatten(-1, (3, *heads))
            qk, v = qkv[:, :, :2], qkv[:, :, 2]
            q, k = (qk if rope is None else rotate(qk, rope)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # each [B, heads, 1 + N, C/heads], q perhaps [.., 1, ..]
        if self.relative is not None and places is not None:
            scores = self.relative[places[: q.shape[2]]].permute(2, 0, 1).to(v.dtype)  # [heads, 1 + N or 1, 1 + N]
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        else:
            x = attend(q, k, v)
        x = x.transpose(1, 2).flatten(2)
        if self.norm is not None:
            x = self.norm(x)
        return self.out(x, plus=plus)


class SwiGLU(nn.Module):
    """SiLU(gate) * value, with sub-LN a LayerNorm, then back to C."""

    def __init__(self, width: int, hidden: int, *, has_norm: bool) -> None:
        super().__init__()
        self.enter = Linear(width, 2 * hidden, num_parts=2)  # rows [gate | value]
        self.norm = nn.LayerNorm(hidden, eps=EPS) if has_norm else None
        self.out = Linear(hidden, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        if can_fuse(x, self.enter.weight):
            x = self.enter(x, part=1, times=self.enter(x, part=0, act="silu"))
        else:
            gate, value = self.enter(x).chunk(2, dim=-1)
            x = F.silu(gate) * value
        if self.norm is not None:
            x = self.norm(x)
        return self.out(x, plus=plus)


class Mlp(nn.Module):
    """Two linear layers around an exact GELU, with sub-LN a LayerNorm after it."""

    def __init__(self, width: int, hidden: int, *, has_norm: bool) -> None:
        super().__init__()
        self.enter = Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=EPS) if has_norm else None
        self.out = Linear(hidden, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        x = self.enter(x, act="gelu")
        if self.norm is not None:
            x = self.norm(x)
        return self.out(x, plus=plus)


class Block(nn.Module):
    """Attention and a feed-forward network, each beside a shortcut: normed before, or (`post`) after."""

    def __init__(self, attention: Attention, mlp: SwiGLU | Mlp, drop_path_prob: float, *, is_post: bool) -> None:
        super().__init__()
        width = attention.out.out_features
        self.is_post = is_post
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = mlp
        self.drop1, self.drop2 = DropPath(drop_path_prob), DropPath(drop_path_prob)

    def forward(self, x: Tensor, places: Tensor | None = None, *, is_first_wanted: bool = False) -> Tensor:
        """x: [B, 1 + N, C] to the same; is_first_wanted: to the class token's [B, 1, C], at a fifth of the cost."""
        y = x if self.is_post else self.norm1(x)
        x = x[:, :1] if is_first_wanted else x
        if self.is_post:
            x = x + self.drop1(self.norm1(self.attention(y, places, is_first_wanted=is_first_wanted)))
            return x + self.drop2(self.norm2(self.mlp(x)))
        if can_fuse(x, self.attention.out.weight) and not self.training:
            x = self.attention(y, places, plus=x, is_first_wanted=is_first_wanted)
            return self.mlp(self.norm2(x), plus=x)
        x = x + self.drop1(self.attention(y, places, is_first_wanted=is_first_wanted))
        return x + self.drop2(self.mlp(self.norm2(x)))
