"""A training step of a detector's head on a frozen eye: the eye's maps kept, against an eye in every step.

The references run their backbone in each step. What it says of a picture that is not scaled at random never changes, so
ours reads it from where it was kept. Both sides are the same head, losses and optimiser.
"""

import json
import sys

import torch
from torch import Tensor

from bench.memory import of_fresh_process, reset_peak_mib, status_mib
from bench.pairs import Row, speed
from eyesmith.dense.detect.detector import Detector
from eyesmith.dense.detect.truths import Truths, truths_of
from eyesmith.dense.view import ViewConfig
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.models.registry import config
from eyesmith.recipes.detect import SMALL_HEAD

SIDE, BATCH, OBJECTS, CLASSES = 224, 4, 6, 262
BOUND = 2e-3  # of a kept map, relative to its greatest value: half precision


def rows() -> list[Row]:
    """A step at batch 4, and the memory of it."""
    peak = of_fresh_process("bench.dense_detector")["peak_mib"]
    return [_step(f"peak {peak / 1024:.2f} GB in a process of its own")]


class _Side:
    """The head of `detect-emoji`, its optimiser and its eye, from fixed random weights."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        encoder = config("ViTamin-Nano").image.build().eval()
        self.eye = ViewConfig(side_px=SIDE).around(encoder)
        self.head = Detector(SMALL_HEAD, self.eye.taps, self.eye.half_tap, self.eye.embed_dim)
        names = tuple(f"class {place}" for place in range(CLASSES))
        vectors = torch.nn.functional.normalize(torch.randn(CLASSES, self.eye.embed_dim), dim=-1)
        self.head.use(Vocabulary(names, names, vectors, torch.arange(CLASSES)), torch.randn(self.eye.embed_dim))
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=6e-4, fused=True)
        self.seen, self.count = torch.ones(CLASSES, dtype=torch.bool), 0

    def step(self, maps: dict[str, Tensor], truths: Truths) -> dict[str, Tensor]:
        losses = self.head(maps, truths, self.seen, self.count)
        self.optimizer.zero_grad()
        losses.sum(0).mean().backward()
        self.optimizer.step()
        self.count += 1
        return maps


def _step(memory: str) -> Row:
    ours, theirs = _Side(), _Side()
    kept: dict[int, dict[str, Tensor]] = {}

    def scenes(number: int) -> tuple[Tensor, Truths, dict[str, Tensor]]:
        pixels, truths = _scenes(number)
        if number not in kept:
            kept[number] = {name: value.half() for name, value in ours.eye.pyramid(pixels, ours.head.taps).items()}
        return pixels, truths, kept[number]

    return speed(
        "detector_step",
        scenes,
        lambda given: ours.step({name: value.float() for name, value in given[2].items()}, given[1]),
        lambda given: theirs.step(theirs.eye.pyramid(given[0], theirs.head.taps), given[1]),
        equal=_are_equal,
        count=BATCH,
        unit="images/s",
        peer="the eye in every step",
        note=f"ViTamin-Nano at {SIDE} px, boxes and masks, {CLASSES} classes, batch {BATCH}; {memory}; equal: each map "
        f"within {BOUND:g}",
    )


def _scenes(number: int) -> tuple[Tensor, Truths]:
    """Noise with squares on it."""
    draws = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=draws)
    sides = torch.randint(24, 97, (BATCH, OBJECTS, 1), generator=draws)
    corners = (torch.rand(BATCH, OBJECTS, 2, generator=draws) * (SIDE - sides)).long()
    boxes = torch.cat([corners, corners + sides], 2)
    masks = torch.zeros(BATCH, OBJECTS, SIDE, SIDE, dtype=torch.bool)
    for row in range(BATCH):
        for place, (x0, y0, x1, y1) in enumerate(boxes[row].tolist()):
            masks[row, place, y0:y1, x0:x1] = True
            pixels[row, :, y0:y1, x0:x1] = torch.randint(0, 256, (3, 1, 1), dtype=torch.uint8, generator=draws)
    labels = torch.randint(0, CLASSES, (BATCH, OBJECTS), generator=draws)
    return pixels, truths_of(list(boxes.float()), list(labels), (SIDE, SIDE), masks=list(masks))


def _are_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    differences = [float((ours[name] - other).abs().max() / other.abs().max()) for name, other in theirs.items()]
    return list(ours) == list(theirs) and max(differences) <= BOUND


def _peak() -> None:
    """The greatest memory of some steps on kept maps, on the last line."""
    side = _Side()
    pixels, truths = _scenes(0)
    maps = side.eye.pyramid(pixels, side.head.taps)
    reset_peak_mib()
    for _ in range(4):
        side.step(maps, truths)
    sys.stdout.write(json.dumps({"peak_mib": status_mib("VmHWM")}) + "\n")


if __name__ == "__main__":
    _peak()
