"""The parts of a ViTamin, and those that replace two of them so that each choice can be measured.

The convolution stages run on [B, H, W, C] maps. No released model has `MBConvBnSe` or `Mlp`.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.cpu_ops import Conv, DepthwiseConv, attend, depthwise, depthwise_gelu
from eyesmith.models.drop_path import DropPath
from eyesmith.models.linear import Linear, can_fuse

Ffn = Literal["geglu", "mlp"]

EPS = 1e-6  # every LayerNorm of the image tower
BATCH_NORM_EPS = 1e-5


class ChannelsLastConv(Conv):
    """A convolution on [B, H, W, C] maps; the transposes are views of a channels-last tensor."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Depthwise(nn.Module):
    """A depthwise 3x3 convolution on [B, H, W, C] maps."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(dim, 1, 3, 3))
        self.bias = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        if gelu and can_fuse(x, self.weight):
            return depthwise_gelu(x, self.weight, self.bias, self.stride).permute(0, 2, 3, 1)
        y = depthwise(x, self.weight, self.bias, self.stride).permute(0, 2, 3, 1)
        return F.gelu(y) if gelu else y


class Stem(nn.Module):
    """Two 3x3 convolutions, the first with stride 2; LayerNorm and GELU between them, nothing after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ChannelsLastConv(3, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.conv2 = ChannelsLastConv(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.norm(self.conv1(x))))  # [B, H/2, W/2, C]


class MBConv(nn.Module):
    """Inverted bottleneck with one LayerNorm in front: expand 4x (of the channels out), depthwise 3x3, reduce.

    The shortcut comes from the raw input; with stride 2 it is average-pooled (3x3, padding not counted) and, where the
    width changes, projected.
    """

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * dim_out
        self.stride = stride
        self.norm = nn.LayerNorm(dim_in, eps=EPS)
        self.expand = Linear(dim_in, hidden)
        self.depthwise = Depthwise(hidden, stride)
        self.reduce = Linear(hidden, dim_out)
        self.shortcut = Linear(dim_in, dim_out) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        if self.stride == 2:
            pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=2, padding=1, count_include_pad=False)
            kept = pooled.permute(0, 2, 3, 1)
        if self.shortcut is not None:
            kept = self.shortcut(kept)
        x = self.expand(self.norm(x), act="gelu")
        x = self.depthwise(x, gelu=True)
        return self.reduce(x, plus=kept)


class Transition(nn.Module):
    """LayerNorm and a 3x3 stride-2 convolution, from stage 2 to the width of the transformer.

    step: cells of stage 2 per token; 1 takes the stride away, 4 averages the result 2x2.
    """

    def __init__(self, dim_in: int, dim_out: int, step: int = 2) -> None:
        super().__init__()
        self.step = step
        self.norm = nn.LayerNorm(dim_in, eps=EPS)
        self.conv = ChannelsLastConv(dim_in, dim_out, 3, stride=min(step, 2), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.norm(x))
        return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) if self.step == 4 else x


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, C/heads]
        x = attend(q, k, v)
        return self.out(x.transpose(1, 2).reshape(batch, tokens, width), plus=plus)


class GeGLU(nn.Module):
    """LayerNorm, then GELU(gate) * value, both of width 2C, then back to C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 2 * width
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.gate_value = Linear(width, 2 * hidden, num_parts=2)  # rows [gate | value]
        self.out = Linear(hidden, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        if can_fuse(x, self.gate_value.weight):
            x = self.gate_value(x, part=1, times=self.gate_value(x, part=0, act="gelu"))
        else:
            gate, value = self.gate_value(x).chunk(2, dim=-1)
            x = F.gelu(gate) * value
        return self.out(x, plus=plus)


class Mlp(nn.Module):
    """In the place of GeGLU with as many products: LayerNorm, 3C channels, GELU, back to C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.expand = Linear(width, 3 * width)
        self.out = Linear(3 * width, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        return self.out(self.expand(self.norm(x), act="gelu"), plus=plus)


class Block(nn.Module):
    """Pre-norm transformer block. The released models norm twice before the GeGLU: here and inside it."""

    def __init__(self, width: int, num_heads: int, drop_path_prob: float, ffn: Ffn = "geglu") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = GeGLU(width) if ffn == "geglu" else Mlp(width)
        self.drop1, self.drop2 = DropPath(drop_path_prob), DropPath(drop_path_prob)

    def forward(self, x: Tensor) -> Tensor:
        if can_fuse(x, self.attention.out.weight) and not self.training:
            x = self.attention(self.norm1(x), plus=x)
            return self.mlp(self.norm2(x), plus=x)
        x = x + self.drop1(self.attention(self.norm1(x)))
        return x + self.drop2(self.mlp(self.norm2(x)))


class MBConvBnSe(nn.Module):
    """CoAtNet's MBConv on [B, H, W, C] maps: BatchNorm in four places, and squeeze-excitation before the reduction.

    Norm, expand 4x (of the channels out), norm, GELU, depthwise 3x3, norm, GELU, squeeze-excitation, reduce. The
    shortcut is that of MBConv-LN. Numbers are those of timm's MbConvBlock with pool_type="avg". While training, a
    sample's result depends on the others of its batch.
    """

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * dim_out
        self.stride = stride
        self.norm = nn.BatchNorm2d(dim_in, eps=BATCH_NORM_EPS)
        self.expand = nn.Conv2d(dim_in, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS)
        self.depthwise = DepthwiseConv(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS)
        self.excite = SqueezeExcite(hidden, dim_out // 4)
        self.reduce = nn.Conv2d(hidden, dim_out, 1)
        self.shortcut = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)  # [B, C, H, W], channels last in memory
        kept = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False) if self.stride == 2 else x
        if self.shortcut is not None:
            kept = self.shortcut(kept)
        x = F.gelu(self.expand_norm(self.expand(self.norm(x))))
        x = F.gelu(self.depthwise_norm(self.depthwise(x)))
        return (kept + self.reduce(self.excite(x))).permute(0, 2, 3, 1)

    @torch.no_grad()
    def initialise(self) -> None:
        """As the convolutions of MBConv-LN: normal, variance 2 / fan-out, biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] ** 2 // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class SqueezeExcite(nn.Module):
    """Each channel times a number in 0..1 that a small network finds from all channels' means. x: [B, C, H, W]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(dim, hidden, 1)
        self.excite = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
