"""What plain transformers over patches have in common: one sequence through equal blocks at one stride.

B batch, H W grid cells, N tokens (those before the patches first), C channels, D embedding.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from eyesmith.models.encoder import Encoder, Tap, spread_taps


class PlainTransformer(Encoder):
    """An encoder of `patch`, `layers`, `norm` and `head`, pooled as `config.pooling` says.

    `dense` comes before the last norm, except with pooling `normed_mean`, where it is the normed map; either way
    `project` of its cells lies in the space of `forward`.
    """

    config: Any  # of the family, with the fields read here
    patch: nn.Conv2d
    layers: nn.ModuleList
    norm: nn.Module

    def describe(self, config: Any, num_prefix: int) -> None:
        """Set the facts that the config decides. num_prefix: tokens before the patches."""
        self._num_prefix = num_prefix
        self.config, self.image_size, self.stride = config, config.image_size, config.patch_px
        self.embed_dim = config.embed_dim or config.width
        self.is_mean_pooled = config.pooling in ("mean", "normed_mean")
        self._tap_depths = spread_taps(config.depth)
        self.taps = {name: Tap(config.patch_px, config.width) for name in self._tap_depths}
        self.half_tap = f"block{config.depth // 2}" if config.depth > 1 else None

    @abstractmethod
    def _enter(self, patches: Tensor, kept: Tensor | None) -> tuple[Tensor, *tuple[Any, ...]]:
        """The tokens before the first block, and what else each block gets."""

    def patches(self, pixels: Tensor) -> Tensor:
        """The patches as vectors, before any position: pixels [B, 3, H, W] -> [B, H W, C]."""
        return self.patch(self.prepare(pixels)).flatten(2).mT

    def encode(self, patches: Tensor, *, depth: int | None = None, kept: Tensor | None = None) -> Tensor:
        """The blocks' output, before the last norm: patches [B, H W, C] -> [B, N, C], the class token first.

        patches: of the whole grid, row-major; some may be mask tokens. depth: blocks to run, None for all. kept: int64
        [B, K] patches to go on with, the others are dropped after positions were added; the result has K patches.
        """
        x, *places = self._enter(patches, kept)
        for block in self.layers[:depth]:
            x = block(x, *places)
        return x

    def forward(self, pixels: Tensor) -> Tensor:
        if self.config.pooling != "token":
            return self.pool(self.encode(self.patches(pixels)))
        x, *places = self._enter(self.patches(pixels), None)
        for block in self.layers[:-1]:
            x = block(x, *places)
        return self.pool(self.layers[-1](x, *places, is_first_wanted=True))  # of the last block nothing else is read

    def pool(self, tokens: Tensor) -> Tensor:
        """The feature of an image out of `encode`'s tokens: [B, N, C] -> [B, D]."""
        if self.config.pooling == "token":
            return self.project(tokens[:, 0])
        cells = tokens[:, self._num_prefix :]
        return self.project((self.norm(cells) if self.config.pooling == "normed_mean" else cells).mean(dim=1))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        maps: dict[int, Tensor] = {}
        x, *places = self._enter(self.patches(pixels), None)
        wanted = {self._tap_depths[name] for name in names}
        for depth, block in enumerate(self.layers[: max(wanted, default=0)], 1):
            x = block(x, *places)
            if depth in wanted:
                maps[depth] = self._map(x)
        return {name: maps[self._tap_depths[name]] for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        tokens = self.encode(self.patches(pixels))
        return self._map(self.norm(tokens) if self.config.pooling == "normed_mean" else tokens)

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        depth = 1 + self.check_layer(layer, len(self.layers))
        return self.encode(self.patches(pixels), depth=depth)[:, self._num_prefix :]

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def _map(self, tokens: Tensor) -> Tensor:
        height, width = self.seen_size
        cells = tokens[:, self._num_prefix :].mT
        return cells.unflatten(2, (height // self.stride, width // self.stride))  # [B, C, H, W]
