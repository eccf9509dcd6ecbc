"""Operations whose torch kernels are pathologically slow when training on a CPU, or wrong, in a form that is not.

Measured on 2 cores (AVX-512, AMX; torch 2.13), batch 128:
- the input gradient of a stride-2 depthwise 3x3 convolution in bfloat16 takes 250 to 350 ms on 48-px images; here 10 to
  20;
- a depthwise 7x7 on maps of 4 x 4 with 128 channels, channels last, takes 84 ms forward and backward in bfloat16 and 39
  in fp32 (on one core), mostly for the weight gradient; here 11 and 12;
- fused attention over 9 tokens takes 49 ms forward and backward; as plain products 3.
All give the same numbers within rounding; on other devices, and for inference, torch's own operation runs.

Wrong is a convolution in bfloat16 whose output is one cell wide: on processors with AVX-512's or AMX's bfloat16 its
weight gradient is garbage (1e20, NaN), now and then its result (torch 2.13; docs/log.md has counts). They are
computed in fp32 here: `Conv`, and what is built on it.
"""

from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT_SEQUENCE_LEN = 64  # tokens up to which plain products win when training on a CPU
# of inference in bfloat16 with AVX-512 and without AMX: tokens from which products win, and scores held at once
PRODUCT_TOKENS = 48
SCORE_BYTES = 8 * 2**20
# up to how many cells all pairs of them are cheaper than torch's weight gradient of a wide kernel
SMALL_MAP_CELLS = 64
SMALL_MAP_CELLS_BF16 = 256


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """Softmax attention without a mask. q, k, v: [B, heads, N, C/heads], any float dtype; returns the shape of q.

    scale: of the scores, None for 1 / sqrt(C/heads).
    """
    factor: float = q.shape[-1] ** -0.5 if scale is None else scale
    if q.device.type == "cpu" and q.requires_grad and q.shape[-2] <= SHORT_SEQUENCE_LEN:
        weights = (q * factor @ k.mT).softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
        return weights.to(v.dtype) @ v
    if _are_products_faster(q):  # first, so that nothing is asked of sizes that a tracer keeps open
        score_bytes = q.shape[1] * q.shape[2] * k.shape[2] * q.element_size()  # of one image
        if q.shape[2] >= PRODUCT_TOKENS and score_bytes <= SCORE_BYTES:
            return _attend_by_products(q, k, v, factor, SCORE_BYTES // score_bytes)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _are_products_faster(q: Tensor) -> bool:
    """Whether torch's fused kernel is slower than two products here.

    In bfloat16 it is made for AMX: with AVX-512 alone, 12 heads of 64 and 100 to 577 tokens, it takes 1.9 to 2.8 times
    as long.
    """
    return (
        not torch.compiler.is_compiling()  # before any question to the processor, which a tracer cannot follow
        and not torch.is_grad_enabled()
        and q.device.type == "cpu"
        and q.dtype == torch.bfloat16
        and type(q) is Tensor
        and not torch.is_autocast_enabled("cpu")
        and torch.cpu._is_avx512_bf16_supported()
        and not torch.cpu._is_amx_tile_supported()
    )


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, scale: float, num_images: int) -> Tensor:
    """Attention some images at a time. Scores are rounded to bfloat16, as in torch's nn.MultiheadAttention."""
    batch, heads, tokens, width = q.shape
    result = q.new_empty(batch, tokens, heads, width)  # the order in which heads are joined
    for first in range(0, batch, num_images):
        rows = slice(first, first + num_images)
        queries, keys, values = (part[rows].flatten(0, 1) for part in (q, k, v))  # [B heads, N, C/heads]
        weights = torch.bmm(queries * scale, keys.mT)
        torch.softmax(weights, dim=-1, out=weights)
        result[rows] = torch.bmm(weights, values).view(-1, heads, tokens, width).transpose(1, 2)
    return result.transpose(1, 2)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Depthwise 3x3 convolution with padding 1. x: [B, C, H, W] (channels last is fast); weight: [C, 1, 3, 3]."""
    if x.shape[3] <= stride and _is_bfloat16_on_cpu(x):
        return _in_fp32(x, weight, bias, (stride, stride), (1, 1), (1, 1), x.shape[1])
    if stride == 2 and x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.requires_grad:
        y = _StridedDepthwise.apply(x, weight.to(x.dtype))
        return y if bias is None else y + bias.to(x.dtype)[:, None, None]
    return F.conv2d(x, weight, bias, stride=stride, padding=1, groups=x.shape[1])


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """gelu(depthwise(...)) in one kernel of oneDNN; only where `linear.can_fuse` says so."""
    args = ([1, 1], [stride, stride], [1, 1], x.shape[1], "gelu", [], "none")
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *args)


class Conv(nn.Conv2d):
    """nn.Conv2d that is right in bfloat16 on a CPU when its output is one cell wide too."""

    def forward(self, input: Tensor) -> Tensor:
        if self.is_misjudged(input):
            assert not isinstance(self.padding, str)
            return _in_fp32(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return super().forward(input)

    def is_misjudged(self, input: Tensor) -> bool:
        """Whether torch would get this convolution wrong."""
        if not _is_bfloat16_on_cpu(input) or self.kernel_size[1] == 1:
            return False
        if isinstance(self.padding, str) or self.padding_mode != "zeros":
            return False
        reach = self.dilation[1] * (self.kernel_size[1] - 1) + 1
        return 0 <= input.shape[3] + 2 * self.padding[1] - reach < self.stride[1]

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """One with the parameters and the settings of a convolution."""
        with torch.device("meta"):  # draws nothing
            made = cls(
                conv.in_channels,
                conv.out_channels,
                cast(tuple[int, int], conv.kernel_size),
                cast(tuple[int, int], conv.stride),
                cast(tuple[int, int], conv.padding),
                cast(tuple[int, int], conv.dilation),
                conv.groups,
                bias=conv.bias is not None,
                padding_mode=conv.padding_mode,  # pyright: ignore[reportArgumentType]
            )
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)


class DepthwiseConv(Conv):
    """nn.Conv2d of as many groups as channels, square, padded so that stride 1 keeps the size."""

    def forward(self, input: Tensor) -> Tensor:
        if self.is_misjudged(input) or not (input.is_cpu and torch.is_grad_enabled()) or torch.compiler.is_compiling():
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


def replace_convolutions(module: nn.Module) -> None:
    """Put a DepthwiseConv in the place of each plain convolution inside that gains by it, a Conv in that of the others.

    It takes over the parameters themselves; names, numbers and torch's random state stay as they are.
    """
    for parent in list(module.modules()):
        for name, part in parent.named_children():
            if type(part) is nn.Conv2d:
                setattr(parent, name, (DepthwiseConv if _gains(part) else Conv).of(part))


def _gains(part: nn.Conv2d) -> bool:
    if not part.groups == part.in_channels == part.out_channels:
        return False
    side, stride = part.kernel_size[0], part.stride[0]
    is_square = part.kernel_size == (side, side) and part.padding == (side // 2, side // 2)
    is_plain = part.stride == (stride, stride) and part.dilation == (1, 1) and part.padding_mode == "zeros"
    return is_square and is_plain and ((side == 3 and stride == 2) or (side in (5, 7) and stride == 1))


def _is_bfloat16_on_cpu(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or not x.is_cpu:
        return False
    return (torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype) is torch.bfloat16


def _in_fp32(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """F.conv2d computed in fp32, its result in bfloat16."""
    with torch.autocast("cpu", enabled=False):
        y = F.conv2d(
            x.float(), weight.float(), None if bias is None else bias.float(), stride, padding, dilation, groups
        )
    return y.bfloat16()


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
