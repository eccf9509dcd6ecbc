"""A plain mask decoder: queries and the cells of a frozen encoder go through a few transformer blocks together.

Source: PMT (tue-mps, 2026). It departs where a hybrid encoder offers more than a plain one: each tap has a norm and a
projection of its own, finer taps join where the map of masks is brought to their stride, positions are sines, and the
layers before the last are supervised on the cells themselves unless told otherwise.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eyesmith.dense.segment.decoder import MaskMaps, sine_positions
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Tap

_CELLS = 16  # the stride at which queries meet the picture, where the encoder has it


@dataclass(frozen=True, kw_only=True)
class PmtConfig:
    """A plain mask decoder."""

    width: int = 256
    num_heads: int = 8
    num_blocks: int = 4
    num_queries: int = 200
    mlp_ratio: float = 4.0
    taps: tuple[str, ...] = ()
    """Maps that are read; none: all that the encoder has."""
    mask_stride: int = 4
    """Pixels per cell of masks, a half, a quarter ... of the cells' stride; nearly, for patches of 14."""
    masked: bool = True
    """Let a query see only the cells of its own mask, as the layer before has it (Mask2Former's masked attention)."""
    supervised: Literal["cells", "fine"] = "cells"
    """Where the layers before the last make their masks: on the cells (fast), or at mask_stride (PMT)."""

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8 or self.num_heads < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"decoder: expected a width that 8 and num_heads divide, got {self.width} and {self.num_heads}"
            )
        if self.num_blocks < 1 or self.num_queries < 1 or self.mask_stride < 1 or self.mlp_ratio <= 0:
            raise ConfigError(
                "decoder: expected num_blocks, num_queries and mask_stride of 1 or more and a positive mlp_ratio, got "
                f"{self.num_blocks}, {self.num_queries}, {self.mask_stride} and {self.mlp_ratio}"
            )
        if self.supervised not in ("cells", "fine"):
            raise ConfigError(f"decoder.supervised: expected cells or fine, got {self.supervised!r}")

    def build(self, taps: Mapping[str, Tap]) -> "PlainMaskDecoder":
        """For an encoder with these taps."""
        return PlainMaskDecoder(self, taps)


class PlainMaskDecoder(nn.Module):
    """See the file. Its image size is that of the maps it is given."""

    def __init__(self, config: PmtConfig, taps: Mapping[str, Tap]) -> None:
        """Raises ConfigError for a tap that is not there."""
        super().__init__()
        if unknown := [name for name in config.taps if name not in taps]:
            raise ConfigError(f"decoder.taps: no {', '.join(unknown)}; the encoder has {', '.join(taps)}")
        self.config, self.width, self.num_queries = config, config.width, config.num_queries
        self.taps = {name: taps[name] for name in config.taps or taps}
        strides = {tap.stride for tap in self.taps.values()}
        self.stride = max([one for one in strides if one <= _CELLS], default=min(strides))
        self.num_doublings = max(0, round(math.log2(self.stride / config.mask_stride)))
        # a list, as a dict of modules takes no tap called `half` or `type`
        self.inputs = nn.ModuleList(_Input(tap.channels, config.width) for tap in self.taps.values())
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.02)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.width)
        self.doublings = nn.ModuleList(_Doubling(config.width) for _ in range(self.num_doublings))
        self.mask = mlp(config.width, config.width, config.width)

    def forward(self, maps: Mapping[str, Tensor]) -> MaskMaps:
        """maps: by tap name, [B, channels, h, w] each; others than its own are not looked at."""
        given = {name: take(maps[name]) for name, take in zip(self.taps, self.inputs, strict=True)}  # [B, C, h, w]
        size = self._size(maps)
        coarse = [_resized(given[name], size) for name, tap in self.taps.items() if tap.stride >= self.stride]
        x = torch.stack(coarse).sum(0).flatten(2).mT  # [B, N, C]
        x = x + sine_positions(*size, self.width, device=x.device).flatten(0, 1).to(x.dtype)
        x = torch.cat([self.queries.expand(len(x), -1, -1).to(x.dtype), x], 1)  # [B, Q + N, C]
        found = MaskMaps([], [], [])
        for depth, block in enumerate(self.blocks):
            is_seen: Tensor | None = None
            if self.config.masked or self.training:
                self._say(found, x, size, given, is_fine=self.config.supervised == "fine")
            if self.config.masked:
                is_seen = self._seen(found.masks[depth], size)
            x = block(x, is_seen)
        self._say(found, x, size, given, is_fine=True)
        return found

    def macs(self, side_px: int) -> float:
        """See `MaskDecoder`; as in training."""
        shape = copy.deepcopy(self).to("meta").train()  # where attention is counted as the products that it is
        with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
            shape(
                {
                    name: torch.zeros(1, tap.channels, side_px // tap.stride, side_px // tap.stride)
                    for name, tap in self.taps.items()
                }
            )
        return counter.get_total_flops() / 2

    def _size(self, maps: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of cells."""
        name = next(name for name, tap in self.taps.items() if tap.stride == self.stride)
        return maps[name].shape[2], maps[name].shape[3]

    def _say(
        self, found: MaskMaps, x: Tensor, size: tuple[int, int], given: Mapping[str, Tensor], *, is_fine: bool
    ) -> None:
        x = self.norm(x)
        queries, cells = x[:, : self.num_queries], x[:, self.num_queries :]
        features = cells.mT.unflatten(2, size)  # [B, C, h, w]
        if is_fine:
            for doubled, doubling in enumerate(self.doublings, 1):
                stride = self.stride / 2**doubled
                finer = [given[name] for name, tap in self.taps.items() if tap.stride == stride]
                features = doubling(features, finer)
        found.queries.append(queries)
        found.features.append(features)
        found.masks.append(torch.einsum("bqc,bchw->bqhw", self.mask(queries), features))

    def _seen(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """bool [B, 1, Q + N, Q + N]: who may look at whom. A query whose mask is empty sees every cell."""
        count = size[0] * size[1]
        own = _resized(masks.detach().float(), size).flatten(2) > 0  # [B, Q, N]
        own = own | ~own.any(2, keepdim=True)
        total = self.num_queries + count
        seen = torch.ones(len(masks), total, total, dtype=torch.bool, device=masks.device)
        seen[:, : self.num_queries, self.num_queries :] = own
        return seen[:, None]


class _Input(nn.Module):
    """One tap's map, normed over channels as frozen maps may have any scale, at the decoder's width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)

    def forward(self, given: Tensor) -> Tensor:
        return self.project(self.norm(given.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Pre-norm attention and MLP over queries and cells alike."""

    def __init__(self, config: PmtConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.num_heads = config.num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, is_seen: Tensor | None) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen)  # [B, heads, T, C / heads]
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class _Doubling(nn.Module):
    """Twice as many rows and columns, with what the encoder says at that stride."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, given: Tensor, finer: list[Tensor]) -> Tensor:
        size = finer[0].shape[2:] if finer else (2 * given.shape[2], 2 * given.shape[3])
        x = F.interpolate(given, size=size, mode="bilinear", align_corners=False)
        for one in finer:
            x = x + one
        return x + self.pointwise(F.gelu(self.depthwise(self.norm(x))))


def mlp(given: int, hidden: int, out: int) -> nn.Sequential:
    """Three layers with ReLU between them, as the heads of Mask2Former have them."""
    return nn.Sequential(
        nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out)
    )


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
