"""What an image encoder must offer.

Heads for detection, segmentation and language models use this contract and nothing else, so an encoder that passes
`conformance.check_encoder` works in all of them.
"""

import copy
import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.images.pixels import normalize
from eyesmith.images.transforms import PreprocessConfig

NUM_TAPS = 4  # of an encoder without stages, at most


@dataclass(frozen=True, slots=True)
class Tap:
    """One named feature map an encoder can give."""

    stride: int  # input pixels per cell
    channels: int


def spread_taps(num_blocks: int) -> dict[str, int]:
    """Names of taps behind blocks of one stride, evenly spread up to the last, and how many blocks each is behind."""
    count = min(NUM_TAPS, num_blocks)
    return {f"block{depth}": depth for depth in (k * num_blocks // count for k in range(1, count + 1))}


class Encoder(nn.Module, ABC):
    """An image encoder: plain facts, and seven methods; `at_size` comes with this class.

    The facts. `taps` is ordered from fine to coarse; its last entry has the stride and the channels of `dense`.
    `half_tap` is the one that stands after half of the transformer's blocks (rounded down), None for an encoder without
    a transformer whose blocks all work at one stride. `is_mean_pooled` says that the pooled feature is the plain mean
    of `dense`, so that project(mean(dense)) = forward.
    """

    image_size: tuple[int, int]  # height, width in pixels; changed by set_image_size only
    mean: tuple[float, float, float]  # of the pixels the weights expect, in 0..1
    std: tuple[float, float, float]
    stride: int  # input pixels per cell of `dense`; image sizes are multiples of it
    embed_dim: int  # D of forward's result
    taps: Mapping[str, Tap]
    half_tap: str | None = None
    is_mean_pooled: bool = True
    pictures: PreprocessConfig | None = None  # how they are prepared, where not by the house's rule
    takes_other_sizes: bool = False  # whether `seeing` works
    _seen: tuple[int, int] | None = None  # height and width inside of `seeing`
    _native: "tuple[Encoder] | None" = None  # of a view: the encoder it was made from, in a tuple, so no sub-module

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """The pooled feature before L2 normalisation: pixels [B, 3, H, W] -> [B, D]."""

    @abstractmethod
    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Feature maps by tap name, [B, channels, H/stride, W/stride] each, in the order asked for (None: all of them).

        Raises ConfigError for a name that is not in `taps`.
        """

    @abstractmethod
    def dense(self, pixels: Tensor) -> Tensor:
        """The last map before pooling: [B, C, H/stride, W/stride]."""

    @abstractmethod
    def project(self, vectors: Tensor) -> Tensor:
        """Pooling norm and head, applied to pooled or dense vectors of any leading shape: [..., C] -> [..., D]."""

    @abstractmethod
    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        """The output of one block of the last stage as a sequence without class token: [B, N, C].

        Tokens are in row-major order. layer counts the blocks that work at `stride`, as a list index does; the default
        is the input of the last one, which is what language models read. Raises ConfigError for another layer.
        """

    @abstractmethod
    def set_image_size(self, height: int, width: int) -> None:
        """Prepare for images of another size; position tables are resampled in place by the family's rule.

        Raises ShapeError when a side is not a positive multiple of the stride.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The residual units in the order they run: for sharding, compiling, checkpointing and layer-wise decay."""

    def at_size(self, height: int, width: int) -> Self:
        """The same weights at another image size, as a view that leaves this encoder alone; for frozen use.

        The parameters are shared, not copied, but for position tables of another size: they are resampled by the
        family's rule from this encoder's own, also where this is a view itself, so that no table is ever resampled
        twice; set_image_size of a view is refused. What is trained or loaded afterwards shows in the view, its tables
        excepted; compiled and packed parts are not taken over. Raises as set_image_size does.
        """
        native = self if self._native is None else self._native[0]
        shared: dict[int, Any] = {id(one): one for one in itertools.chain(native.parameters(), native.buffers())}
        view = copy.deepcopy(native, shared)
        if (height, width) != tuple(native.image_size):
            view.set_image_size(height, width)
        view._native = (native,)
        return view.train(self.training)  # pyright: ignore[reportReturnType]

    @contextmanager
    def seeing(self, height: int, width: int) -> Iterator[None]:
        """Inside, pictures have another size, in training too: position tables are resampled at each pass by the
        family's rule, and the gradient reaches the encoder's own. `forward` alone is asked for it.

        Raises ConfigError for an encoder that cannot, ShapeError for a side that is no positive multiple of the stride.
        """
        if not self.takes_other_sizes:
            raise ConfigError(f"{type(self).__name__} sees its own size alone; take a plain ViT or a ViTamin")
        self.check_size(height, width)
        before, self._seen = self._seen, (height, width)
        try:
            yield
        finally:
            self._seen = before

    @property
    def seen_size(self) -> tuple[int, int]:
        """Height and width of the pictures of this moment: `image_size`, but inside of `seeing`."""
        return self._seen or (self.image_size[0], self.image_size[1])

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pixels as the first layer wants them; every public method starts with this.

        pixels: uint8 [B, 3, H, W] is scaled and normalised with mean and std, in fp32; floats are taken as already
        normalised. Both come back in the type of the weights. Raises ShapeError for another rank, channel count, size
        or dtype.
        """
        self.check_pixels(pixels)
        if pixels.dtype == torch.uint8:
            pixels = normalize(pixels, self.mean, self.std)
        return pixels.to(next(self.parameters()).dtype)

    def evaluation_config(self) -> PreprocessConfig:
        """How pictures become the pixels that the weights want, at the size of this moment."""
        if self.pictures is None:
            return PreprocessConfig(image_size=self.image_size, mean=self.mean, std=self.std)
        return dataclasses.replace(self.pictures, image_size=self.image_size)

    def check_pixels(self, pixels: Tensor) -> None:
        """Raise ShapeError unless `prepare` takes these pixels; it names the shape that it got."""
        if pixels.ndim != 4 or pixels.shape[1] != 3 or tuple(pixels.shape[2:]) != self.seen_size:
            height, width = self.seen_size
            raise ShapeError(
                f"pixels: expected [B, 3, {height}, {width}], got {list(pixels.shape)}; "
                "resize the images, or call set_image_size(height, width) on the encoder"
            )
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise ShapeError(f"pixels: expected uint8 (0..255) or normalised floats, got {pixels.dtype}")

    def check_size(self, height: int, width: int) -> None:
        """Raise ShapeError unless both sides are positive multiples of the stride; set_image_size starts with this.

        Raises ConfigError in a view, whose tables are resampled already.
        """
        if self._native is not None:
            raise ConfigError(
                f"image_size: this is a view at {self.image_size[0]} x {self.image_size[1]}, whose tables would be "
                f"resampled twice; take another with at_size({height}, {width})"
            )
        if min(height, width) < self.stride or height % self.stride or width % self.stride:
            raise ShapeError(
                f"image_size: expected positive multiples of {self.stride}, got {height} x {width}; "
                f"the nearest below is {height // self.stride * self.stride} x {width // self.stride * self.stride}"
            )

    def check_taps(self, taps: Sequence[str] | None) -> list[str]:
        """The asked-for tap names, all of them for None. Raises ConfigError for an unknown one."""
        if unknown := [name for name in taps or () if name not in self.taps]:
            raise ConfigError(f"taps: no {', '.join(unknown)}; this encoder has {', '.join(self.taps)}")
        return list(self.taps if taps is None else taps)

    def check_layer(self, layer: int, count: int) -> int:
        """The list index of a layer among `count`, negative ones counted from the end. Raises ConfigError beyond."""
        if not -count <= layer < count:
            raise ConfigError(f"layer: expected {-count} to {count - 1}, got {layer}")
        return layer % count
