"""TrV, the image encoder of EVA-02 (arXiv 2303.11331): a plain ViT with SwiGLU, sub-LN and 2D rotary positions.

Exact to the released models and timm's `eva02_*`, with one change of storage: q, k, v are one matrix, and so are gate
and value, in every size. B batch, H W grid cells, N = H*W patches, C channels, D embedding; token 0 is the class token.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.cpu_ops import attend
from eyesmith.models.drop_path import DropPath
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.eva02.config import Eva02Config, Pooling
from eyesmith.models.eva02.initial import initialise
from eyesmith.models.eva02.relative import relative_index, resize_relative_table, table_rows
from eyesmith.models.eva02.rope import rope_table, rotate
from eyesmith.models.linear import Linear, can_fuse
from eyesmith.models.position import resize_position_table

EPS = 1e-6  # of every LayerNorm
NUM_TAPS = 4  # evenly spread over the blocks


class Attention(nn.Module):
    """Multi-head self-attention with a bias on q and v, none on k."""

    def __init__(self, config: Eva02Config) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.qkv = Linear(width, 3 * width, bias=False)  # rows q, k, v; in each head by head
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        has_table = config.relation == "bias"
        self.relative = nn.Parameter(torch.zeros(table_rows(config.grid), self.num_heads)) if has_table else None
        self.norm = nn.LayerNorm(width, eps=EPS) if config.has_inner_norm else None
        self.out = Linear(width, width)

    def forward(self, x: Tensor, places: Tensor | None, *, plus: Tensor | None = None) -> Tensor:
        """x: [B, 1 + N, C]. places: rope_table's, or relative_index's [1 + N, 1 + N]. plus: added to the result."""
        batch, tokens, width = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = self.qkv(x, bias=bias).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        v = qkv[:, :, 2].transpose(1, 2)  # [B, heads, 1 + N, C/heads]
        scores = None
        qk = qkv[:, :, :2]
        if self.relative is not None and places is not None:
            scores = self.relative[places].permute(2, 0, 1).to(v.dtype)  # [heads, 1 + N, 1 + N]
        elif places is not None:
            qk = rotate(qk, places)
        q, k = qk.permute(2, 0, 3, 1, 4)  # each [B, heads, 1 + N, C/heads]
        x = attend(q, k, v) if scores is None else F.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        x = x.transpose(1, 2).reshape(batch, tokens, width)
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
            x = self.enter(x, part=1, times=self.enter(x, part=0, silu=True))
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
        x = self.enter(x, gelu=True)
        if self.norm is not None:
            x = self.norm(x)
        return self.out(x, plus=plus)


class Block(nn.Module):
    """Attention and a feed-forward network, each beside a shortcut: normed before, or (`post`) after."""

    def __init__(self, config: Eva02Config, drop_path_prob: float) -> None:
        super().__init__()
        self.is_post = config.norm == "post"
        self.norm1 = nn.LayerNorm(config.width, eps=EPS)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=EPS)
        kind = SwiGLU if config.ffn == "swiglu" else Mlp
        self.mlp = kind(config.width, config.hidden_dim, has_norm=config.norm == "sub")
        self.drop1, self.drop2 = DropPath(drop_path_prob), DropPath(drop_path_prob)

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        if self.is_post:
            x = x + self.drop1(self.norm1(self.attention(x, places)))
            return x + self.drop2(self.norm2(self.mlp(x)))
        if can_fuse(x, self.attention.out.weight) and not self.training:
            x = self.attention(self.norm1(x), places, plus=x)
            return self.mlp(self.norm2(x), plus=x)
        x = x + self.drop1(self.attention(self.norm1(x), places))
        return x + self.drop2(self.mlp(self.norm2(x)))


class Eva02(Encoder):
    """A TrV encoder. `forward` gives one vector an image, pooled as `config.pooling` says, projected: [B, embed_dim].

    `dense` comes before the last norm, except with pooling `normed_mean`, where it is the normed map; either way
    `project` of its cells lies in the space of `forward`.
    """

    def __init__(self, config: Eva02Config) -> None:
        super().__init__()
        _check_memory(config)
        self.config = config
        self.image_size = config.image_size
        self.mean, self.std = OPENAI_MEAN, OPENAI_STD
        self.stride = config.patch_px
        self.embed_dim = config.embed_dim or config.width
        self.is_mean_pooled = config.pooling != "token"
        count = min(NUM_TAPS, config.depth)
        self._tap_depths = {
            f"block{depth}": depth for depth in (k * config.depth // count for k in range(1, count + 1))
        }
        self.taps = {name: Tap(config.patch_px, config.width) for name in self._tap_depths}

        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        num_tokens = 1 + config.grid[0] * config.grid[1]
        self.position = nn.Parameter(torch.zeros(1, num_tokens, config.width)) if config.has_position else None
        self.patch = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px)
        rates = [config.drop_path_prob * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.layers = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = nn.Linear(config.width, config.embed_dim) if config.embed_dim else nn.Identity()
        self._places = self._make_places()  # no buffer: it is computed, and stored nowhere
        initialise(self)

    def patches(self, pixels: Tensor) -> Tensor:
        """The patches as vectors, before any position: pixels [B, 3, H, W] -> [B, N, C]."""
        return self.patch(self.prepare(pixels)).flatten(2).mT

    def encode(self, patches: Tensor, *, depth: int | None = None, kept: Tensor | None = None) -> Tensor:
        """The blocks' output, before the last norm: patches [B, N, C] -> [B, 1 + N, C], class token first.

        patches: of the whole grid, row-major; some may be mask tokens. depth: blocks to run, None for all. kept: int64
        [B, K] patches to go on with, the others are dropped after positions were added; the result is [B, 1 + K, C].
        """
        x, places = self._enter(patches, kept)
        for block in self.layers[:depth]:
            x = block(x, places)
        return x

    def forward(self, pixels: Tensor) -> Tensor:
        return self.pool(self.encode(self.patches(pixels)))

    def pool(self, tokens: Tensor) -> Tensor:
        """The feature of an image out of `encode`'s tokens: [B, 1 + N, C] -> [B, D]."""
        if self.config.pooling == "token":
            return self.project(tokens[:, 0])
        cells = tokens[:, 1:]
        return self.project((self.norm(cells) if self.config.pooling == "normed_mean" else cells).mean(dim=1))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        maps: dict[int, Tensor] = {}
        x, places = self._enter(self.patches(pixels), None)
        wanted = {self._tap_depths[name] for name in names}
        for depth, block in enumerate(self.layers[: max(wanted, default=0)], 1):
            x = block(x, places)
            if depth in wanted:
                maps[depth] = self._map(x)
        return {name: maps[self._tap_depths[name]] for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        tokens = self.encode(self.patches(pixels))
        return self._map(self.norm(tokens) if self.config.pooling == "normed_mean" else tokens)

    def project(self, vectors: Tensor) -> Tensor:
        return self.head(vectors if self.config.pooling == "normed_mean" else self.norm(vectors))

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        depth = 1 + self.check_layer(layer, len(self.layers))
        return self.encode(self.patches(pixels), depth=depth)[:, 1:]

    def set_image_size(self, height: int, width: int) -> None:
        """Change the input size; tables are resampled as `config.resize` says, rotary positions made anew."""
        self.check_size(height, width)
        config = replace(self.config, image_size=(height, width))
        old, new, antialias = self.config.grid, config.grid, config.resize == "timm"
        if self.position is not None:
            data = self.position.data
            cells = resize_position_table(data[:, 1:], old, new, antialias=antialias)
            self.position = nn.Parameter(torch.cat((data[:, :1], cells), dim=1), self.position.requires_grad)
        for block in self.layers:
            assert isinstance(block, Block)
            if (table := block.attention.relative) is not None:
                data = resize_relative_table(table.data, old, new, antialias=antialias)
                block.attention.relative = nn.Parameter(data, table.requires_grad)
        self.config, self.image_size = config, config.image_size
        self._places = self._make_places()
        self._follow()

    def set_pooling(self, pooling: Pooling) -> None:
        """Pool in another way from now on. The parameters are the same, what they were trained for is not."""
        if pooling not in get_args(Pooling):
            raise ConfigError(f"pooling: expected {', '.join(get_args(Pooling))}, got {pooling!r}")
        self.config = replace(self.config, pooling=pooling)
        self.is_mean_pooled = pooling != "token"

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def _enter(self, patches: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The tokens before the first block, and what attention needs to know of their places."""
        x = torch.cat((self.class_token.to(patches.dtype).expand(len(patches), -1, -1), patches), dim=1)
        if self.position is not None:
            x = x + self.position
        places = None if self._places is None else self._places.to(x.device)  # moves for a meta device alone
        return (x, places) if kept is None else self._keep(x, places, kept)

    def _keep(self, x: Tensor, places: Tensor | None, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.config.relation == "bias":
            raise ConfigError("relation: patches cannot be dropped with a relative bias; take rope or none")
        rows = torch.cat((kept.new_zeros(len(kept), 1), kept + 1), dim=1)  # the class token stays
        x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        return x, None if places is None else places[rows]  # [B, 1 + K, P, 2]

    def _map(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mT.unflatten(2, self.config.grid)  # [B, C, H, W]

    def _make_places(self) -> Tensor | None:
        if self.config.relation == "rope":
            with torch.inference_mode(False):
                return rope_table(self.config.grid, self.config.width // self.config.num_heads)
        return relative_index(self.config.grid) if self.config.relation == "bias" else None

    def _follow(self) -> None:
        """Keep the places where the parameters are."""
        device = self.class_token.device
        if self._places is not None and device.type != "meta":
            self._places = self._places.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._follow()
        return self


def _check_memory(config: Eva02Config) -> None:
    """Refuse what this machine cannot hold, which otherwise would end the process without a word."""
    matrices = 4 * config.width + (3 if config.ffn == "swiglu" else 2) * config.hidden_dim
    params = config.depth * config.width * matrices
    if torch.get_default_device().type != "cpu" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * params > there:
        raise ConfigError(
            f"{config.depth} blocks of width {config.width} have {params / 1e9:.1f} G parameters, "
            f"{4 * params / 1e9:.0f} GB in fp32, and this machine has {there / 1e9:.0f} GB; take a smaller model "
            "(EVA02-L-14 has 0.3 G), or build it on another device"
        )
