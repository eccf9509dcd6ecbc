"""What a mask decoder is: maps of a frozen encoder in, queries with a mask each out. It never holds the encoder."""

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from eyesmith.models.encoder import Tap


class MaskMaps(NamedTuple):
    """What a decoder says, a list entry a layer, the last one being its answer.

    queries: normed, [B, Q, C] each. masks: logits [B, Q, h, w]. features: the maps [B, C, h, w] that the masks are
    products with.
    """

    queries: list[Tensor]
    masks: list[Tensor]
    features: list[Tensor]


class MaskDecoder(Protocol):
    """A module that is called with maps by tap name, [B, channels, H/stride, W/stride] each."""

    width: int
    num_queries: int
    taps: Mapping[str, Tap]

    def __call__(self, maps: Mapping[str, Tensor]) -> MaskMaps: ...

    def macs(self, side_px: int) -> float:
        """Multiply-adds for one picture of a side, forward: products and convolutions count, sampling does not."""
        ...


def sine_positions(height: int, width: int, channels: int, *, device: torch.device | None = None) -> Tensor:
    """[H, W, C] fp32: sines and cosines of the relative row in the first half, of the column in the second.

    Rows and columns run from 0 to 2 pi whatever their number, so that positions fit any size. Source: DETR (arXiv
    2005.12872), with its temperature of 10,000.
    """
    quarter = channels // 4
    wave = 10_000 ** (-torch.arange(quarter, device=device) / quarter)  # [C/4]

    def axis(count: int) -> Tensor:
        angles = (torch.arange(count, device=device) + 1)[:, None] / count * 2 * math.pi * wave
        return torch.cat([angles.sin(), angles.cos()], 1)  # [count, C/2]

    rows, columns = axis(height)[:, None], axis(width)[None]
    return torch.cat([rows.expand(-1, width, -1), columns.expand(height, -1, -1)], 2)
