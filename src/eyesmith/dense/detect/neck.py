"""From an encoder's taps to the pyramid that proposals and heads read: F-ViT's layers after the taps, then an FPN.

Sources: F-ViT (CLIPSelf's release) for the layers after the taps; FPN (arXiv 1612.03144).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Tap

Norm = Literal["group", "batch", "none"]
_GROUPS = 32


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid: the tap it is made of, and the pixels a cell of it has."""

    tap: str
    tap_stride: int
    channels: int
    stride: float


def plan_levels(taps: Mapping[str, Tap], half_tap: str | None, num_levels: int) -> tuple[Level, ...]:
    """Which tap each level is made of, from fine to coarse.

    An encoder with four strides or more gives each as it is. One that ends in blocks of one stride p has levels at p/4
    and p/2, from stages of these strides or, in a plain transformer, from a quarter and 5/12 of its blocks; at p, from
    half of them (of a plain one 7/12); and at 2p, from the last. Of three levels the last is at p, from the last block.
    Source: F-ViT, whose plain taps are blocks 3, 5, 7, 11 of 12 and 6, 10, 14, 23 of 24, from 0.
    """
    if num_levels not in (3, 4):
        raise ConfigError(f"neck.num_levels: expected 3 or 4, got {num_levels}")
    names = list(taps)
    last_at = {tap.stride: name for name, tap in taps.items()}  # the last of each stride
    strides = sorted(last_at)
    if len(strides) >= 4:
        chosen = [(last_at[stride], float(stride)) for stride in strides[:num_levels]]
    else:
        coarse = strides[-1]
        blocks = [name for name in names if taps[name].stride == coarse and name != half_tap]
        is_plain = len(strides) == 1
        if is_plain:
            blocks = names
        wanted = []
        for share, part in ((4, 1 / 4), (2, 5 / 12)):
            exact = last_at.get(coarse // share) if coarse % share == 0 else None
            wanted.append((exact or _after(blocks, part), coarse / share))
        if num_levels == 3:
            wanted.append((names[-1], float(coarse)))
        else:
            middle = half_tap if half_tap and not is_plain else _after(blocks, 7 / 12)
            wanted += [(middle, float(coarse)), (names[-1], 2.0 * coarse)]
        chosen = wanted
    return tuple(Level(name, taps[name].stride, taps[name].channels, stride) for name, stride in chosen)


def _after(blocks: Sequence[str], share: float) -> str:
    return blocks[min(int(share * len(blocks) + 1e-6), len(blocks) - 1)]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """A norm over channels. group: at most 32 groups, which works with few pictures a step; batch: as F-ViT's."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels) if kind == "group" else nn.Identity()


def convolution(inner: int, outer: int, size: int, norm: Norm, *, is_active: bool = True) -> nn.Sequential:
    """A convolution, its norm and a ReLU; without a norm it has a bias."""
    layers: list[nn.Module] = [nn.Conv2d(inner, outer, size, padding=size // 2, bias=norm == "none")]
    if norm != "none":
        layers.append(make_norm(norm, outer))
    if is_active:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def tap_layer(level: Level, place: int, norm: Norm) -> nn.Module:
    """What turns a tap's map into one of its level's stride, channels kept. place: of the level, from 0."""
    ratio, width = level.tap_stride / level.stride, level.channels
    if ratio == 4:
        parts = [nn.ConvTranspose2d(width, width, 2, 2), make_norm(norm, width), nn.GELU()]
        return nn.Sequential(*parts, nn.ConvTranspose2d(width, width, 2, 2))
    if ratio == 2:
        return nn.ConvTranspose2d(width, width, 2, 2)
    if ratio == 0.5:
        return nn.MaxPool2d(2, 2)
    if ratio != 1:
        raise ConfigError(f"{level.tap}: its stride {level.tap_stride} cannot become {level.stride:g}; take other taps")
    if place == 0:
        parts = [nn.Conv2d(width, width, 3, padding=1), make_norm(norm, width), nn.GELU()]
        return nn.Sequential(*parts, nn.Conv2d(width, width, 3, padding=1))
    return nn.Conv2d(width, width, 3, padding=1) if place == 1 else nn.Identity()


class Neck(nn.Module):
    """Maps of taps in, a pyramid of one width out, from fine to coarse."""

    def __init__(self, levels: Sequence[Level], width: int, norm: Norm, *, has_extra: bool) -> None:
        """has_extra: one level more, every second cell of the coarsest, for proposals of the largest boxes."""
        super().__init__()
        self.levels, self.has_extra = tuple(levels), has_extra
        self.after_taps = nn.ModuleList(tap_layer(level, place, norm) for place, level in enumerate(levels))
        self.lateral = nn.ModuleList(
            convolution(level.channels, width, 1, norm, is_active=False) for level in self.levels
        )
        self.output = nn.ModuleList(convolution(width, width, 3, norm, is_active=False) for _ in self.levels)

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels a cell of each level."""
        own = tuple(level.stride for level in self.levels)
        return (*own, 2 * own[-1]) if self.has_extra else own

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        """maps: by tap, [B, channels, h, w]; returns [B, width, H/stride, W/stride] a level."""
        found = [
            lateral(layer(maps[level.tap]))
            for level, layer, lateral in zip(self.levels, self.after_taps, self.lateral, strict=True)
        ]
        for place in range(len(found) - 1, 0, -1):
            size = found[place - 1].shape[2:]
            found[place - 1] = found[place - 1] + F.interpolate(found[place], size=size, mode="nearest")
        found = [layer(one) for layer, one in zip(self.output, found, strict=True)]
        return [*found, found[-1][:, :, ::2, ::2]] if self.has_extra else found


def check_maps(levels: Sequence[Level], maps: Mapping[str, Tensor]) -> None:
    """Raise ConfigError where a level's tap is not among the maps, or has other channels."""
    for level in levels:
        if level.tap not in maps or maps[level.tap].shape[1] != level.channels:
            got = {name: value.shape[1] for name, value in maps.items()}
            raise ConfigError(f"taps: expected {level.tap} with {level.channels} channels, got {got}")


def finite(maps: Mapping[str, Tensor]) -> bool:
    """Whether all numbers are."""
    return all(bool(torch.isfinite(value).all()) for value in maps.values())
