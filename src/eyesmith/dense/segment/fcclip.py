"""FC-CLIP's mask decoder: Mask2Former's pixel decoder and masked-attention decoder, out of transformers.

With a sliding encoder in front it is ViTamin's Sliding FC-CLIP; the head does not know. transformers is imported where
a decoder is built.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.segment.decoder import MaskMaps
from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.models.encoder import Tap
from eyesmith.models.foreign.torchvision import ensure_torchvision

STRIDES = (4, 8, 16, 32)  # res2 to res5
_GROUPS = 32  # of its norms, fixed in transformers
_POINTS = 4  # that deformable attention samples of a level


@dataclass(frozen=True, kw_only=True)
class FcClipConfig:
    """Mask2Former's decoder; the defaults are FC-CLIP's."""

    width: int = 256
    num_heads: int = 8
    num_queries: int = 250
    num_layers: int = 9
    """Of the masked-attention decoder; there is a prediction before the first as well."""
    pixel_layers: int = 6
    """Of deformable attention in the pixel decoder."""
    pixel_hidden: int = 1024
    hidden: int = 2048
    taps: tuple[str, ...] = ()
    """Four maps for strides 4, 8, 16 and 32; none: the last tap of each stride, or what can be made of the others."""
    position_grid: int = 0
    """Side of learned position maps at stride 4, halved from level to level; they are bent to any size and start at 0.
    Sliding windows lose the place, which the reference gives back by maps of 336 x 336; 0 has none."""

    def __post_init__(self) -> None:
        if self.width < _GROUPS or self.width % _GROUPS or self.num_heads < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"decoder.width: expected a multiple of {_GROUPS} and of num_heads {self.num_heads}, got {self.width}"
            )
        if min(self.num_queries, self.num_layers, self.pixel_layers, self.pixel_hidden, self.hidden) < 1:
            raise ConfigError(f"decoder: expected queries, layers and hidden widths of 1 or more, got {self}")
        if self.taps and len(self.taps) != len(STRIDES):
            raise ConfigError(f"decoder.taps: expected {len(STRIDES)}, for strides {STRIDES}, got {self.taps}")
        if self.position_grid < 0 or self.position_grid % 8:
            raise ConfigError(f"decoder.position_grid: expected a multiple of 8, or 0, got {self.position_grid}")

    def build(self, taps: Mapping[str, Tap]) -> "Mask2FormerDecoder":
        """For an encoder with these taps."""
        return Mask2FormerDecoder(self, taps)


class Mask2FormerDecoder(nn.Module):
    """See the file. Images must be multiples of 32 pixels, or of twice the patch where that is not 16."""

    def __init__(self, config: FcClipConfig, taps: Mapping[str, Tap]) -> None:
        """Raises ConfigError for a tap that is not there, MissingDependencyError without transformers."""
        super().__init__()
        self.config, self.width, self.num_queries = config, config.width, config.num_queries
        if unknown := [name for name in config.taps if name not in taps]:
            raise ConfigError(f"decoder.taps: no {', '.join(unknown)}; the encoder has {', '.join(taps)}")
        self.levels = config.taps or _levels(taps)
        self.taps = {name: taps[name] for name in self.levels}
        channels = [taps[name].channels for name in self.levels]
        self.decoder: Any = _decoder_class()(_hf_config(config), channels)
        grids = [config.position_grid // (stride // STRIDES[0]) for stride in STRIDES]
        self.positions = nn.ParameterList(
            nn.Parameter(torch.zeros(1, count, grid, grid)) for count, grid in zip(channels, grids, strict=True) if grid
        )

    def forward(self, maps: Mapping[str, Tensor]) -> MaskMaps:
        """maps: by tap name, [B, channels, h, w] each; others than its own are not looked at."""
        finest = maps[self.levels[0]]
        stride = self.taps[self.levels[0]].stride
        height, width = (round(side * stride / STRIDES[0]) for side in finest.shape[2:])
        given = []
        for place, name in enumerate(self.levels):
            size = (-(-height // 2**place), -(-width // 2**place))
            given.append(_brought(maps[name], size))
        if len(self.positions):
            given = [one + _bent(own, one) for one, own in zip(given, self.positions, strict=True)]
        kind = finest.device.type if finest.device.type != "meta" else "cpu"  # plans compute shapes alone
        with torch.autocast(kind, enabled=False):  # deformable sampling wants fp32
            pixel = self.decoder.pixel([one.float() for one in given], output_attentions=False, return_dict=True)
        found = self.decoder.transformer(pixel.multi_scale_features, pixel.mask_features, output_hidden_states=True)
        queries = [one.transpose(0, 1) for one in found.intermediate_hidden_states]  # [B, Q, C]
        return MaskMaps(queries, list(found.masks_queries_logits), [pixel.mask_features] * len(queries))

    def macs(self, side_px: int) -> float:
        """See `MaskDecoder`; counted by hand, as transformers' code does not run without numbers."""
        config, width, queries = self.config, self.width, self.num_queries
        cells = [(side_px // stride) ** 2 for stride in STRIDES]
        deep = sum(cells[1:])  # of the levels that deformable attention goes over
        channels = [self.taps[name].channels for name in self.levels]
        inputs = width * sum(count * own for count, own in zip(cells, channels, strict=True))
        offsets = 3 * _POINTS * config.num_heads * 3  # of each head x and y, and a weight, at 4 points of 3 levels
        pixel = config.pixel_layers * deep * width * (2 * width + offsets + 2 * config.pixel_hidden)
        finest = cells[0] * width * (9 * width + width)
        predicted = (config.num_layers + 1) * (3 * queries * width**2 + queries * width * cells[0])
        layers = 0
        for layer in range(config.num_layers):
            seen = cells[3 - layer % 3]
            layers += width**2 * (2 * queries + 2 * seen) + 2 * queries * seen * width  # masked attention
            layers += 4 * queries * width**2 + 2 * queries**2 * width  # among queries
            layers += 2 * queries * width * config.hidden
        return float(inputs + pixel + finest + predicted + layers)


def _levels(taps: Mapping[str, Tap]) -> tuple[str, ...]:
    """For each of the strides the last tap that has it; else the one that is nearest, the coarser of two."""
    names = list(taps)

    def nearest(stride: int) -> str:
        octaves = {name: abs(math.log2(taps[name].stride / stride)) for name in names}
        return min(names, key=lambda name: (octaves[name], -taps[name].stride, -names.index(name)))

    return tuple(nearest(stride) for stride in STRIDES)


def _brought(given: Tensor, size: tuple[int, int]) -> Tensor:
    """The map at another size: finer by bilinear sampling, half as fine by every second cell (the reference's res5)."""
    if tuple(given.shape[2:]) == size:
        return given
    if tuple(-(-side // 2) for side in given.shape[2:]) == size:
        return given[:, :, ::2, ::2]
    return F.interpolate(given, size=size, mode="bilinear", align_corners=False)


def _bent(own: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(own, size=like.shape[2:], mode="bilinear", align_corners=False).to(like.dtype)


def _hf_config(config: FcClipConfig) -> Any:
    return _modeling().Mask2FormerConfig(
        feature_size=config.width,
        mask_feature_size=config.width,
        hidden_dim=config.width,
        num_attention_heads=config.num_heads,
        num_queries=config.num_queries,
        decoder_layers=config.num_layers + 1,
        encoder_layers=config.pixel_layers,
        encoder_feedforward_dim=config.pixel_hidden,
        dim_feedforward=config.hidden,
        feature_strides=list(STRIDES),
        common_stride=STRIDES[0],
        dropout=0.0,
    )


@cache
def _modeling() -> Any:
    with suppress(MissingDependencyError):
        ensure_torchvision()  # a broken one breaks transformers; an absent one does not
    try:
        from transformers.models.mask2former import modeling_mask2former
    except ImportError as error:
        raise MissingDependencyError(
            f"FC-CLIP's decoder is Mask2Former's of transformers, which cannot be imported ({error}): "
            "pip install 'eyesmith[dense]', or take the decoder PmtConfig, which needs nothing"
        ) from error
    return modeling_mask2former


@cache
def _decoder_class() -> type[nn.Module]:
    modeling = _modeling()

    class PixelAndMaskDecoder(modeling.Mask2FormerPreTrainedModel):
        """Mask2FormerModel without its backbone, so that any maps may be given; initialised as that one is."""

        def __init__(self, config: Any, channels: list[int]) -> None:
            super().__init__(config)
            self.pixel = modeling.Mask2FormerPixelDecoder(config, channels)
            self.transformer = modeling.Mask2FormerTransformerModule(config.feature_size, config)
            self.post_init()

    return PixelAndMaskDecoder
