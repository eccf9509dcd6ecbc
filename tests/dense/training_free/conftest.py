"""A model whose answers are known: cells that see their own colour, and words that are colours."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder, Tap

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


class ColourEye(Encoder):
    """Cells of 4 px, 16 px pictures; a feature is the mean colour."""

    def __init__(self, image_size: tuple[int, int] = (16, 16)) -> None:
        super().__init__()
        self.image_size = image_size
        self.mean, self.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        self.stride, self.embed_dim, self.taps = 4, 3, {"only": Tap(4, 3)}
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.dense(pixels).mean((2, 3)))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {name: self.dense(pixels) for name in self.check_taps(taps)}

    def dense(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.prepare(pixels), 4)

    def project(self, vectors: Tensor) -> Tensor:
        return vectors @ self.weight

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        return self.dense(pixels).flatten(2).mT

    def set_image_size(self, height: int, width: int) -> None:
        self.check_size(height, width)
        self.image_size = (height, width)

    def blocks(self) -> list[nn.Module]:
        return []


@pytest.fixture
def colour_clip(tiny_model: ClipConfig) -> Clip:
    clip = tiny_model.build().eval()
    clip.image = ColourEye()
    clip.text, clip.prompts = ColourWords(), ("{}",)  # pyright: ignore
    clip.preprocess = PreprocessConfig(image_size=(16, 16), mean=clip.image.mean, std=clip.image.std)
    return clip


class ColourWords(nn.Module):
    """Vectors of the colours that texts name."""

    def __init__(self) -> None:
        super().__init__()
        self.out_dim = 3
        self.weight = nn.Parameter(torch.zeros(1))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([list(COLOURS[text]) for text in texts])

    def forward(self, ids: Tensor) -> Tensor:
        return (ids / 255 - 0.5) / 0.5
