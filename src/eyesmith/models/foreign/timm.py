"""Any timm backbone that gives tokens or a map, as an encoder."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from eyesmith.config import check_choices, closest
from eyesmith.errors import ConfigError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD, PreprocessConfig
from eyesmith.models.cpu_ops import SHORT_SEQUENCE_LEN, replace_convolutions
from eyesmith.models.drop_path import DropPath
from eyesmith.models.foreign.packages import import_timm, package_version
from eyesmith.models.foreign.timm_maps import TimmMaps


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
    initial: Literal["timm", "open_clip"] = "timm"
    """How random weights are drawn: by timm's rule, or, for a class-token ViT, as open_clip's own ViT draws them."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of the pixels per channel, in 0..1."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of the pixels per channel, in 0..1."""
    preprocess: PreprocessConfig | None = None
    """How pictures are prepared for pretrained weights, at any size; None: by the house's rule."""

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")
        if min(self.num_heads, self.stem_width, self.head_dim, self.pooled_dim, self.patch_px) < 0:
            raise ConfigError(
                f"num_heads, stem_width, head_dim, pooled_dim and patch_px: expected 0 or more, got {self}"
            )
        check_choices(self)
        if self.preprocess is not None and (self.preprocess.mean, self.preprocess.std) != (self.mean, self.std):
            raise ConfigError("preprocess: its mean and std differ from those beside it")
        if not 0 <= self.drop_path_prob < 1:
            raise ConfigError(f"drop_path_prob: expected 0 <= p < 1, got {self.drop_path_prob}")

    def build(self) -> "TimmEncoder":
        """A new encoder, randomly initialised by timm. Raises MissingDependencyError without timm."""
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

PAIRS = {"ViT-Nano": (TIMM["vit_nano"], "nano")}
ENCODERS = {"vit_nano_48": TIMM["vit_nano"]}
ALIASES: dict[str, str] = {}


class TimmEncoder(TimmMaps):
    """A timm backbone with our linear head; see `TimmMaps` for what its maps are."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Any = _create_backbone(config)
        self.mean, self.std, self.pictures = config.mean, config.std, config.preprocess
        self.package = package_version("timm")
        self.describe(config.image_size, config.model_name)
        width = int(self.backbone.head_hidden_size)
        self.embed_dim = config.embed_dim or width
        self.head = nn.Linear(width, config.embed_dim, bias=False) if config.embed_dim else nn.Identity()
        if config.initial == "open_clip":
            _initialise_as_open_clip(self)

    def timm(self) -> Any:
        return self.backbone

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone.forward_features(self.prepare(pixels))
        return self.pooled(features)

    def pooled(self, features: Tensor) -> Tensor:
        return self.head(self.backbone.forward_head(features, pre_logits=True))


def _create_backbone(config: TimmConfig) -> nn.Module:
    name = config.model_name
    timm = import_timm(name)
    if not timm.is_model(name):
        raise ConfigError(f"model_name: timm has no {name!r}" + closest(name, timm.list_models()))
    options = _family_options(config, timm.models.model_entrypoint(name).__module__.rpartition(".")[2])
    if config.pooling != "default":
        options["global_pool"] = {"mean": "avg", "token": "token"}[config.pooling]
    if config.drop_path_prob:
        options["drop_path_rate"] = config.drop_path_prob
    try:
        backbone = timm.create_model(name, pretrained=False, num_classes=0, img_size=config.image_size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise ConfigError(f"timm's {name} cannot be built from {config}: {error}") from error
        backbone = timm.create_model(name, pretrained=False, num_classes=0, **options)  # a network of any size
    except AssertionError as error:
        raise ConfigError(f"timm's {name} cannot be built from {config}: {error}") from error
    if not hasattr(backbone, "forward_intermediates") or not hasattr(backbone, "feature_info"):
        raise ConfigError(f"model_name: timm's {name} gives no intermediate maps, so it cannot be an encoder")
    if not torch.cuda.is_available() and _num_tokens(config.image_size, backbone) <= SHORT_SEQUENCE_LEN:
        for module in backbone.modules():
            if hasattr(module, "fused_attn"):  # see models/cpu_ops.py: as plain products it trains many times faster
                setattr(module, "fused_attn", False)  # noqa: B010  timm's modules are not typed
    _take_over_drop_path(backbone)
    replace_convolutions(backbone)
    return cast(nn.Module, backbone)


@torch.no_grad()
def _initialise_as_open_clip(encoder: TimmEncoder) -> None:
    """Draw every weight anew: tables, class token and head normal with deviation width^-0.5, query, key and value
    matrices uniform as one packed matrix (Xavier), their biases and the attention's output bias 0; the rest as torch
    draws a linear layer, a convolution or a norm.

    Source: open_clip's VisionTransformer, which leaves its modules as torch makes them.
    """
    backbone = encoder.backbone
    if not encoder.is_sequence or getattr(backbone, "cls_token", None) is None:
        raise ConfigError(f"initial: open_clip's is for a class-token ViT, {encoder.config.model_name} is none")
    for module in (*backbone.modules(), encoder.head):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm):
            module.reset_parameters()
    deviation = backbone.embed_dim**-0.5
    for table in (backbone.cls_token, backbone.pos_embed, getattr(encoder.head, "weight", None)):
        if table is not None:
            nn.init.normal_(table, std=deviation)
    for block in backbone.blocks:
        nn.init.xavier_uniform_(block.attn.qkv.weight)
        nn.init.zeros_(block.attn.qkv.bias)
        nn.init.zeros_(block.attn.proj.bias)


def _take_over_drop_path(backbone: nn.Module) -> None:
    """Put our DropPath in the place of timm's: the same law, with draws that training can make by row."""
    from timm.layers.drop import DropPath as TimmDropPath

    for parent in list(backbone.modules()):
        for name, child in parent.named_children():
            if isinstance(child, TimmDropPath):
                setattr(parent, name, DropPath(child.drop_prob or 0.0))


def _num_tokens(image_size: tuple[int, int], backbone: Any) -> int:
    stride = int(backbone.feature_info[-1]["reduction"])
    return (image_size[0] // stride) * (image_size[1] // stride)


def _family_options(config: TimmConfig, family: str) -> dict[str, Any]:
    """Our size fields under the names of timm's constructor. Raises ConfigError for a field the family lacks."""
    tokens = {"widths": "embed_dim", "depths": "depth", "num_heads": "num_heads", "patch_px": "patch_size"}
    known = {
        "vision_transformer": tokens,
        "eva": tokens,
        "convnext": {"widths": "dims", "depths": "depths"},
        "maxxvit": {
            "widths": "embed_dim",
            "depths": "depths",
            "stem_width": "stem_width",
            "head_dim": "transformer_dim_head",
            "pooled_dim": "head_hidden_size",
        },
    }.get(family, {})
    options: dict[str, Any] = {}
    for field in ("widths", "depths", "num_heads", "patch_px", "stem_width", "head_dim", "pooled_dim"):
        value = getattr(config, field)
        if not value:
            continue
        if field not in known:
            raise ConfigError(f"{field}: cannot be set for timm's {config.model_name}; leave it out")
        if known is tokens and isinstance(value, tuple):
            if len(value) != 1:
                raise ConfigError(f"{field}: {config.model_name} has one stage, got {value}")
            value = value[0]
        options[known[field]] = value
    return options
