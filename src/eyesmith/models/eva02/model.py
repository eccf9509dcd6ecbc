"""TrV, the image encoder of EVA-02 (arXiv 2303.11331): a plain ViT with SwiGLU, sub-LN and 2D rotary positions.

Exact to the released models and timm's `eva02_*`, with one change of storage: q, k, v are one matrix, and so are gate
and value, in every size. The plain ViTs of the same release and the steps from ViT to TrV are settings of the same
config. B batch, H W grid cells, N = H*W patches, C channels, D embedding; token 0 is the class token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import check_choices
from eyesmith.errors import ConfigError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.cpu_ops import Conv
from eyesmith.models.eva02.blocks import EPS, Attention, Block, Mlp, SwiGLU
from eyesmith.models.memory import check_memory
from eyesmith.models.plain_transformer import PlainTransformer
from eyesmith.models.position import (
    relative_index,
    relative_rows,
    resize_position_table,
    resize_relative_table,
    rope_table,
)

STD = 0.02
HEAD_SCALE = 0.001  # of the head in fine-tuning and CLIP

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
        check_choices(self)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_px, self.image_size[1] // self.patch_px

    @property
    def num_blocks(self) -> int:
        """Transformer blocks, which are all alike."""
        return self.depth

    def with_blocks(self, num_blocks: int) -> "Eva02Config":
        """The same encoder with another number of transformer blocks."""
        return replace(self, depth=num_blocks)

    def build(self) -> "Eva02":
        """A new encoder with random weights, drawn as `initial` says."""
        return Eva02(self)


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
"""Image encoders by size, with the pooling of fine-tuned models."""


def _clip(size: str, embed_dim: int, side_px: int = 224, *, patch_px: int = 14) -> Eva02Config:
    """A tower of EVA-02-CLIP: the pre-trained encoder with LayerNorms on the heads, pooled by class token."""
    tower = replace(EVA02[size], has_inner_norm=True, pooling="token", initial="beit", patch_px=patch_px)
    return replace(tower, embed_dim=embed_dim, image_size=(side_px, side_px))


PAIRS: dict[str, tuple[Eva02Config, str]] = {
    "EVA02-B-16": (_clip("base", 512, patch_px=16), "base"),
    "EVA02-L-14": (_clip("large", 768), "large"),
    "EVA02-L-14-336": (_clip("large", 768, 336), "large"),
    "EVA02-E-14": (EVA02["enormous"], "large2"),
    "EVA02-E-14-plus": (EVA02["enormous"], "enormous"),
    "EVA01-g-14": (EVA02["giant"], "large"),
    "EVA01-g-14-plus": (EVA02["giant"], "large2"),
    "TrV-Nano": (EVA02["nano"], "nano"),
}
"""Image-text models by OpenCLIP's name: the image tower, and the size of the text tower (text.model.CLIP_TEXT)."""

ENCODERS: dict[str, Eva02Config] = {
    f"eva02_{size}_patch14_{px}": replace(EVA02[size], image_size=(px, px))
    for size, larger_px in {"tiny": 336, "small": 336, "base": 448, "large": 448}.items()
    for px in (224, larger_px)
} | {
    "eva02_base_patch16_clip_224": PAIRS["EVA02-B-16"][0],
    "eva02_large_patch14_clip_224": PAIRS["EVA02-L-14"][0],
    "eva02_large_patch14_clip_336": PAIRS["EVA02-L-14-336"][0],
    "eva02_enormous_patch14_clip_224": PAIRS["EVA02-E-14"][0],
    "eva_giant_patch14_clip_224": PAIRS["EVA01-g-14"][0],
    "trv_nano_48": PAIRS["TrV-Nano"][0],
}
"""Image encoders by timm's name: as pre-trained and fine-tuned, without projection; of CLIP models with theirs."""

ALIASES: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Rung:
    """One row. top1: printed accuracy on IN-1K after fine-tuning, percent; None where pre-training did not hold."""

    config: Eva02Config
    top1: float | None


def _rung(norm: Norm, initial: Initial, ffn: Ffn, relation: Relation, top1: float | None) -> Rung:
    config = Eva02Config(
        image_size=(196, 196),  # 196 tokens of 14 px
        width=768,
        depth=12,
        num_heads=12,
        hidden_dim=int(768 * (4 * 2 / 3)) if ffn == "swiglu" else 4 * 768,
        embed_dim=0,
        norm=norm,
        ffn=ffn,
        relation=relation,
        is_packed=ffn == "mlp" or norm != "sub",
        initial=initial,
    )
    return Rung(config, top1)


LADDER: tuple[Rung, ...] = (
    _rung("pre", "beit", "mlp", "none", 84.0),
    _rung("pre", "jax", "mlp", "none", 84.0),
    _rung("pre", "beit", "swiglu", "none", 83.9),
    _rung("pre", "jax", "swiglu", "none", 85.0),
    _rung("sub", "jax", "swiglu", "none", 85.2),
    _rung("sub", "jax", "swiglu", "rope", 85.6),  # TrV
    _rung("sub", "jax", "swiglu", "bias", None),
    _rung("post", "jax", "swiglu", "rope", None),
)
"""In the order of the table; all are as large as ViT-B. Each keeps its learned position table, as TrV's code does, so
that a relation is an addition. Not told by the paper, and chosen here: post-LN is that of EVA-02-CLIP-E (the shortcut
around the norm), the relative bias is BEiT's, of each block its own, and no row has BEiT's LayerScale."""


class Eva02(PlainTransformer):
    """A TrV encoder. `forward` gives one vector an image, pooled as `config.pooling` says, projected: [B, D]."""

    config: Eva02Config

    def __init__(self, config: Eva02Config) -> None:
        super().__init__()
        matrices = 4 * config.width + (3 if config.ffn == "swiglu" else 2) * config.hidden_dim
        check_memory(config.depth * config.width * matrices, f"{config.depth} blocks of width {config.width}")
        self.describe(config, 1)
        self.mean, self.std = OPENAI_MEAN, OPENAI_STD

        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        num_tokens = 1 + config.grid[0] * config.grid[1]
        self.position = nn.Parameter(torch.zeros(1, num_tokens, config.width)) if config.has_position else None
        self.patch = Conv(3, config.width, config.patch_px, stride=config.patch_px)
        rates = [config.drop_path_prob * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.layers = nn.ModuleList(_block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = nn.Linear(config.width, config.embed_dim) if config.embed_dim else nn.Identity()
        self._places = self._make_places()  # no buffer: it is computed, and stored nowhere
        _initialise(self)

    def project(self, vectors: Tensor) -> Tensor:
        return self.head(vectors if self.config.pooling == "normed_mean" else self.norm(vectors))

    def set_image_size(self, height: int, width: int) -> None:
        """Change the input size; tables are resampled as `config.resize` says, rotary positions made anew."""
        self.check_size(height, width)
        config = replace(self.config, image_size=(height, width))
        old, new, antialias = self.config.grid, config.grid, config.resize == "timm"
        if self.position is not None:
            data = resize_position_table(self.position.data, old, new, num_prefix=1, antialias=antialias)
            self.position = nn.Parameter(data, self.position.requires_grad)
        for block in self.layers:
            assert isinstance(block, Block)
            if (table := block.attention.relative) is not None:
                data = resize_relative_table(table.data, old, new, antialias=antialias)
                block.attention.relative = nn.Parameter(data, table.requires_grad)
        self.config, self.image_size = config, config.image_size
        self._places = self._make_places()
        self._follow()

    def set_pooling(self, pooling: Pooling) -> None:
        """Pool in another way from now on. The parameters are the same, what they were trained for is not."""
        self.config = replace(self.config, pooling=pooling)
        self.is_mean_pooled = pooling != "token"

    def _enter(self, patches: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The tokens before the first block, and what attention needs to know of their places."""
        x = torch.cat((self.class_token.to(patches.dtype).expand(patches.shape[0], -1, -1), patches), dim=1)
        if self.position is not None:
            x = x + self.position
        places = None if self._places is None else self._places.to(x.device)  # moves for a meta device alone
        return (x, places) if kept is None else self._keep(x, places, kept)

    def _keep(self, x: Tensor, places: Tensor | None, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.config.relation == "bias":
            raise ConfigError("relation: patches cannot be dropped with a relative bias; take rope or none")
        rows = torch.cat((kept.new_zeros(kept.shape[0], 1), kept + 1), dim=1)  # the class token stays
        x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        return x, None if places is None else places[rows]  # [B, 1 + K, P, 2]

    def _make_places(self) -> Tensor | None:
        if self.config.relation == "rope":
            with torch.inference_mode(False):
                return rope_table(self.config.grid, self.config.width // self.config.num_heads)
        return relative_index(self.config.grid) if self.config.relation == "bias" else None

    def _follow(self) -> None:
        """Keep the places where the parameters are."""
        device = self.class_token.device
        if self._places is not None and device.type != "meta":
            self._places = self._places.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._follow()
        return self


def _block(config: Eva02Config, drop_path_prob: float) -> Block:
    rows = relative_rows(config.grid) if config.relation == "bias" else 0
    attention = Attention(config.width, config.num_heads, has_norm=config.has_inner_norm, relative_rows=rows)
    kind = SwiGLU if config.ffn == "swiglu" else Mlp
    mlp = kind(config.width, config.hidden_dim, has_norm=config.norm == "sub")
    return Block(attention, mlp, drop_path_prob, is_post=config.norm == "post")


@torch.no_grad()
def _initialise(encoder: Eva02) -> None:
    """Draw every weight anew by `encoder.config.initial`; LayerNorms are 1 and 0, biases 0 but for the patches'.

    jax, the scheme of pre-training: matrices normal with deviation sqrt(2 / (fan in + fan out)), packed ones with their
    whole fan out; patches uniform by the same rule; tables normal with deviation 0.02 cut at +-0.02, which leaves
    0.0108. With sub-LN, and only then, the feed-forward matrices, the output projections and v (where stored apart)
    are multiplied by sqrt(ln(2 depth)).
    beit, the scheme of fine-tuning and CLIP: all matrices and tables normal with deviation 0.02; both output matrices
    of block i (from 1) divided by sqrt(2 i); the head multiplied by 0.001.
    """
    encoder.patch.reset_parameters()  # leaves the bias uniform in +-1/sqrt(fan in), in both schemes
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias") and parameter.ndim == 1 and name != "patch.bias" and "norm" not in name:
            nn.init.zeros_(parameter)
        if name.endswith("relative"):
            nn.init.zeros_(parameter)
    if encoder.config.initial == "jax":
        _jax(encoder)
    else:
        _beit(encoder)


def _jax(encoder: Eva02) -> None:
    config = encoder.config
    gain = math.sqrt(math.log(2 * config.depth)) if config.norm == "sub" else 1.0
    for table in (encoder.class_token, encoder.position):
        if table is not None:
            nn.init.trunc_normal_(table, std=STD, a=-STD, b=STD)
    flat = encoder.patch.weight.view(config.width, -1)
    nn.init.xavier_uniform_(flat)
    parts = 1 if config.is_packed else 3
    for block in cast(list[Block], list(encoder.layers)):
        attention, ffn = block.attention, block.mlp
        for index, part in enumerate(attention.qkv.weight.chunk(parts)):
            nn.init.xavier_normal_(part, gain if index == 2 else 1.0)
        nn.init.xavier_normal_(attention.out.weight, gain)
        for part in ffn.enter.weight.chunk(1 if config.is_packed or config.ffn == "mlp" else 2):
            nn.init.xavier_normal_(part, gain)
        nn.init.xavier_normal_(ffn.out.weight, gain)
    if isinstance(encoder.head, nn.Linear):
        nn.init.xavier_normal_(encoder.head.weight, 1.0)


def _beit(encoder: Eva02) -> None:
    for table in (encoder.class_token, encoder.position):
        if table is not None:
            nn.init.trunc_normal_(table, std=STD)
    for number, block in enumerate(cast(list[Block], list(encoder.layers)), 1):
        for linear in (block.attention.qkv, block.attention.out, block.mlp.enter, block.mlp.out):
            nn.init.trunc_normal_(linear.weight, std=STD)
        for linear in (block.attention.out, block.mlp.out):
            linear.weight.div_(math.sqrt(2 * number))
    if isinstance(encoder.head, nn.Linear):
        nn.init.trunc_normal_(encoder.head.weight, std=STD)
        encoder.head.weight.mul_(HEAD_SCALE)
