"""Sizes of the TrV image encoder of EVA-02 (arXiv 2303.11331, table 5), and of the plain ViTs of the same release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from eyesmith.errors import ConfigError

if TYPE_CHECKING:
    from eyesmith.models.eva02.model import Eva02

Norm = Literal["pre", "sub", "post"]
Ffn = Literal["swiglu", "mlp"]
Relation = Literal["rope", "bias", "none"]
Pooling = Literal["token", "mean", "normed_mean"]
Initial = Literal["jax", "beit"]
Resize = Literal["reference", "timm"]


@dataclass(frozen=True, kw_only=True)
class Eva02Config:
    """One TrV encoder, or a step on the way from ViT to it: a plain transformer over patches and a class token."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the input, pixels; multiples of patch_px."""
    patch_px: int = 14
    """Side of a patch, pixels."""
    width: int
    """Channels."""
    depth: int
    """Blocks."""
    num_heads: int
    """Attention heads; must divide the width. A head of TrV has 64 channels."""
    hidden_dim: int
    """Channels inside the feed-forward network: int(width * 8 / 3) for SwiGLU, 4 * width for an MLP."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then `width` wide)."""
    norm: Norm = "pre"
    """LayerNorm before attention and network; `sub`: and one inside the network; `post`: on the results instead."""
    has_inner_norm: bool = False
    """A LayerNorm on the joined heads, before the output projection of attention: in the CLIP towers alone."""
    ffn: Ffn = "swiglu"
    """The feed-forward network."""
    has_position: bool = True
    """Whether a learned position table is added to the tokens. Every published model has one, beside its RoPE."""
    relation: Relation = "rope"
    """What attention knows of places: 2D rotary positions, a learned relative bias (BEiT's), or nothing."""
    pooling: Pooling = "mean"
    """`token`: norm, class token, head. `mean`: mean of the patches, norm, head. `normed_mean`: norm, mean, head."""
    is_packed: bool = True
    """Whether published files hold q, k, v (and gate, value) as one matrix. Here they are one; it decides the spread of
    the JAX initialisation, its gain on v, and the names in files."""
    initial: Initial = "jax"
    """How weights are drawn: the release's scheme of pre-training (`jax`), or of fine-tuning and CLIP (`beit`)."""
    resize: Resize = "reference"
    """How tables and kernels are resampled: the release's plain bicubic, or timm's, antialiased."""
    drop_path_prob: float = 0.0
    """Stochastic depth of the last block; rises linearly from 0 at the first."""

    def __post_init__(self) -> None:
        if self.patch_px < 1 or any(side <= 0 or side % self.patch_px for side in self.image_size):
            raise ConfigError(f"image_size: expected multiples of the patch, {self.patch_px}, got {self.image_size}")
        if min(self.width, self.depth, self.num_heads, self.hidden_dim) < 1:
            raise ConfigError(f"width, depth, num_heads and hidden_dim must be positive, got {self}")
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide the width {self.width}")
        if self.relation == "rope" and self.width // self.num_heads % 4:
            raise ConfigError(
                f"num_heads: 2D rotary positions need heads of a multiple of 4 channels, got {self.width} / "
                f"{self.num_heads}; change num_heads, or set relation='none'"
            )
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")
        if not 0 <= self.drop_path_prob < 1:
            raise ConfigError(f"drop_path_prob: expected 0 <= p < 1, got {self.drop_path_prob}")
        for name, kinds in _CHOICES.items():
            if getattr(self, name) not in get_args(kinds):
                raise ConfigError(f"{name}: expected {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_px, self.image_size[1] // self.patch_px

    def build(self) -> Eva02:
        """A new encoder with random weights, drawn as `initial` says."""
        from eyesmith.models.eva02.model import Eva02

        return Eva02(self)


_CHOICES = {
    "norm": Norm,
    "ffn": Ffn,
    "relation": Relation,
    "pooling": Pooling,
    "initial": Initial,
    "resize": Resize,
}


def _trv(width: int, depth: int, *, is_packed: bool) -> Eva02Config:
    return Eva02Config(
        width=width,
        depth=depth,
        num_heads=width // 64,
        hidden_dim=int(width * (4 * 2 / 3)),
        embed_dim=0,
        norm="pre" if is_packed else "sub",
        is_packed=is_packed,
    )


def _plain(width: int, depth: int, hidden_dim: int, norm: Norm) -> Eva02Config:
    return Eva02Config(
        width=width,
        depth=depth,
        num_heads=16,
        hidden_dim=hidden_dim,
        embed_dim=1024,
        norm=norm,
        ffn="mlp",
        relation="none",
        pooling="token",
        initial="beit",
    )


EVA02: dict[str, Eva02Config] = {
    # ours: a tower for a laptop, as wide as EVA-02-Ti
    "nano": Eva02Config(
        image_size=(48, 48),
        patch_px=8,
        width=192,
        depth=6,
        num_heads=3,
        hidden_dim=512,
        embed_dim=256,
        pooling="token",
    ),
    "tiny": _trv(192, 12, is_packed=True),
    "small": _trv(384, 12, is_packed=True),
    "base": _trv(768, 12, is_packed=False),
    "large": _trv(1024, 24, is_packed=False),
    # the image towers of EVA-01-CLIP (the teacher of the pre-training) and of EVA-02-CLIP-E: ViTs without any of TrV
    "giant": _plain(1408, 40, 6144, "pre"),
    "enormous": _plain(1792, 64, 15360, "post"),
}
"""Image encoders by size, with the pooling of fine-tuned models; `models.registry` has the towers of CLIP models."""
