"""Dense, tiled or ring: three ways to compute one loss, equal but for rounding."""

from typing import Literal

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses.positives import Same
from eyesmith.losses.ring import GatherRows, Ring

Form = Literal["auto", "dense", "tiled", "ring"]
DENSE_BELOW = 1024
"""Rows below which `auto` takes the dense form in one process; measured on two cores, see docs/losses.md."""


def choose_form(form: Form, num_rows: int, world_size: int, same: Same | Tensor | None) -> Form:
    """`form` with auto decided: ring between processes; in one, dense for few rows or a mask in full, else tiled.

    Raises ConfigError for an unknown form, and where `same` is a matrix and the form cannot take one.
    """
    if form not in ("auto", "dense", "tiled", "ring"):
        raise ConfigError(f"form: expected auto, dense, tiled or ring, got {form!r}")
    has_matrix = isinstance(same, Tensor)
    if form == "auto" and world_size == 1:
        form = "dense" if has_matrix or num_rows < DENSE_BELOW else "tiled"
    elif form == "auto":
        form = "ring"
    if has_matrix and (form != "dense" or world_size > 1):
        raise ConfigError(
            f"same: a [B, B] matrix goes with form='dense' in one process, not {form!r} on {world_size}; give codes: "
            "losses.positives.Same(image_codes, text_codes)"
        )
    return form


def check_features(image: Tensor, text: Tensor, same: Same | Tensor | None, tile_rows: int | None) -> None:
    """Raises ShapeError unless image and text are [b, D] of one shape and `same` has b rows (a matrix: also columns).

    Raises ConfigError for tile_rows below 1.
    """
    if image.ndim != 2 or image.shape != text.shape:
        raise ShapeError(
            f"image and text: expected equal shapes [B, D], got {list(image.shape)} and {list(text.shape)}"
        )
    if same is not None and len(same) != len(image):
        raise ShapeError(f"same: expected {len(image)} rows as image and text have, got {len(same)}")
    if isinstance(same, Tensor) and same.shape != (len(image), len(image)):
        raise ShapeError(f"same: expected {[len(image)] * 2}, got {list(same.shape)}")
    if tile_rows is not None and tile_rows < 1:
        raise ConfigError(f"tile_rows: expected 1 or more, or None for the default, got {tile_rows}")


def gather_batch(image: Tensor, text: Tensor, same: Same | None, ring: Ring) -> tuple[Tensor, Tensor, Same | None]:
    """The global batch on every rank, with gradient: what dense and tiled forms need between processes."""
    if ring.world_size == 1:
        return image, text, same
    image, text = GatherRows.apply(image, ring), GatherRows.apply(text, ring)  # pyright: ignore
    if same is not None:
        codes = [ring.gather(code) for code in same.distinct()]
        same = Same(codes[0], codes[-1])
    return image, text, same


def comparable(features: Tensor) -> Tensor:
    """Features in the format that products are taken in: halves as they are on CUDA, elsewhere in fp32."""
    if features.device.type == "cuda" and features.dtype in (torch.bfloat16, torch.float16):
        return features
    return features.to(torch.promote_types(features.dtype, torch.float32))
