"""The parts of a plain ViT: attention, MLP, block with LayerScale, and SigLIP's pooling by attention.

B batch, N tokens, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.activation import Activation
from eyesmith.models.cpu_ops import attend
from eyesmith.models.drop_path import DropPath
from eyesmith.models.linear import Linear, can_fuse


def attend_one(q: Tensor, x: Tensor, key: Tensor, value: Tensor, value_bias: Tensor, num_heads: int) -> Tensor:
    """What one query an image sees of all its tokens, its heads joined: [B, C].

    q: [B, C]; x: tokens [B, N, C]; key, value: weights [C, C], in each the rows head by head; value_bias: [C].

    No token gets a key or a value: the query times a head's keys is compared with the tokens themselves, and what it
    finds of them goes through the values, 2 B N C^2 products fewer. The keys' bias would add the same to all scores of
    a query, which softmax takes out.
    """
    heads = (num_heads, q.shape[-1] // num_heads)
    q = torch.bmm(q.unflatten(1, heads).transpose(0, 1), key.unflatten(0, heads))  # [heads, B, C]
    seen = attend(q.transpose(0, 1)[:, None], x[:, None], x[:, None], scale=heads[1] ** -0.5)  # [B, 1, heads, C]
    v = torch.bmm(seen[:, 0].transpose(0, 1), value.unflatten(0, heads).mT)  # [heads, B, C/heads]
    return v.transpose(0, 1).flatten(1) + value_bias


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for q, k and v."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)  # rows q, k, v; in each head by head
        self.out = Linear(width, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None, is_first_wanted: bool = False) -> Tensor:
        """x: [B, N, C]. plus: added to the result. is_first_wanted: [B, 1, C] of the first token alone comes out."""
        batch, tokens, width = x.shape
        if is_first_wanted:
            (query, key, value), (query_bias, _, value_bias) = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
            q = F.linear(x[:, 0], query, query_bias)
            return self.out(attend_one(q, x, key, value, value_bias, self.num_heads)[:, None], plus=plus)
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, C/heads]
        return self.out(attend(q, k, v).transpose(1, 2).reshape(batch, tokens, width), plus=plus)


class Mlp(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.enter = Linear(width, hidden)
        self.out = Linear(hidden, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        return self.out(self.enter(x, act=self.activation), plus=plus)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.factor = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Block(nn.Module):
    """Pre-norm attention and MLP, each beside a shortcut."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        activation: Activation,
        norm_eps: float,
        layer_scale: float,
        drop_path_prob: float,
    ) -> None:
        """layer_scale: what its factors start with, 0 for none."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, hidden, activation)
        self.scale1, self.scale2 = (LayerScale(width, layer_scale) if layer_scale else nn.Identity() for _ in range(2))
        self.is_scaled = bool(layer_scale)
        self.drop1, self.drop2 = DropPath(drop_path_prob), DropPath(drop_path_prob)

    def forward(self, x: Tensor, *, is_first_wanted: bool = False) -> Tensor:
        """x: [B, N, C] to the same, or with is_first_wanted to the first token's [B, 1, C], at a third of the cost."""
        y = self.norm1(x)
        x = x[:, :1] if is_first_wanted else x
        if can_fuse(x, self.attention.out.weight) and not self.training and not self.is_scaled:
            x = self.attention(y, plus=x, is_first_wanted=is_first_wanted)  # sums in the products' epilogues
            return self.mlp(self.norm2(x), plus=x)
        x = x + self.drop1(self.scale1(self.attention(y, is_first_wanted=is_first_wanted)))
        return x + self.drop2(self.scale2(self.mlp(self.norm2(x))))


class AttentionPool(nn.Module):
    """SigLIP's pooling (MAP): a learned query attends to all tokens; then a residual MLP.

    Source: big_vision's MAPHead. Of one token it takes the value path alone, since the attention to it is 1.
    """

    def __init__(self, width: int, num_heads: int, hidden: int, *, activation: Activation, norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.qkv = Linear(width, 3 * width, num_parts=3)  # rows q (of the query), k, v (of the tokens)
        self.out = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, N, C] -> [B, C]."""
        (query, key, value), (query_bias, _, value_bias) = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q = F.linear(self.query[0].to(x.dtype), query, query_bias).expand(len(x), -1)
        return self._finish(attend_one(q, x, key, value, value_bias, self.num_heads))

    def of_each(self, x: Tensor) -> Tensor:
        """What forward gives for each vector as the only token: [..., C] -> [..., C]."""
        width = x.shape[-1]
        return self._finish(nn.functional.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :]))

    def _finish(self, x: Tensor) -> Tensor:
        x = self.out(x)
        return x + self.mlp(self.norm(x))
