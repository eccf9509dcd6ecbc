"""The plain ViT of CLIP and SigLIP: OpenAI's, and every `ViT-*` of OpenCLIP (LAION, DataComp, DFN, MetaCLIP, CLIPA).

Exact to open_clip's VisionTransformer and, for SigLIP, to timm's and Hugging Face's, with one change of storage: the
query, key and value matrices of SigLIP's pooling are one. B batch, H W grid cells, N tokens (the class token first,
where there is one), C channels, D embedding.
"""

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from eyesmith.config import check_choices
from eyesmith.errors import ConfigError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.activation import Activation
from eyesmith.models.cpu_ops import Conv
from eyesmith.models.memory import check_memory
from eyesmith.models.plain_transformer import PlainTransformer
from eyesmith.models.position import resize_position_table
from eyesmith.models.vit.blocks import AttentionPool, Block

Pooling = Literal["token", "mean", "normed_mean", "map"]


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """One plain ViT; the defaults are CLIP's."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the input, pixels; multiples of patch_px."""
    patch_px: int
    """Side of a patch, pixels."""
    width: int
    """Channels."""
    depth: int
    """Blocks."""
    num_heads: int
    """Attention heads; must divide the width."""
    hidden_dim: int
    """Channels inside the MLPs."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection. SigLIP has none: its feature is `width` wide."""
    activation: Activation = "gelu"
    """Inside the MLPs. Weights do not tell which they were trained with."""
    pooling: Pooling = "token"
    """`token`: norm, class token. `mean`: mean of the patches, norm. `normed_mean`: norm, mean of the patches. `map`:
    norm, then a learned query that attends to all patches, and an MLP."""
    has_class_token: bool = True
    """Whether a class token stands before the patches, also where it is not pooled."""
    has_pre_norm: bool = True
    """A LayerNorm before the first block."""
    has_patch_bias: bool = False
    """Whether the patches' convolution has a bias."""
    layer_scale: float = 0.0
    """What the learned factors of the residual branches start with; 0 for none."""
    norm_eps: float = 1e-5
    """Of every LayerNorm."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of the pixels per channel that the weights expect, in 0..1."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of the pixels per channel."""
    drop_path_prob: float = 0.0
    """Stochastic depth of the last block; rises linearly from 0 at the first."""

    def __post_init__(self) -> None:
        if self.patch_px < 1 or any(side <= 0 or side % self.patch_px for side in self.image_size):
            raise ConfigError(f"image_size: expected multiples of the patch, {self.patch_px}, got {self.image_size}")
        if min(self.width, self.depth, self.num_heads, self.hidden_dim) < 1:
            raise ConfigError(f"width, depth, num_heads and hidden_dim must be positive, got {self}")
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide the width {self.width}")
        if self.embed_dim < 0 or self.layer_scale < 0 or self.norm_eps <= 0:
            raise ConfigError(f"embed_dim, layer_scale: expected 0 (none) or more, norm_eps above 0, got {self}")
        check_choices(self)
        if self.pooling == "token" and not self.has_class_token:
            raise ConfigError("pooling: 'token' needs has_class_token; take mean, normed_mean or map")
        if self.pooling == "map" and self.embed_dim not in (0, self.width):
            raise ConfigError(f"embed_dim: with pooling='map' there is no projection; expected 0 or {self.width}")
        if not 0 <= self.drop_path_prob < 1:
            raise ConfigError(f"drop_path_prob: expected 0 <= p < 1, got {self.drop_path_prob}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_px, self.image_size[1] // self.patch_px

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.has_class_token)

    @property
    def num_blocks(self) -> int:
        """Transformer blocks, which are all alike."""
        return self.depth

    def with_blocks(self, num_blocks: int) -> "VitConfig":
        """The same encoder with another number of transformer blocks."""
        return replace(self, depth=num_blocks)

    def build(self) -> "Vit":
        """A new encoder with random weights."""
        return Vit(self)


class Vit(PlainTransformer):
    """A plain ViT. `forward` gives one vector an image, pooled as `config.pooling` says, projected: [B, D].

    With pooling `map` a cell is projected as if it were the only one.
    """

    takes_other_sizes = True
    config: VitConfig

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        matrices = 4 * config.width + 2 * config.hidden_dim
        check_memory(config.depth * config.width * matrices, f"{config.depth} blocks of width {config.width}")
        self.describe(config, config.num_prefix)
        self.mean, self.std = config.mean, config.std

        width, eps = config.width, config.norm_eps
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if config.has_class_token else None
        self.position = nn.Parameter(torch.zeros(1, config.num_prefix + config.grid[0] * config.grid[1], width))
        self.patch = Conv(3, width, config.patch_px, stride=config.patch_px, bias=config.has_patch_bias)
        self.pre_norm = nn.LayerNorm(width, eps=eps) if config.has_pre_norm else nn.Identity()
        self.layers = nn.ModuleList(
            Block(
                width,
                config.num_heads,
                config.hidden_dim,
                activation=config.activation,
                norm_eps=eps,
                layer_scale=config.layer_scale,
                drop_path_prob=config.drop_path_prob * i / max(config.depth - 1, 1),
            )
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        is_map = config.pooling == "map"
        self.attention_pool = (
            AttentionPool(width, config.num_heads, config.hidden_dim, activation=config.activation, norm_eps=eps)
            if is_map
            else None
        )
        has_head = config.embed_dim and not is_map
        self.head = nn.Linear(width, config.embed_dim, bias=False) if has_head else nn.Identity()
        _initialise(self)

    def pool(self, tokens: Tensor) -> Tensor:
        """The feature of an image out of `encode`'s tokens: [B, N, C] -> [B, D]."""
        if self.attention_pool is None:
            return super().pool(tokens)
        return self.attention_pool(self.norm(tokens[:, self.config.num_prefix :]))

    def project(self, vectors: Tensor) -> Tensor:
        if self.config.pooling == "normed_mean":
            return self.head(vectors)
        normed = self.norm(vectors)
        return self.head(normed) if self.attention_pool is None else self.attention_pool.of_each(normed)

    def set_image_size(self, height: int, width: int) -> None:
        """Change the input size; the position table is resampled as open_clip and timm do it: bicubic, antialiased."""
        self.check_size(height, width)
        config = replace(self.config, image_size=(height, width))
        table = resize_position_table(
            self.position.data, self.config.grid, config.grid, num_prefix=self.config.num_prefix
        )
        self.position = nn.Parameter(table, self.position.requires_grad)
        self.config, self.image_size = config, config.image_size

    def _enter(self, patches: Tensor, kept: Tensor | None) -> tuple[Tensor]:
        """The tokens before the first block."""
        x = patches
        if self.class_token is not None:
            x = torch.cat((self.class_token.to(x.dtype).expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self._positions()
        if kept is not None:
            prefix = self.config.num_prefix
            rows = torch.cat((kept.new_zeros(kept.shape[0], prefix), kept + prefix), dim=1)  # the class token stays
            x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        return (self.pre_norm(x),)

    def _positions(self) -> Tensor:
        if self._seen is None:
            return self.position
        grid = replace(self.config, image_size=self._seen).grid
        return resize_position_table(self.position, self.config.grid, grid, num_prefix=self.config.num_prefix)


def same_shape(left: VitConfig, right: VitConfig) -> bool:
    """Whether two towers have the same tensors but for the position table."""

    def told(config: VitConfig) -> tuple[object, ...]:
        is_map = config.pooling == "map"
        head = 0 if is_map else config.embed_dim
        sizes = (config.width, config.depth, config.hidden_dim, config.patch_px, head)
        parts = (config.has_class_token, config.has_pre_norm, config.has_patch_bias, bool(config.layer_scale))
        return *sizes, *parts, is_map

    return told(left) == told(right)


@torch.no_grad()
def _initialise(encoder: Vit) -> None:
    """Draw every weight anew, as open_clip 3.3's VisionTransformer does: C^-0.5 times a normal for class token, table
    and projection; q, k, v uniform by Xavier with biases 0, the output projection's bias 0; all else as torch draws it.

    SigLIP's pooling (big_vision): query and matrices by Xavier, biases 0.
    """
    config = encoder.config
    for table in (encoder.class_token, encoder.position):
        if table is not None:
            nn.init.normal_(table, std=config.width**-0.5)
    for block in cast(list[Block], list(encoder.layers)):
        nn.init.xavier_uniform_(block.attention.qkv.weight)
        nn.init.zeros_(block.attention.qkv.bias)
        nn.init.zeros_(block.attention.out.bias)
    if (pool := encoder.attention_pool) is not None:
        nn.init.xavier_uniform_(pool.query[0])
        for part in pool.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
        for linear in (pool.out, pool.mlp.enter, pool.mlp.out):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (pool.qkv, pool.out, pool.mlp.enter, pool.mlp.out):
            nn.init.zeros_(linear.bias)
    if isinstance(encoder.head, nn.Linear):
        nn.init.normal_(encoder.head.weight, std=config.width**-0.5)
