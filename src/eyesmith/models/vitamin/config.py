"""Sizes of the ViTamin image encoder (CVPR 2024, table 1; exact widths from the released configurations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from eyesmith.errors import ConfigError

if TYPE_CHECKING:
    from eyesmith.models.vitamin.model import ViTamin

STRIDE = 16  # input pixels per token of every released model, the product of four stride-2 steps

Convolution = Literal["ln", "bn_se"]
Ffn = Literal["geglu", "mlp"]


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
    convolution: Convolution = "ln"
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
        for name, kinds in (("convolution", Convolution), ("ffn", Ffn)):
            if getattr(self, name) not in get_args(kinds):
                raise ConfigError(f"{name}: expected {' or '.join(get_args(kinds))}, got {getattr(self, name)!r}")

    @property
    def has_released_parts(self) -> bool:
        """Whether its blocks and stride are those of the released models, so that their file layouts can hold it."""
        return (self.convolution, self.ffn, self.stride) == ("ln", "geglu", STRIDE)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    def build(self) -> ViTamin:
        """A new encoder with the reference's random initialisation."""
        from eyesmith.models.vitamin.model import ViTamin

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
"""Image encoders by size; the CLIP models in `models.registry` pair them with a text tower."""
