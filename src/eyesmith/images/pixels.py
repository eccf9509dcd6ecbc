"""The last step from bytes to numbers: 8-bit pixels to normalised floats, done inside a tower."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from eyesmith.errors import ShapeError

OPENAI_MEAN: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training set, RGB in 0..1
OPENAI_STD: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """8-bit pixels to (x / 255 - mean) / std; floating pixels pass through, they are normalised already.

    pixels: [B, 3, H, W] or [3, H, W], uint8 in 0..255 or any floating type. mean, std: one number a channel, for
    values in 0..1. Returns float32 of the same shape (memory order kept), or `pixels` itself when it is floating.
    Raises ShapeError on another integer type or a channel count that does not fit `mean`.
    Equals ToTensor followed by Normalize of open_clip bit for bit: the same three roundings in the same order.
    """
    if pixels.is_floating_point():
        return pixels
    if pixels.dtype != torch.uint8:
        raise ShapeError(f"pixels: expected uint8 or a floating type, got {pixels.dtype}")
    if pixels.ndim < 3 or pixels.shape[-3] != len(mean) or len(mean) != len(std):
        raise ShapeError(f"pixels: expected [..., {len(mean)}, H, W], got {list(pixels.shape)}")
    # a compiler sees constants, and tensors of another class (fakes, tracers) must not be kept
    column = _column if torch.compiler.is_compiling() or type(pixels) is not Tensor else _kept_column
    shift, scale = (column(tuple(values), pixels.device) for values in (mean, std))
    return pixels.to(torch.float32).div_(255).sub_(shift).div_(scale)


def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[C, 1, 1] fp32."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)


@lru_cache(maxsize=64)
def _kept_column(values: tuple[float, ...], device: torch.device) -> Tensor:
    # a new one each step would be a copy to the device, which the host waits for
    with torch.inference_mode(False):
        return _column(values, device)
