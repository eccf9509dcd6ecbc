"""ViTamin: two stages of MBConv-LN, one stage of transformer blocks with GeGLU (CVPR 2024, arXiv 2404.02132).

Exact to the released models (timm `vitamin_*`), with two changes that leave the mathematics alone: the convolution
stages run on [B, H, W, C] maps, so that LayerNorm and 1x1 convolutions need no layout change and the tokens are a view;
and the two input products of the GeGLU are one matrix.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.cpu_ops import attend, depthwise, depthwise_gelu
from eyesmith.models.drop_path import DropPath
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.linear import Linear, can_fuse
from eyesmith.models.position import resize_position_table
from eyesmith.models.vitamin.ablations import MBConvBnSe, Mlp
from eyesmith.models.vitamin.config import Ffn, ViTaminConfig

EPS = 1e-6  # every LayerNorm of the image tower
CACHED_BYTES = 16 * 2**20  # of the widest map of the convolution stages, on a CPU without gradient


class ChannelsLastConv(nn.Conv2d):
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
        x = self.expand(self.norm(x), gelu=True)
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
            x = self.gate_value(x, part=1, times=self.gate_value(x, part=0, gelu=True))
        else:
            gate, value = self.gate_value(x).chunk(2, dim=-1)
            x = F.gelu(gate) * value
        return self.out(x, plus=plus)


class Block(nn.Module):
    """Pre-norm transformer block. The released models norm twice before the GeGLU: here and inside it."""

    def __init__(self, width: int, num_heads: int, drop_path_prob: float, ffn: Ffn = "geglu") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = GeGLU(width) if ffn == "geglu" else Mlp(width, EPS)
        self.drop1, self.drop2 = DropPath(drop_path_prob), DropPath(drop_path_prob)

    def forward(self, x: Tensor) -> Tensor:
        if can_fuse(x, self.attention.out.weight) and not self.training:
            x = self.attention(self.norm1(x), plus=x)
            return self.mlp(self.norm2(x), plus=x)
        x = x + self.drop1(self.attention(self.norm1(x)))
        return x + self.drop2(self.mlp(self.norm2(x)))


class ViTamin(Encoder):
    """The ViTamin encoder. `forward` gives the mean of all tokens, normed and projected: [B, embed_dim]."""

    def __init__(self, config: ViTaminConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, width = config.widths
        self.image_size = config.image_size
        self.mean, self.std = OPENAI_MEAN, OPENAI_STD
        self.stride = config.stride
        self.embed_dim = config.embed_dim or width
        self.taps = {"stage1": Tap(4, c1), "stage2": Tap(8, c2), "stage3": Tap(config.stride, width)}

        self.stem = Stem(c1)
        block = MBConv if config.convolution == "ln" else MBConvBnSe
        self.stage1 = nn.Sequential(*(block(c1, c1, 1 if i else 2) for i in range(config.depths[0])))
        self.stage2 = nn.Sequential(*(block(c2 if i else c1, c2, 1 if i else 2) for i in range(config.depths[1])))
        self.transition = Transition(c2, width, config.stride // 8)
        self.position = nn.Parameter(torch.zeros(1, self._num_tokens(), width)) if config.has_position else None
        rates = [config.drop_path_prob * i / max(config.depths[2] - 1, 1) for i in range(config.depths[2])]
        self.stage3 = nn.ModuleList(Block(width, config.num_heads, rate, config.ffn) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, config.embed_dim, bias=False) if config.embed_dim else nn.Identity()
        self._initialise()

    def _num_tokens(self) -> int:
        return math.prod(self.config.grid)

    @torch.no_grad()
    def _initialise(self) -> None:
        # the reference leaves `transition.conv` and the CLIP head at PyTorch's default
        def spread(weight: Tensor, bias: Tensor | None, fan_out: int) -> None:
            nn.init.normal_(weight, std=(2 / fan_out) ** 0.5)
            if bias is not None:
                nn.init.zeros_(bias)

        for conv in (self.stem.conv1, self.stem.conv2):
            spread(conv.weight, conv.bias, 9 * conv.out_channels)
        for block in (*self.stage1, *self.stage2):
            if isinstance(block, MBConvBnSe):
                block.initialise()
                continue
            assert isinstance(block, MBConv)
            spread(block.depthwise.weight, block.depthwise.bias, 9)
            for linear in (block.expand, block.reduce, block.shortcut):
                if linear is not None:
                    spread(linear.weight, linear.bias, linear.out_features)
        for module in self.stage3.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.position is not None:
            nn.init.trunc_normal_(self.position, std=0.02)

    def _convolve(self, pixels: Tensor) -> dict[str, Tensor]:
        """Maps [B, h, w, C] of the two convolution stages and the tokens' grid before the transformer."""
        pixels = self.prepare(pixels).contiguous(memory_format=torch.channels_last)
        is_of_batch = self.training and self.config.convolution == "bn_se"  # its norms see the batch as a whole
        if is_of_batch or not can_fuse(pixels, self.stem.conv1.weight):
            return self._convolve_batch(pixels)
        # a few images at a time, so that the widest map stays in the cache and in memory that malloc keeps
        image_bytes = 4 * self.config.widths[0] * pixels[0, 0].numel() // 4 * pixels.element_size()
        parts = [self._convolve_batch(part) for part in pixels.split(max(1, CACHED_BYTES // image_bytes))]
        return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _convolve_batch(self, pixels: Tensor) -> dict[str, Tensor]:
        stage1 = self.stage1(self.stem(pixels.permute(0, 2, 3, 1)))  # [B, H/4, W/4, C1]
        stage2 = self.stage2(stage1)  # [B, H/8, W/8, C2]
        # grid: [B, H/stride, W/stride, C]
        return {"stage1": stage1, "stage2": stage2, "grid": self.transition(stage2)}

    def _transform(self, grid: Tensor, num_blocks: int) -> Tensor:
        x = grid.flatten(1, 2)  # [B, N, C]
        if self.position is not None:
            x = x + self.position
        for block in self.stage3[:num_blocks]:
            x = block(x)
        return x

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self._transform(self._convolve(pixels)["grid"], len(self.stage3))
        return self.project(tokens.mean(dim=1))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        maps = self._convolve(pixels)
        grid = maps.pop("grid")
        if "stage3" in names:
            maps["stage3"] = self._transform(grid, len(self.stage3)).view(grid.shape)
        return {name: maps[name].permute(0, 3, 1, 2) for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        return self.pyramid(pixels, ("stage3",))["stage3"]

    def project(self, vectors: Tensor) -> Tensor:
        return self.head(self.norm(vectors))

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        num_blocks = 1 + self.check_layer(layer, len(self.stage3))
        return self._transform(self._convolve(pixels)["grid"], num_blocks)

    def set_image_size(self, height: int, width: int) -> None:
        """Change the input size; the position table is resampled (bicubic, antialiased). XL needs none."""
        self.check_size(height, width)
        config = replace(self.config, image_size=(height, width))
        if self.position is not None:
            table = resize_position_table(self.position.data, self.config.grid, config.grid)
            self.position = nn.Parameter(table, requires_grad=self.position.requires_grad)
        self.config, self.image_size = config, config.image_size

    def blocks(self) -> list[nn.Module]:
        return [self.stem, *self.stage1, *self.stage2, self.transition, *self.stage3]
