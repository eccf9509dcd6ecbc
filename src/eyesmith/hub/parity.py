"""Real pictures and texts, and how far two programs' features of them are apart."""

import importlib.util
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyesmith.hub.fingerprint import fixed_images
from eyesmith.images import open_image

# largest difference of one element of a unit feature in fp32; the order of sums alone gives about 1e-6
FP32_BOUND = 1e-5
TEXTS = (
    "a photo of a cat",
    "A diagram.",
    "a woman in uniform in front of a flag",
    "two red cubes, left of a blue ball",
    "naïve café ☕ 42",
    "a very long caption that does not end where it could, " * 9,
)
# in the wheel of matplotlib, which is always installed: a photo and three drawings, two of them with transparency
_PICTURES = (
    "sample_data/grace_hopper.jpg",
    "sample_data/Minduka_Present_Blue_Pack.png",
    "sample_data/logo2.png",
    "images/matplotlib_large.png",
)


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One comparison. difference: largest of one element of the unit features; bound: what is allowed, None: anything.

    peer: whose numbers ours are compared with; part: image, text; inputs: how many pictures or texts.
    """

    peer: str
    part: str
    inputs: int
    difference: float
    bound: float | None

    @property
    def ok(self) -> bool:
        """Whether the difference is a number and within its bound."""
        return math.isfinite(self.difference) and (self.bound is None or self.difference <= self.bound)

    def cells(self) -> tuple[str, ...]:
        """The row for a table."""
        bound = "" if self.bound is None else f"{self.bound:.0e}"
        return self.peer, self.part, str(self.inputs), f"{self.difference:.1e}", bound, "yes" if self.ok else "NO"

    def as_dict(self) -> dict[str, Any]:
        """The row for programs; a difference that is no number becomes null."""
        difference = self.difference if math.isfinite(self.difference) else None
        return {**asdict(self), "difference": difference, "ok": self.ok}


def sample_images() -> list[Image.Image]:
    """Pictures of several sizes and modes: a photo and parts of it, drawings, and three made by arithmetic."""
    found = importlib.util.find_spec("matplotlib")
    folder = Path(found.origin).parent / "mpl-data" if found is not None and found.origin else Path()
    pictures: list[Image.Image] = []
    for path in (folder / name for name in _PICTURES):
        if path.is_file():  # a distribution may leave them out
            pictures.append(open_image(path))
    if pictures:
        photo = pictures[0]
        width, height = photo.size
        pictures += [photo.crop((0, 0, width, height // 3)), photo.crop((width // 4, height // 4, width, height))]
    return pictures + fixed_images()


def compare(ours: Tensor, theirs: Tensor, *, peer: str, part: str, bound: float | None) -> ParityRow:
    """The largest difference between two sets of feature rows [N, D], each row scaled to length 1 first."""
    left, right = (F.normalize(rows.detach().cpu().double(), dim=-1) for rows in (ours, theirs))
    difference = float((left - right).abs().max()) if left.shape == right.shape and left.numel() else float("nan")
    return ParityRow(peer, part, len(left), difference, bound)
