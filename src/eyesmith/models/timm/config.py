"""A timm backbone by name, with the few fields that make a small one of the same family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eyesmith.errors import ConfigError
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD

if TYPE_CHECKING:
    from eyesmith.models.timm.model import TimmEncoder


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """An image encoder from timm, with random weights and a linear head without bias."""

    model_name: str
    """timm's name of the architecture, such as vit_small_patch16_224, convnext_atto or coatnet_0_224."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width of the input, pixels; multiples of the backbone's stride."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then the backbone's)."""
    pooling: Literal["default", "mean", "token"] = "default"
    """How tokens or cells become one vector: mean, class token, or what the architecture does."""
    drop_path_prob: float = 0.0
    """Stochastic depth of the last block, by timm's rule for the family."""
    widths: tuple[int, ...] = ()
    """Channels of each stage (one number for a ViT); () keeps the architecture's."""
    depths: tuple[int, ...] = ()
    """Blocks in each stage (one number for a ViT); () keeps the architecture's."""
    num_heads: int = 0
    """Attention heads of a ViT; 0 keeps the architecture's."""
    stem_width: int = 0
    """Channels of a CoAtNet's or MaxViT's stem; 0 keeps the architecture's."""
    head_dim: int = 0
    """Channels of each attention head of a CoAtNet or MaxViT; 0 keeps the architecture's, 32."""
    pooled_dim: int = 0
    """Channels of the hidden layer after the pooling of a CoAtNet or MaxViT; 0 keeps the architecture's."""
    patch_px: int = 0
    """Side of a ViT's patch, pixels; 0 keeps the architecture's."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of the pixels per channel, in 0..1."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of the pixels per channel, in 0..1."""

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")
        if min(self.num_heads, self.stem_width, self.head_dim, self.pooled_dim, self.patch_px) < 0:
            raise ConfigError(
                f"num_heads, stem_width, head_dim, pooled_dim and patch_px: expected 0 or more, got {self}"
            )
        if not 0 <= self.drop_path_prob < 1:
            raise ConfigError(f"drop_path_prob: expected 0 <= p < 1, got {self.drop_path_prob}")

    def build(self) -> TimmEncoder:
        """A new encoder, randomly initialised by timm. Raises MissingDependencyError without timm."""
        from eyesmith.models.timm.model import TimmEncoder

        return TimmEncoder(self)


TIMM: dict[str, TimmConfig] = {
    # a class-token ViT; width and depth give ViTamin-Nano's number of parameters within 3 %, in heads of 40
    "vit_nano": TimmConfig(
        model_name="vit_tiny_patch16_224",
        image_size=(48, 48),
        embed_dim=256,
        widths=(200,),
        depths=(5,),
        num_heads=5,
        drop_path_prob=0.1,
    ),
}
"""Small baselines under names of our own; any other timm name needs no entry here."""
