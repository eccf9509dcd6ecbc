"""Any timm backbone that gives tokens or a map, as an encoder."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from eyesmith.config import closest
from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.cpu_ops import SHORT_SEQUENCE_LEN, replace_convolutions
from eyesmith.models.drop_path import DropPath
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.foreign.torchvision import ensure_torchvision

NUM_TOKEN_TAPS = 4  # taps of a backbone without stages, evenly spread over its blocks


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

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")
        if min(self.num_heads, self.stem_width, self.head_dim, self.pooled_dim, self.patch_px) < 0:
            raise ConfigError(
                f"num_heads, stem_width, head_dim, pooled_dim and patch_px: expected 0 or more, got {self}"
            )
        if self.initial not in ("timm", "open_clip"):
            raise ConfigError(f"initial: expected timm or open_clip, got {self.initial!r}")
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


class TimmEncoder(Encoder):
    """A timm backbone with our linear head.

    `dense` is timm's forward_features without class and register tokens, so it comes after the final norm where that
    norm stands before the pooling (a class-token ViT, CoAtNet) and before it where it stands after (ConvNeXt, a
    mean-pooled ViT).
    """

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Any = _create_backbone(config)
        self.is_sequence = hasattr(self.backbone, "num_prefix_tokens")  # [B, N, C] inside, not a map
        info = list(self.backbone.feature_info)
        self.stride = int(info[-1]["reduction"])
        self.mean, self.std = config.mean, config.std
        self.image_size = config.image_size
        self.check_size(*config.image_size)
        self._tap_indices = _tap_indices(info, is_sequence=self.is_sequence)
        self.taps = {name: Tap(int(info[i]["reduction"]), info[i]["num_chs"]) for name, i in self._tap_indices.items()}
        self.half_tap = f"block{len(info) // 2}" if self.is_sequence and len(info) > 1 else None
        width = int(self.backbone.head_hidden_size)
        self.embed_dim = config.embed_dim or width
        self.head = nn.Linear(width, config.embed_dim, bias=False) if config.embed_dim else nn.Identity()
        self.is_mean_pooled = self._mean_pooled()
        if config.initial == "open_clip":
            _initialise_as_open_clip(self)
        self._last_blocks()  # refuses now what it could not take apart later

    def prepare(self, pixels: Tensor) -> Tensor:
        """As every encoder's; channels last in memory where the backbone makes maps, whose convolutions want it."""
        pixels = super().prepare(pixels)
        return pixels if self.is_sequence else pixels.contiguous(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone.forward_features(self.prepare(pixels))
        return self.head(self.backbone.forward_head(features, pre_logits=True))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        indices = sorted({self._tap_indices[name] for name in names})
        maps = self.backbone.forward_intermediates(
            self.prepare(pixels), indices=indices, output_fmt="NCHW", stop_early=True, intermediates_only=True
        )
        found = dict(zip(indices, maps, strict=True))
        return {name: found[self._tap_indices[name]] for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        features = self.backbone.forward_features(self.prepare(pixels))
        if not self.is_sequence:
            return self._channels_first(features)
        cells = features[:, self.backbone.num_prefix_tokens :]  # [B, N, C]
        return cells.mT.reshape(len(cells), -1, self.image_size[0] // self.stride, self.image_size[1] // self.stride)

    def project(self, vectors: Tensor) -> Tensor:
        if self.is_sequence:
            return self.head(self.backbone.fc_norm(vectors))
        # the pooling of a single cell is that cell, so timm's head does norm and hidden layer for any vector
        cells = vectors.reshape(-1, vectors.shape[-1], 1, 1)
        if self._is_channels_last():
            cells = cells.permute(0, 2, 3, 1)
        pooled = self.backbone.forward_head(cells, pre_logits=True)
        return self.head(pooled).view(*vectors.shape[:-1], -1)

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        blocks = self._last_blocks()
        block = blocks[self.check_layer(layer, len(blocks))]
        caught: list[Any] = []
        handle = block.register_forward_hook(lambda _module, _args, result: caught.append(result))
        try:
            self.backbone.forward_features(self.prepare(pixels))
        finally:
            handle.remove()
        if self.is_sequence:
            return caught[0][:, self.backbone.num_prefix_tokens :]
        return self._channels_first(caught[0]).flatten(2).mT  # [B, N, C]

    def set_image_size(self, height: int, width: int) -> None:
        """Change the input size by timm's own rule for the family (tables: bicubic, antialiased)."""
        self.check_size(height, width)
        if hasattr(self.backbone, "set_input_size"):
            with warnings.catch_warnings():
                # torch's remarks on how timm 1.0.31 indexes and searches while it resamples relative position tables
                warnings.simplefilter("ignore", UserWarning)
                self.backbone.set_input_size(img_size=(height, width))
        elif self.backbone.default_cfg.get("fixed_input_size", False) and (height, width) != self.image_size:
            raise ConfigError(f"image_size: timm's {self.config.model_name} cannot change its size")
        self.image_size = (height, width)

    def blocks(self) -> list[nn.Module]:
        if self.is_sequence:
            return self._last_blocks()
        return [block for stage in _stages(self.backbone) for block in _blocks_of(stage)]

    def _last_blocks(self) -> list[nn.Module]:
        if self.is_sequence:
            return list(self.backbone.blocks)
        stages = _stages(self.backbone)
        if not stages:
            raise ConfigError(
                f"model_name: cannot tell the stages of timm's {self.config.model_name}; "
                "take a ViT, ConvNeXt, CoAtNet, MaxViT, ResNet or RegNet"
            )
        return _blocks_of(stages[-1])

    def _mean_pooled(self) -> bool:
        if self.is_sequence:
            return self.backbone.global_pool == "avg" and not getattr(self.backbone, "pool_include_prefix", False)
        head = getattr(self.backbone, "head", None)
        pool_type = getattr(getattr(head, "global_pool", getattr(self.backbone, "global_pool", None)), "pool_type", "")
        return pool_type == "avg"

    def _is_channels_last(self) -> bool:
        return str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")

    def _channels_first(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2) if self._is_channels_last() else features


def _create_backbone(config: TimmConfig) -> nn.Module:
    ensure_torchvision()
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"{config.model_name} is a timm model, and timm is not installed: pip install 'eyesmith[timm]'"
        ) from error
    name = config.model_name
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


def _tap_indices(info: list[dict[str, Any]], *, is_sequence: bool) -> dict[str, int]:
    """Tap name to timm's index of the intermediate map."""
    if not is_sequence:
        return {_tap_name(entry["module"]): index for index, entry in enumerate(info)}
    count = min(NUM_TOKEN_TAPS, len(info))
    return {f"block{index + 1}": index for index in ((k + 1) * len(info) // count - 1 for k in range(count))}


def _tap_name(module: str) -> str:
    stage = re.fullmatch(r"stages\.(\d+)", module)
    return f"stage{int(stage[1]) + 1}" if stage else module


def _stages(backbone: nn.Module) -> list[nn.Module]:
    """The stages of a backbone that makes maps, by the attribute names timm uses for them; [] when there are none."""
    for name in ("stages", "layers"):
        if hasattr(backbone, name):
            return list(cast(nn.Sequential, getattr(backbone, name)))
    return [child for name, child in backbone.named_children() if re.fullmatch(r"(layer|s)\d", name)]


def _blocks_of(stage: nn.Module) -> list[nn.Module]:
    return list(getattr(stage, "blocks", stage).children())
