"""In which number format the towers of an evaluation compute. Said once here, and the same on every device.

Features are normalised, stored and compared in fp32 whatever the towers computed in, except where a policy says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from eyesmith.errors import ConfigError

Precision = Literal["fp32", "bf16", "reference"]
Tower = Literal["image", "text"]


@dataclass(frozen=True, kw_only=True)
class TowerPrecision:
    """What a tower runs under: autocast to `half`, or its own weights' format when None."""

    half: torch.dtype | None = None

    @property
    def name(self) -> str:
        """ "fp32", "bf16" or "fp16", for file names and result lines."""
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.half]

    @contextmanager
    def __call__(self, device: torch.device) -> Iterator[None]:
        """The block runs the tower in this format on `device`."""
        if self.half is None:
            with torch.autocast(device.type, enabled=False):
                yield
        else:
            with torch.autocast(device.type, dtype=self.half):
                yield


def tower_precision(
    precision: Precision, tower: Tower, device: torch.device, *, half_images: bool = False
) -> TowerPrecision:
    """The format of one tower. half_images: of the kinds of measurement whose images the reference encodes in half.

    fp32: both towers in fp32. bf16: both under bfloat16 autocast. reference: what DataComp's evaluation does on a CUDA
    device, that is the text tower under fp16 autocast, the images in fp32 except for retrieval and WinoGAViL, which
    are under fp16 autocast as well; on other devices its autocast does nothing, so fp32.
    Raises ConfigError for another name. Source: DataComp's evaluation with clip-benchmark 1.4.0.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: expected one of {', '.join(get_args(Precision))}, got {precision!r}")
    if precision == "bf16":
        return TowerPrecision(half=torch.bfloat16)
    if precision == "reference" and device.type == "cuda" and (tower == "text" or half_images):
        return TowerPrecision(half=torch.float16)
    return TowerPrecision()
