"""Depthwise convolutions on [B, C, H, W] maps that also train fast on a CPU, with the numbers of nn.Conv2d.

Measured on one busy core (AVX-512, AMX; torch 2.13), batch 128, channels last, 7x7 on maps of 4 x 4 with 128 channels:
forward and backward take nn.Conv2d 84 ms in bfloat16 and 39 in fp32, mostly for the weight gradient; here 11 and 12.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.cpu_ops import depthwise

# up to how many cells all pairs of them are cheaper than torch's weight gradient of a wide kernel
SMALL_MAP_CELLS = 64
SMALL_MAP_CELLS_BF16 = 256


class DepthwiseConv(nn.Conv2d):
    """nn.Conv2d of as many groups as channels, square, padded so that stride 1 keeps the size."""

    def forward(self, input: Tensor) -> Tensor:
        if not (input.is_cpu and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return super().forward(input)
        if torch.is_autocast_enabled("cpu"):
            input = input.to(torch.get_autocast_dtype("cpu"))
        weight = self.weight.to(input.dtype)
        most = SMALL_MAP_CELLS_BF16 if input.dtype is torch.bfloat16 else SMALL_MAP_CELLS
        if self.stride[0] == 1 and self.kernel_size[0] > 3 and input.shape[2] * input.shape[3] <= most:
            y = _SmallMaps.apply(input, weight)
            return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]
        if self.kernel_size[0] == 3:
            return depthwise(input, weight, self.bias, self.stride[0])
        return super().forward(input)


def quicken_depthwise(module: nn.Module) -> None:
    """Make each convolution inside a DepthwiseConv that could be one and gains by it; parameters stay as they are."""
    for part in module.modules():
        if type(part) is not nn.Conv2d or not part.groups == part.in_channels == part.out_channels:
            continue
        side, stride = part.kernel_size[0], part.stride[0]
        is_square = part.kernel_size == (side, side) and part.padding == (side // 2, side // 2)
        is_plain = part.stride == (stride, stride) and part.dilation == (1, 1) and part.padding_mode == "zeros"
        if is_square and is_plain and ((side == 3 and stride == 2) or (side in (5, 7) and stride == 1)):
            part.__class__ = DepthwiseConv


class _SmallMaps(torch.autograd.Function):
    """Stride 1. The weight gradient of a tap sums over all pairs of cells so far apart, products over the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        _, channels, height, width = x.shape
        radius = weight.shape[-1] // 2
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = F.conv2d(grad, weight.flip(2, 3), padding=radius, groups=channels)
        if ctx.needs_input_grad[1]:
            cells = (value.permute(1, 2, 3, 0).flatten(1, 2) for value in (grad, x))  # each [C, H W, B]
            pairs = torch.bmm(next(cells), next(cells).mT).view(channels, height, width, height, width)
            offsets = range(-radius, radius + 1)
            rows = [_diagonal_sum(pairs, dy, 1, 3) for dy in offsets]  # each [C, W, W]
            taps = [torch.stack([_diagonal_sum(row, dx, 1, 2) for dx in offsets], dim=-1) for row in rows]
            grad_weight = torch.stack(taps, dim=1)[:, None].to(weight.dtype)  # [C, 1, K, K]
        return grad_x, grad_weight


def _diagonal_sum(values: Tensor, offset: int, first: int, second: int) -> Tensor:
    """Sums where the index of the second axis is that of the first plus `offset`; in fp32 or more."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return values.diagonal(offset, first, second).sum(-1, dtype=dtype)
