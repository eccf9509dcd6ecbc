"""ViTamin: two stages of MBConv-LN, one stage of transformer blocks with GeGLU (CVPR 2024, arXiv 2404.02132).

Exact to the released models (timm `vitamin_*`), with two changes that leave the mathematics alone: the convolution
stages run on [B, H, W, C] maps, so that LayerNorm and 1x1 convolutions need no layout change and the tokens are a view;
and the two input products of the GeGLU are one matrix. Sizes: table 1, exact widths from the released configurations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from eyesmith.config import check_choices
from eyesmith.errors import ConfigError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.linear import can_fuse
from eyesmith.models.position import resize_position_table
from eyesmith.models.vitamin.blocks import EPS, Block, Ffn, MBConv, MBConvBnSe, Stem, Transition

STRIDE = 16  # input pixels per token of every released model, the product of four stride-2 steps
CACHED_BYTES = 16 * 2**20  # of the widest map of the convolution stages, on a CPU without gradient


@dataclass(frozen=True, kw_only=True)
class ViTaminConfig:
    """One ViTamin encoder: a stem, two MBConv-LN stages and one transformer stage."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the input, pixels; multiples of the stride."""
    widths: tuple[int, int, int]
    """Channels of stage 1 (and the stem), stage 2 and the transformer."""
    depths: tuple[int, int, int]
    """Blocks in stage 1, stage 2 and the transformer."""
    num_heads: int
    """Attention heads of the transformer; must divide its width."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then widths[2] wide)."""
    has_position: bool = True
    """Whether a learned position table is added to the tokens. XL has none."""
    drop_path_prob: float = 0.1
    """Stochastic depth of the last transformer block; rises linearly from 0 at the first."""
    convolution: Literal["ln", "bn_se"] = "ln"
    """Blocks of stages 1 and 2: MBConv-LN, or CoAtNet's MBConv with BatchNorm and squeeze-excitation."""
    ffn: Ffn = "geglu"
    """Network of the transformer blocks: GeGLU 2C wide, or a GELU MLP 3C wide, which is as large."""
    stride: int = STRIDE
    """Pixels per token, 8, 16 or 32. Stages 1 and 2 stay as they are: at 8 the convolution before the transformer does
    not step, at 32 its cells are averaged 2x2."""

    def __post_init__(self) -> None:
        if self.stride not in (8, 16, 32):
            raise ConfigError(f"stride: expected 8, 16 or 32, got {self.stride}")
        if any(side <= 0 or side % self.stride for side in self.image_size):
            raise ConfigError(f"image_size: expected multiples of {self.stride}, got {self.image_size}")
        if min(*self.widths, *self.depths, self.num_heads) < 1:
            raise ConfigError(f"widths, depths and num_heads must be positive, got {self}")
        if self.widths[2] % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide the width {self.widths[2]}")
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")
        if not 0 <= self.drop_path_prob < 1:
            raise ConfigError(f"drop_path_prob: expected 0 <= p < 1, got {self.drop_path_prob}")
        check_choices(self)

    @property
    def has_released_parts(self) -> bool:
        """Whether its blocks and stride are those of the released models, so that their file layouts can hold it."""
        return (self.convolution, self.ffn, self.stride) == ("ln", "geglu", STRIDE)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @property
    def num_blocks(self) -> int:
        """Transformer blocks, which are all alike."""
        return self.depths[2]

    def with_blocks(self, num_blocks: int) -> "ViTaminConfig":
        """The same encoder with another number of transformer blocks."""
        return replace(self, depths=(*self.depths[:2], num_blocks))

    def build(self) -> "ViTamin":
        """A new encoder with the reference's random initialisation."""
        return ViTamin(self)


VITAMIN: dict[str, ViTaminConfig] = {
    # ours, by the paper's scaling rule (C, 2C, 6C) with 2/4/N blocks: C = 32, N = 6
    "nano": ViTaminConfig(image_size=(48, 48), widths=(32, 64, 192), depths=(2, 4, 6), num_heads=3, embed_dim=256),
    "small": ViTaminConfig(widths=(64, 128, 384), depths=(2, 4, 14), num_heads=6, embed_dim=384),
    "base": ViTaminConfig(widths=(128, 256, 768), depths=(2, 4, 14), num_heads=12, embed_dim=512),
    "large": ViTaminConfig(widths=(160, 320, 1024), depths=(2, 4, 31), num_heads=16, embed_dim=768),
    "xlarge": ViTaminConfig(
        image_size=(256, 256),
        widths=(192, 384, 1152),
        depths=(2, 4, 32),
        num_heads=16,
        embed_dim=1152,
        has_position=False,
    ),
}
"""Image encoders by size."""


def _sized(size: str, embed_dim: int, side_px: int) -> ViTaminConfig:
    return replace(VITAMIN[size], embed_dim=embed_dim, image_size=(side_px, side_px))


PAIRS: dict[str, tuple[ViTaminConfig, str]] = {
    "ViTamin-S": (_sized("small", 384, 224), "small"),
    "ViTamin-S-LTT": (_sized("small", 768, 224), "large"),
    "ViTamin-B": (_sized("base", 512, 224), "base"),
    "ViTamin-B-LTT": (_sized("base", 768, 224), "large"),
    "ViTamin-L": (_sized("large", 768, 224), "large"),
    "ViTamin-L-256": (_sized("large", 768, 256), "large"),
    "ViTamin-L-336": (_sized("large", 768, 336), "large"),
    "ViTamin-L-384": (_sized("large", 768, 384), "large"),
    "ViTamin-L2": (_sized("large", 1024, 224), "large2"),
    "ViTamin-L2-256": (_sized("large", 1024, 256), "large2"),
    "ViTamin-L2-336": (_sized("large", 1024, 336), "large2"),
    "ViTamin-L2-384": (_sized("large", 1024, 384), "large2"),
    "ViTamin-XL-256": (_sized("xlarge", 1152, 256), "xlarge"),
    "ViTamin-XL-336": (_sized("xlarge", 1152, 336), "xlarge"),
    "ViTamin-XL-384": (_sized("xlarge", 1152, 384), "xlarge"),
    "ViTamin-Nano": (_sized("nano", 256, 48), "nano"),
}
"""Image-text models by OpenCLIP's name: the image tower, and the size of the text tower (text.model.CLIP_TEXT).

The size in a name is the size the model runs at, also where a source says otherwise."""

ENCODERS: dict[str, ViTaminConfig] = {
    f"vitamin_{timm}": PAIRS[pair][0]
    for timm, pair in {
        "small_224": "ViTamin-S",
        "base_224": "ViTamin-B",
        "large_224": "ViTamin-L",
        "large_256": "ViTamin-L-256",
        "large_336": "ViTamin-L-336",
        "large_384": "ViTamin-L-384",
        "large2_224": "ViTamin-L2",
        "large2_256": "ViTamin-L2-256",
        "large2_336": "ViTamin-L2-336",
        "large2_384": "ViTamin-L2-384",
        "xlarge_256": "ViTamin-XL-256",
        "xlarge_336": "ViTamin-XL-336",
        "xlarge_384": "ViTamin-XL-384",
        "nano_48": "ViTamin-Nano",
    }.items()
}
"""Image encoders by timm's name, with the projection of the pair; large2 has large's trunk."""

ALIASES = {
    "ViTamin-S-T768": "ViTamin-S-LTT",
    "ViTamin-B-T768": "ViTamin-B-LTT",
    "vitamin_small": "vitamin_small_224",
    "vitamin_base": "vitamin_base_224",
    "vitamin_large": "vitamin_large_224",
}
"""What the authors' own repository calls them."""


class ViTamin(Encoder):
    """The ViTamin encoder. `forward` gives the mean of all tokens, normed and projected: [B, embed_dim]."""

    takes_other_sizes = True

    def __init__(self, config: ViTaminConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, width = config.widths
        self.image_size = config.image_size
        self.mean, self.std = OPENAI_MEAN, OPENAI_STD
        self.stride = config.stride
        self.embed_dim = config.embed_dim or width
        self.taps = {"stage1": Tap(4, c1), "stage2": Tap(8, c2)}
        if config.depths[2] > 1:
            self.half_tap = "stage3_half"
            self.taps[self.half_tap] = Tap(config.stride, width)
        self.taps["stage3"] = Tap(config.stride, width)

        self.stem = Stem(c1)
        block = MBConv if config.convolution == "ln" else MBConvBnSe
        self.stage1 = nn.Sequential(*(block(c1, c1, 1 if i else 2) for i in range(config.depths[0])))
        self.stage2 = nn.Sequential(*(block(c2 if i else c1, c2, 1 if i else 2) for i in range(config.depths[1])))
        self.transition = Transition(c2, width, config.stride // 8)
        self.position = nn.Parameter(torch.zeros(1, math.prod(config.grid), width)) if config.has_position else None
        rates = [config.drop_path_prob * i / max(config.depths[2] - 1, 1) for i in range(config.depths[2])]
        self.stage3 = nn.ModuleList(Block(width, config.num_heads, rate, config.ffn) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, config.embed_dim, bias=False) if config.embed_dim else nn.Identity()
        self._initialise()

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

    def _place(self, grid: Tensor) -> Tensor:
        x = grid.flatten(1, 2)  # [B, N, C]
        if self.position is None:
            return x
        if self._seen is None:
            return x + self.position
        return x + resize_position_table(self.position, self.config.grid, (grid.shape[1], grid.shape[2]))

    def _transform(self, grid: Tensor, num_blocks: int) -> Tensor:
        x = self._place(grid)
        for block in self.stage3[:num_blocks]:
            x = block(x)
        return x

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self._transform(self._convolve(pixels)["grid"], len(self.stage3))
        return self.project(tokens.mean(dim=1))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        maps = self._convolve(pixels)
        grid, half = maps.pop("grid"), len(self.stage3) // 2
        if "stage3" in names or "stage3_half" in names:
            x = self._place(grid)
            for depth, block in enumerate(self.stage3[: None if "stage3" in names else half], 1):
                x = block(x)
                if depth == half:
                    maps["stage3_half"] = x.view(grid.shape)
            maps["stage3"] = x.view(grid.shape)
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
