"""Seeing where, against how the references do it, on this processor."""

import torch
from torch import Tensor

from bench.pairs import Row, speed
from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.models.encoder import Encoder
from eyesmith.models.registry import create_encoder

SIZE, STRIDE = 224, 32  # 64 windows of 48 px
BOUND = 1e-4  # of a map, relative to its greatest value


def rows() -> list[Row]:
    """The windows of a picture in one batch against one at a time."""
    return [_sliding()]


def _sliding() -> Row:
    """Sliding F-ViT's taps of one picture: strides 4, 8, 16 (half of the blocks) and 16 (all)."""
    torch.manual_seed(0)
    encoder = create_encoder("vitamin_nano_48").eval()
    sliding = SlidingEncoder(encoder, (SIZE, SIZE), stride=STRIDE, windows_at_once=64)
    return speed(
        "sliding_batched",
        _picture,
        sliding.pyramid,
        lambda pixels: one_at_a_time(encoder, pixels),
        equal=_are_equal,
        count=1,
        unit="pictures/s",
        peer="the references' loop",
        note=f"ViTamin-Nano, {SIZE} px, {sliding.num_windows} windows of 48 px; equal: each map within {BOUND:g}",
    )


@torch.no_grad()
def one_at_a_time(encoder: Encoder, pixels: Tensor) -> dict[str, Tensor]:
    """As Sliding F-ViT and Sliding FC-CLIP do it: a forward pass a window, added into sum and count maps."""
    window = encoder.image_size[0]
    sums = {name: torch.zeros(1, t.channels, SIZE // t.stride, SIZE // t.stride) for name, t in encoder.taps.items()}
    counts = {name: torch.zeros(1, 1, *total.shape[2:]) for name, total in sums.items()}
    starts = [min(start, SIZE - window) for start in range(0, SIZE - window + STRIDE, STRIDE)]
    for top in starts:
        for left in starts:
            maps = encoder.pyramid(pixels[:, :, top : top + window, left : left + window])
            for name, found in maps.items():
                y, x = (start // encoder.taps[name].stride for start in (top, left))
                sums[name][:, :, y : y + found.shape[2], x : x + found.shape[3]] += found
                counts[name][:, :, y : y + found.shape[2], x : x + found.shape[3]] += 1
    return {name: total / counts[name] for name, total in sums.items()}


def _picture(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def _are_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    differences = [float((ours[name] - other).abs().max() / other.abs().max()) for name, other in theirs.items()]
    return list(ours) == list(theirs) and max(differences) <= BOUND
