"""What is in a proposal: its class as a direction in text space, its box moved onto it, its mask.

The classifier has no weights of its own but a temperature: a region's vector is compared with text vectors, so that
classes are exchanged without training. Source: F-ViT (CLIPSelf's release), Mask R-CNN (arXiv 1703.06870).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.boxes import Spread, areas
from eyesmith.dense.detect.neck import Norm, convolution
from eyesmith.dense.roi_align import plane_means, roi_align
from eyesmith.errors import ConfigError

SPREAD: Spread = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True, kw_only=True)
class BoxHeadConfig:
    """The part that names and moves proposals."""

    width: int = 256
    """Of its convolutions."""
    num_convs: int = 4
    fc_dim: int = 768
    """Of its two shared layers."""
    norm: Norm = "group"
    finest_px: float = 56.0
    """Boxes of less than twice this side are read from the finest level, each doubling from the next."""
    positive: float = 0.5
    """IoU from which a proposal shows an object; below it shows background."""
    samples: int = 512
    """Proposals of a picture that learn in a step."""
    positive_frac: float = 0.25
    scale: float = 50.0
    """Factor on cosines at the start; it trains unless scale_trains is false."""
    scale_trains: bool = True
    relu_embedding: bool = False
    """Whether a region's vector is bounded below by 0, as in the release, where text vectors are not."""
    background_weight: float = 0.6
    """Of background in the class loss (COCO 0.6, LVIS 0.9)."""

    def __post_init__(self) -> None:
        if min(self.width, self.fc_dim, self.samples) < 1 or self.num_convs < 0 or self.finest_px <= 0:
            raise ConfigError(f"box: width, fc_dim, samples and finest_px must be positive, got {self}")
        if not 0 < self.positive <= 1 or not 0 <= self.positive_frac <= 1:
            raise ConfigError("box: expected positive and positive_frac in 0..1")
        if self.scale <= 0 or self.background_weight < 0:
            raise ConfigError("box: expected a positive scale, and a background_weight of 0 or more")


@dataclass(frozen=True, kw_only=True)
class MaskHeadConfig:
    """The part that outlines them."""

    width: int = 256
    num_convs: int = 4
    norm: Norm = "group"
    pool: int = 14
    """Cells a side that are read; a mask has twice as many."""

    def __post_init__(self) -> None:
        if min(self.width, self.num_convs, self.pool) < 1:
            raise ConfigError(f"mask: width, num_convs and pool must be positive, got {self}")


def level_of(boxes: Tensor, num_levels: int, finest_px: float) -> Tensor:
    """int64 [R], the level that each box is read from. Source: FPN, eq. 1, as mmdet has it."""
    sides = areas(boxes).sqrt()
    return (sides / finest_px + 1e-6).log2().floor().clamp(0, num_levels - 1).long()


def pool_levels(
    pyramid: Sequence[Tensor], strides: Sequence[float], boxes: Tensor, images: Tensor, side: int, finest_px: float
) -> Tensor:
    """[R, C, side, side], each box from its level. pyramid: the levels that regions are read from."""
    levels = level_of(boxes, len(pyramid), finest_px)
    parts, places = [], []
    for level, (features, stride) in enumerate(zip(pyramid, strides, strict=True)):
        own = (levels == level).nonzero()[:, 0]
        if len(own):
            places.append(own)
            parts.append(roi_align(features, boxes[own], images[own], (side, side), stride=stride))
    if not parts:
        return pyramid[0].new_zeros(0, pyramid[0].shape[1], side, side)
    return torch.cat(parts)[torch.cat(places).argsort()]


class BoxHead(nn.Module):
    """7 x 7 cells of a region in, a vector in text space and a move of its box out."""

    POOL = 7

    def __init__(self, config: BoxHeadConfig, channels: int, embed_dim: int) -> None:
        """channels: of the pyramid; embed_dim: of text vectors."""
        super().__init__()
        self.config = config
        inner = [channels, *[config.width] * (config.num_convs - 1)][: config.num_convs]
        self.convs = nn.Sequential(*(convolution(width, config.width, 3, config.norm) for width in inner))
        flat = (config.width if config.num_convs else channels) * self.POOL**2
        self.shared = nn.Sequential(
            nn.Linear(flat, config.fc_dim), nn.ReLU(), nn.Linear(config.fc_dim, config.fc_dim), nn.ReLU()
        )
        self.embedding = nn.Linear(config.fc_dim, embed_dim)
        self.placing = nn.Sequential(nn.Linear(config.fc_dim, config.fc_dim), nn.ReLU(), nn.Linear(config.fc_dim, 4))
        nn.init.normal_(self.placing[2].weight, std=0.001)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.placing[2].bias)  # pyright: ignore[reportArgumentType]
        self.scale = nn.Parameter(torch.tensor(float(config.scale)), requires_grad=config.scale_trains)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """pooled: [R, C, 7, 7] -> unit vectors fp32 [R, D] and moves fp32 [R, 4] by `SPREAD`."""
        hidden = self.shared(self.convs(pooled).flatten(1))
        vectors = self.embedding(hidden)
        if self.config.relu_embedding:
            vectors = vectors.relu()
        return F.normalize(vectors.float(), dim=-1), self.placing(hidden).float()


class MaskHead(nn.Module):
    """Cells of a region in, one mask of whatever is in it out, twice as fine."""

    def __init__(self, config: MaskHeadConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        inner = (channels, *[config.width] * (config.num_convs - 1))
        self.convs = nn.Sequential(*(convolution(width, config.width, 3, config.norm) for width in inner))
        self.finer = nn.ConvTranspose2d(config.width, config.width, 2, 2)
        self.logits = nn.Conv2d(config.width, 1, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: [R, C, p, p] -> logits fp32 [R, 2p, 2p]."""
        hidden = self.convs(pooled)
        count, width, height, breadth = hidden.shape
        cells = hidden.permute(0, 2, 3, 1).flatten(0, 2)  # [R p p, C]
        # steps as wide as the kernel overlap nowhere: each cell becomes 2 x 2 by one product, which CPUs do sooner
        kernel = self.finer.weight.permute(0, 2, 3, 1).flatten(1)  # [C, 2 2 C]
        assert self.finer.bias is not None
        finer = torch.addmm(self.finer.bias.repeat(4), cells, kernel).relu().unflatten(1, (4, width))
        logits = F.linear(finer, self.logits.weight.flatten(1), self.logits.bias)  # [R p p, 4, 1]
        parts = logits.view(count, height, breadth, 2, 2).transpose(2, 3)
        return parts.reshape(count, 2 * height, 2 * breadth).float()


@torch.no_grad()
def mask_targets(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """What a mask head shall say in each box: fp32 [R, side, side] of 0 and 1; masks: [R, H, W], of each its own."""
    if not len(boxes):
        return boxes.new_zeros(0, side, side)
    return (plane_means(masks, boxes, side) >= 0.5).float()
