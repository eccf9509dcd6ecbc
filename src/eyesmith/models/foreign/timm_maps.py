"""What a timm backbone gives beside its pooled feature: maps, tokens, blocks, other sizes."""

import re
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Encoder, Tap, spread_taps


class TimmMaps(Encoder):
    """An encoder whose maps a timm backbone makes; a class that derives from it holds the backbone and pools.

    `dense` is timm's forward_features without class and register tokens, so it comes after the final norm where that
    norm stands before the pooling (a class-token ViT, CoAtNet) and before it where it stands after (ConvNeXt, a
    mean-pooled ViT). `project` pools a set of equal tokens, or a map of one cell, which is that cell in every pooling:
    of an attention pooling it is the path of the values.
    """

    is_sequence: bool  # [B, N, C] inside, not a map

    @abstractmethod
    def timm(self) -> Any:
        """The backbone."""

    @abstractmethod
    def pooled(self, features: Tensor) -> Tensor:
        """The feature [B, D] of what timm's forward_features gives."""

    def describe(self, image_size: tuple[int, int], name: str) -> None:
        """Set the facts that the backbone decides. Raises ConfigError for one that cannot be taken apart."""
        backbone = self.timm()
        self.is_sequence = hasattr(backbone, "num_prefix_tokens")
        info = list(backbone.feature_info)
        self.stride = int(info[-1]["reduction"])
        self.image_size = image_size
        self._name = name
        self.check_size(*image_size)
        self._tap_indices = _tap_indices(info, is_sequence=self.is_sequence)
        self.taps = {name: Tap(int(info[i]["reduction"]), info[i]["num_chs"]) for name, i in self._tap_indices.items()}
        self.half_tap = f"block{len(info) // 2}" if self.is_sequence and len(info) > 1 else None
        self.is_mean_pooled = self._mean_pooled()
        self._last_blocks()  # refuses now what it could not take apart later

    def prepare(self, pixels: Tensor) -> Tensor:
        """As every encoder's; channels last in memory where the backbone makes maps, whose convolutions want it."""
        pixels = super().prepare(pixels)
        return pixels if self.is_sequence else pixels.contiguous(memory_format=torch.channels_last)

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        indices = sorted({self._tap_indices[name] for name in names})
        maps = self.timm().forward_intermediates(
            self.prepare(pixels), indices=indices, output_fmt="NCHW", stop_early=True, intermediates_only=True
        )
        found = dict(zip(indices, maps, strict=True))
        return {name: found[self._tap_indices[name]] for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        features = self.timm().forward_features(self.prepare(pixels))
        if not self.is_sequence:
            return self._channels_first(features)
        cells = features[:, self.timm().num_prefix_tokens :]  # [B, N, C]
        return cells.mT.reshape(len(cells), -1, self.image_size[0] // self.stride, self.image_size[1] // self.stride)

    def project(self, vectors: Tensor) -> Tensor:
        cells = vectors.reshape(-1, vectors.shape[-1])
        if self.is_sequence:
            pooled = self.pooled(cells[:, None].expand(-1, self.timm().num_prefix_tokens + 1, -1))
        else:
            single = cells[:, None, None] if self._is_channels_last() else cells[:, :, None, None]
            pooled = self.pooled(single)
        return pooled.view(*vectors.shape[:-1], -1)

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        blocks = self._last_blocks()
        block = blocks[self.check_layer(layer, len(blocks))]
        caught: list[Any] = []
        handle = block.register_forward_hook(lambda _module, _args, result: caught.append(result))
        try:
            self.timm().forward_features(self.prepare(pixels))
        finally:
            handle.remove()
        if self.is_sequence:
            return caught[0][:, self.timm().num_prefix_tokens :]
        return self._channels_first(caught[0]).flatten(2).mT  # [B, N, C]

    def set_image_size(self, height: int, width: int) -> None:
        """Change the input size by timm's own rule for the family (tables: bicubic, antialiased)."""
        self.check_size(height, width)
        backbone = self.timm()
        if hasattr(backbone, "set_input_size"):
            with warnings.catch_warnings():
                # torch's remarks on how timm 1.0.31 indexes and searches while it resamples relative position tables
                warnings.simplefilter("ignore", UserWarning)
                backbone.set_input_size(img_size=(height, width))
        elif backbone.default_cfg.get("fixed_input_size", False) and (height, width) != self.image_size:
            raise ConfigError(f"image_size: timm's {self._name} cannot change its size")
        self.image_size = (height, width)

    def blocks(self) -> list[nn.Module]:
        if self.is_sequence:
            return self._last_blocks()
        return [block for stage in _stages(self.timm()) for block in _blocks_of(stage)]

    def _last_blocks(self) -> list[nn.Module]:
        if self.is_sequence:
            return list(self.timm().blocks)
        stages = _stages(self.timm())
        if not stages:
            raise ConfigError(
                f"model_name: cannot tell the stages of timm's {self._name}; "
                "take a ViT, ConvNeXt, CoAtNet, MaxViT, ResNet or RegNet"
            )
        return _blocks_of(stages[-1])

    def _mean_pooled(self) -> bool:
        backbone = self.timm()
        if self.is_sequence:
            return backbone.global_pool == "avg" and not getattr(backbone, "pool_include_prefix", False)
        head = getattr(backbone, "head", None)
        pool_type = getattr(getattr(head, "global_pool", getattr(backbone, "global_pool", None)), "pool_type", "")
        return pool_type == "avg"

    def _is_channels_last(self) -> bool:
        return str(getattr(self.timm(), "output_fmt", "NCHW")).endswith("NHWC")

    def _channels_first(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2) if self._is_channels_last() else features


def _tap_indices(info: list[dict[str, Any]], *, is_sequence: bool) -> dict[str, int]:
    """Tap name to timm's index of the intermediate map."""
    if not is_sequence:
        return {_tap_name(entry["module"]): index for index, entry in enumerate(info)}
    return {name: depth - 1 for name, depth in spread_taps(len(info)).items()}


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
