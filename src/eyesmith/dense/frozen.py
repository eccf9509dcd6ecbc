"""An encoder that no trainer can wake: what every head for detection and segmentation stands on.

B batch, H W pixels or cells, N tokens, C channels, D embedding.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder
from eyesmith.models.identity import module_hash


class FrozenEncoder(Encoder):
    """An encoder behind glass: the same contract, always in evaluation mode, without gradient.

    It holds a view of the encoder (`Encoder.at_size`) that is no sub-module: the parameters are shared, yet absent from
    `parameters()`, from `state_dict()` and thereby from every optimiser and checkpoint of the model it stands in, and
    no `train()` or `requires_grad_()` of that model reaches it. It moves with `to()`, the encoder it was made of with
    it. What is stored of it is `identity`.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if type(encoder) is FrozenEncoder:
            encoder = encoder.inner
        is_frozen = isinstance(encoder, FrozenEncoder)  # one with windows, or another way through its last block
        view = encoder if is_frozen else encoder.at_size(*encoder.image_size).eval()
        self._held = (view,)  # in a tuple, so no sub-module
        self._is_last: bool | None = None
        self._copy_facts(encoder)
        super().train(False)

    def _copy_facts(self, encoder: Encoder) -> None:
        self.image_size = (encoder.image_size[0], encoder.image_size[1])
        self.mean, self.std = encoder.mean, encoder.std
        self.stride, self.embed_dim = encoder.stride, encoder.embed_dim
        self.taps, self.half_tap = dict(encoder.taps), encoder.half_tap
        self.is_mean_pooled = encoder.is_mean_pooled

    @property
    def inner(self) -> Encoder:
        """The view that computes, in evaluation mode."""
        return self._held[0]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        inner = self.inner
        return inner.device if isinstance(inner, FrozenEncoder) else next(inner.parameters()).device

    def identity(self) -> str:
        """Hexadecimal digest of all that its maps depend on: weights, structure, size. Reads every weight."""
        return self.inner.identity() if isinstance(self.inner, FrozenEncoder) else module_hash(self.inner)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever is asked for."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        return self.inner(pixels)

    @torch.no_grad()
    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        return self.inner.pyramid(pixels, taps)

    @torch.no_grad()
    def dense(self, pixels: Tensor) -> Tensor:
        return self.inner.dense(pixels)

    def pyramid_and_dense(self, pixels: Tensor, taps: Sequence[str] | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """`pyramid` and `dense` of the same pixels, in one pass where `dense` is the last tap; detectors want both."""
        names = self.check_taps(taps)
        if not self._dense_is_last_tap():
            return self.pyramid(pixels, names), self.dense(pixels)
        last = list(self.taps)[-1]
        maps = self.pyramid(pixels, [*names, last] if last not in names else names)
        return {name: maps[name] for name in names}, maps[last]

    @torch.no_grad()
    def _dense_is_last_tap(self) -> bool:
        """Found by trying it once: it is for most, but some encoders have a norm between the two."""
        if self._is_last is None:
            height, width = self.inner.image_size
            noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(self.device)
            last = list(self.taps)[-1]
            self._is_last = torch.equal(self.inner.dense(noise), self.inner.pyramid(noise, (last,))[last])
        return self._is_last

    @torch.no_grad()
    def project(self, vectors: Tensor) -> Tensor:
        return self.inner.project(vectors)

    @torch.no_grad()
    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        return self.inner.tokens(pixels, layer)

    def set_image_size(self, height: int, width: int) -> None:
        """Refused, but for the size it has: heads rely on it."""
        if (height, width) != self.image_size:
            raise ConfigError(
                f"image_size: a frozen encoder keeps its {self.image_size[0]} x {self.image_size[1]}; "
                f"take another with at_size({height}, {width})"
            )

    def at_size(self, height: int, width: int) -> Self:
        """The same weights, frozen, at another size; position tables are resampled from the native ones."""
        return type(self)(self.inner.at_size(height, width))

    def prepare(self, pixels: Tensor) -> Tensor:
        return self.inner.prepare(pixels)

    def check_pixels(self, pixels: Tensor) -> None:
        self.inner.check_pixels(pixels)

    def blocks(self) -> list[torch.nn.Module]:
        return self.inner.blocks()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`to()`, `half()` and the like: the held view too, as it is no sub-module."""
        self.inner._apply(fn, recurse)
        return super()._apply(fn, recurse)


def check_dense(clip: Clip) -> None:
    """Raise ConfigError where the map of a model's eye is in no space of texts."""
    if not clip.image.is_mean_pooled:
        raise ConfigError(
            f"predict.source: {clip.config.name} pools by a token of its own, so its map is in no space of texts; take "
            "source=crop or detector, or an encoder that pools by a mean"
        )
