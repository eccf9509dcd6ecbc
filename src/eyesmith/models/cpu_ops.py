"""Two operations whose torch kernels are pathologically slow when training on a CPU, in a form that is not.

Measured on 2 cores (AVX-512, AMX; torch 2.13), batch 128 of 48-px images:
- the input gradient of a stride-2 depthwise 3x3 convolution in bfloat16 takes 250 to 350 ms; here 10 to 20;
- fused attention over 9 tokens takes 49 ms forward and backward; as plain products 3.
Both give the same numbers within rounding; on other devices, and for inference, torch's own operation runs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT_SEQUENCE_LEN = 64  # tokens up to which plain products win on a CPU


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask. q, k, v: [B, heads, N, C/heads], any float dtype; returns the same shape."""
    if q.device.type == "cpu" and q.requires_grad and q.shape[-2] <= SHORT_SEQUENCE_LEN:
        weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
        return weights.to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Depthwise 3x3 convolution with padding 1. x: [B, C, H, W] (channels last is fast); weight: [C, 1, 3, 3]."""
    if stride == 2 and x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.requires_grad:
        y = _StridedDepthwise.apply(x, weight.to(x.dtype))
        return y if bias is None else y + bias.to(x.dtype)[:, None, None]
    return F.conv2d(x, weight, bias, stride=stride, padding=1, groups=x.shape[1])


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """gelu(depthwise(...)) in one kernel of oneDNN; only where `linear.can_fuse` says so."""
    args = ([1, 1], [stride, stride], [1, 1], x.shape[1], "gelu", [], "none")
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *args)


class _StridedDepthwise(torch.autograd.Function):
    """The input gradient of a stride-2 convolution is a stride-1 convolution of the spread-out output gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, stride=2, padding=1, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        channels = x.shape[1]
        spread = torch.zeros_like(x)
        spread[:, :, ::2, ::2] = grad
        grad_x = F.conv2d(spread, weight.flip(2, 3), padding=1, groups=channels)
        grad_weight = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], channels, [False, True, False]
        )[1]
        return grad_x, grad_weight
