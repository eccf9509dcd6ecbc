"""What a named model costs: parameters and multiply-adds of its towers, without allocating a single weight.

Multiply-adds (MACs) are counted in two conventions, both by running the tower itself on tensors that hold no numbers:

- true: every matrix product and convolution, a multiply-add counts once (torch's own counter, halved);
- the paper's (ViTamin, table 3, made with fvcore): convolutions, linear layers and the projection, and 5 for each
  element that a LayerNorm reads; the two products of attention are left out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eyesmith.errors import MissingDependencyError
from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig, ForeignConfig, origin_of
from eyesmith.models.foreign.open_clip_text import OpenClipTextConfig
from eyesmith.models.own import OwnEncoderConfig
from eyesmith.models.plain_transformer import PlainTransformer
from eyesmith.models.registry import config, encoder_config, list_encoders, list_models
from eyesmith.models.text.model import ClipTextConfig

LAYER_NORM_MACS = 5  # for each element, by fvcore's rule
MODEL_FIELDS = (  # other programs read them
    *("name", "image_size", "embed_dim", "image_params", "text_params"),
    *("image_gmacs_paper", "text_gmacs_paper", "image_gmacs", "text_gmacs", "stride", "tokens", "origin"),
)
_ATTENTION = (  # products of two activations, fused or written out
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
)


class TowerCost(NamedTuple):
    """params: numbers learned; macs, macs_paper: multiply-adds for one image, or for one text of full length."""

    params: int
    macs: int
    macs_paper: int


class EncoderCost(NamedTuple):
    """image_size: (H, W) px; stride: px per token; tokens: cells of the last map. `tower` is the cost of an image."""

    image_size: tuple[int, int]
    embed_dim: int
    stride: int
    tower: TowerCost

    @property
    def tokens(self) -> int:
        """Cells of the last map, H/stride * W/stride."""
        return math.prod(side // self.stride for side in self.image_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """embed_dim: width of the shared space. None stands for a cost that needs a package or files that are not here."""

    image_size: tuple[int, int]
    embed_dim: int
    image: EncoderCost | None
    text: TowerCost | None


def model_cost(config: ClipConfig) -> ModelCost:
    """Count both towers of `config`. The image's cost is None for a timm backbone where timm is not installed."""
    return ModelCost(
        image_size=config.preprocess.image_size,
        embed_dim=config.image.embed_dim,
        image=_cost_if_here(config.image),
        text=text_cost(config.text) if isinstance(config.text, ClipTextConfig | OpenClipTextConfig) else None,
    )


# several models share a tower
@lru_cache
def encoder_cost(config: EncoderConfig) -> EncoderCost:
    """The cost of an image tower at its own input size. Raises MissingDependencyError for timm's without timm."""
    pixels = torch.empty(1, 3, *config.image_size, device="meta")
    if isinstance(config, ForeignConfig):
        # the counter stumbles over views of trained tensors that go into a module
        tower = _on_meta(config.build).requires_grad_(False)
        cost = _count(tower, pixels)
    elif isinstance(config, OwnEncoderConfig):  # a user's code may read numbers, which tensors on meta have not
        with torch.random.fork_rng(devices=[]):
            tower = config.build().eval()
        cost = _count(tower, torch.zeros(1, 3, *config.image_size))
    else:
        tower = _on_meta(config.with_blocks(1).build)
        two = _on_meta(config.with_blocks(2).build)
        cost = _of_equal_blocks(_count(tower, pixels), _count(two, pixels), config.num_blocks)
    assert isinstance(tower, Encoder)
    return EncoderCost(config.image_size, tower.embed_dim, tower.stride, cost)


@lru_cache
def text_cost(config: ClipTextConfig | OpenClipTextConfig) -> TowerCost:
    """The cost of a text tower for a text of full length."""
    if isinstance(config, OpenClipTextConfig):
        tower = _on_meta(config.build).requires_grad_(False)
        return _count(tower, torch.zeros(1, int(tower.context_len), dtype=torch.int64, device="meta"))  # pyright: ignore[reportArgumentType]
    ids = torch.zeros(1, config.context_len, dtype=torch.int64, device="meta")
    one, two = (_count(_on_meta(replace(config, depth=blocks).build), ids) for blocks in (1, 2))
    cost = _of_equal_blocks(one, two, config.depth)
    # the reference norms every position before it takes the one at the end token; ours norms that one only
    unread = LAYER_NORM_MACS * (config.context_len - 1) * config.width
    return cost._replace(macs_paper=cost.macs_paper + unread)


def model_rows(configs: Mapping[str, ClipConfig | EncoderConfig] | None = None) -> list[dict[str, Any]]:
    """What `eyesmith models --json` prints: one entry a named model, by name, or one for each of `configs`.

    GMACs are 1e9 multiply-adds, unrounded; None where a cost needs a package or files that are not here, and for the
    text tower of an encoder alone. origin: see `families.origin_of`.
    """
    rows = []
    for name, found in (configs or {name: config(name) for name in list_models()}).items():
        is_pair = isinstance(found, ClipConfig)
        row = dict.fromkeys(MODEL_FIELDS) | _image_row(name, found.image if is_pair else found)
        if is_pair and (text := model_cost(found).text) is not None:
            row["text_params"] = text.params
            row["text_gmacs_paper"], row["text_gmacs"] = text.macs_paper / 1e9, text.macs / 1e9
        rows.append(row)
    return rows


def encoder_rows() -> list[dict[str, Any]]:
    """What `eyesmith models --encoders --json` prints: `model_rows` without the fields of a text tower."""
    return [_image_row(name, encoder_config(name)) for name in list_encoders()]


def _image_row(name: str, image: EncoderConfig) -> dict[str, Any]:
    cost = _cost_if_here(image)
    return {
        "name": name,
        "image_size": list(image.image_size),
        "embed_dim": image.embed_dim or (cost and cost.embed_dim) or 0,
        "image_params": cost and cost.tower.params,
        "image_gmacs_paper": cost and cost.tower.macs_paper / 1e9,
        "image_gmacs": cost and cost.tower.macs / 1e9,
        "stride": cost and cost.stride,
        "tokens": cost and cost.tokens,
        "origin": origin_of(image),
    }


def _cost_if_here(config: EncoderConfig) -> EncoderCost | None:
    try:
        return encoder_cost(config)
    except MissingDependencyError:
        return None


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build().eval()


def _of_equal_blocks(one: TowerCost, two: TowerCost, depth: int) -> TowerCost:
    """The cost of `depth` equal blocks from those of one and two: counting all of a large tower takes seconds."""
    return TowerCost(*(first + (depth - 1) * (second - first) for first, second in zip(one, two, strict=True)))


def _count(tower: nn.Module, argument: Tensor) -> TowerCost:
    layer_norm = torch.ops.aten.native_layer_norm
    with FlopCounterMode(display=False, custom_mapping={layer_norm: _layer_norm_flops}) as counter, torch.no_grad():
        if isinstance(tower, PlainTransformer):  # all tokens through its last block, as published figures have it
            tower.pool(tower.encode(tower.patches(argument)))
        else:
            tower(argument)
    flops = counter.get_flop_counts().get("Global", {})
    norms = flops.get(layer_norm, 0)
    attention = sum(flops.get(operator, 0) for operator in _ATTENTION)
    total = counter.get_total_flops()
    params = sum(parameter.numel() for parameter in tower.parameters())
    return TowerCost(params, (total - norms) // 2, (total - attention) // 2)


def _layer_norm_flops(shape: tuple[int, ...], *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * LAYER_NORM_MACS * math.prod(shape)
