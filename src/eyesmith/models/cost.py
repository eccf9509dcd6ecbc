"""What a named model costs: parameters and multiply-adds of its two towers, without allocating a single weight."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.config import ClipTextConfig
from eyesmith.models.timm.config import TimmConfig
from eyesmith.models.vitamin.config import ViTaminConfig


class TowerCost(NamedTuple):
    """params: numbers learned; macs: multiply-adds for one image, or for one text of full length."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """image_size: (H, W) px; embed_dim: width of the shared space; text is None where only its files tell its size."""

    image_size: tuple[int, int]
    embed_dim: int
    image: TowerCost
    text: TowerCost | None


def model_cost(config: ClipConfig) -> ModelCost:
    """Count both towers of `config`, attention products included.

    MACs follow torch's counter: matrix products and convolutions, a multiply-add counts once. The paper's own figures
    leave the two attention products out.
    """
    return ModelCost(
        image_size=config.preprocess.image_size,
        embed_dim=config.image.embed_dim,
        image=image_cost(config.image),
        text=text_cost(config.text) if isinstance(config.text, ClipTextConfig) else None,
    )


# several models share a tower
@lru_cache
def image_cost(config: ViTaminConfig | TimmConfig) -> TowerCost:
    """Parameters and MACs of an image tower at its own input size."""
    pixels = torch.empty(1, 3, *config.image_size, device="meta")
    if isinstance(config, TimmConfig):
        return _count(config.build, pixels)
    *stages, depth = config.depths
    return _per_block(lambda blocks: replace(config, depths=(*stages, blocks)).build, depth, pixels)


@lru_cache
def text_cost(config: ClipTextConfig) -> TowerCost:
    """Parameters and MACs of a text tower."""
    ids = torch.zeros(1, config.context_len, dtype=torch.int64, device="meta")
    return _per_block(lambda blocks: replace(config, depth=blocks).build, config.depth, ids)


def _per_block(builder: Callable[[int], Callable[[], nn.Module]], depth: int, argument: Tensor) -> TowerCost:
    """The cost of `depth` equal blocks from those of one and two: counting all of a large tower takes seconds."""
    one, two = _count(builder(1), argument), _count(builder(2), argument)
    return TowerCost(*(first + (depth - 1) * (second - first) for first, second in zip(one, two, strict=True)))


def _count(build: Callable[[], nn.Module], argument: Tensor) -> TowerCost:
    with torch.device("meta"):
        tower = build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(argument)
    params = sum(parameter.numel() for parameter in tower.parameters())
    return TowerCost(params, counter.get_total_flops() // 2)
