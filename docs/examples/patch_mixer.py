"""An encoder of one's own: patches of 16 pixels, mixed in space and over channels in turn (after ConvMixer)."""

from collections.abc import Sequence

from torch import Tensor, nn

from eyesmith import Encoder, Tap

SIZES = {"pico": {"width": 232, "depth": 8}, "nano": {"width": 512, "depth": 8}}
MEAN = STD = (0.5, 0.5, 0.5)


class Mixer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, width, 3, padding=1, groups=width))
        self.channels = nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, width, 1), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        x = x + self.space(x)
        return x + self.channels(x)


class PatchMixer(Encoder):
    def __init__(self, image_size: tuple[int, int], embed_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.image_size, self.stride, self.mean, self.std = image_size, 16, MEAN, STD
        self.embed_dim = embed_dim or width
        self.taps = {"cells": Tap(16, width)}
        self.patch = nn.Conv2d(3, width, 16, stride=16)
        self.mixers = nn.ModuleList(Mixer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, embed_dim, bias=False) if embed_dim else nn.Identity()

    def maps(self, pixels: Tensor) -> list[Tensor]:  # after each mixer
        maps = [self.patch(self.prepare(pixels))]
        for mixer in self.mixers:
            maps.append(mixer(maps[-1]))
        return maps[1:]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.dense(pixels).mean((2, 3)))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {name: self.dense(pixels) for name in self.check_taps(taps)}

    def dense(self, pixels: Tensor) -> Tensor:
        return self.maps(pixels)[-1]

    def project(self, vectors: Tensor) -> Tensor:
        return self.head(self.norm(vectors))

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        return self.maps(pixels)[self.check_layer(layer, len(self.mixers))].flatten(2).mT  # [B, N, C]

    def set_image_size(self, height: int, width: int) -> None:  # a convolution takes any size
        self.check_size(height, width)
        self.image_size = (height, width)

    def blocks(self) -> list[nn.Module]:
        return list(self.mixers)


def build(*, image_size: tuple[int, int], embed_dim: int, width: int, depth: int) -> Encoder:
    return PatchMixer(image_size, embed_dim, width, depth)
