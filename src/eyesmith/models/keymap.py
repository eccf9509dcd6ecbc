"""Weights under other names: one map of a family's tensors serves to read and to write a file, bit for bit.

Formats of files are hub's business; here are named tensors. A family's `weights.py` has its maps, and says of which
model and size a set of tensors is; it offers `recognises`, `read`, `own_config`, `write`, `resize_state` and
`wanted_size` to `models.published`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError

LEAVES = ("weight", "bias")


class UnknownLayoutError(CheckpointError):
    """Tensors, or a config beside them, of no model of ours; another package may know it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is known of a file besides its tensors. Sizes are heights and widths in pixels."""

    name: str | None = None
    """Which model it must be."""
    image_size: tuple[int, int] | None = None
    """Of the result."""
    said: tuple[int, int] | None = None
    """What a config beside the file says."""
    hint: str = ""
    """A path or hub id that may hold the model's name."""
    beside: "Beside | None" = None
    """The configs that lie with it."""
    pooling: str | None = None
    """How it pools, by our name or timm's, where the user or a config beside the file says so."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Sizes to read a position table by, where its length leaves a choice."""
        return tuple(size for size in (self.said, self.image_size) if size is not None)


Form = Literal["same", "pointwise", "transposed", "row", "table", "patches"]


@dataclass(frozen=True, slots=True)
class Theirs:
    """Where a file has one of our tensors.

    parts: names of the tensors whose rows, one after the other, are ours. others: the same in files that have it
    another way. shares: how many of ours each part has, by ratio; equal ones for (). form: what it is there: a 1x1
    convolution [M, C, 1, 1] (here a matrix [M, C]), the transposed matrix, [C] or [N, C] (here with leading axes of 1),
    or a matrix [M, p p 3] over the pixels of a patch (here a convolution [M, 3, p, p]).
    """

    parts: tuple[str, ...]
    others: tuple[tuple[str, ...], ...] = ()
    form: Form = "same"
    shares: tuple[int, ...] = ()

    def among(self, names: Iterable[str]) -> tuple[str, ...]:
        """The parts of which all are there; `parts` when none are."""
        return next((way for way in (self.parts, *self.others) if all(part in names for part in way)), self.parts)


@dataclass(frozen=True)
class Beside:
    """What lies beside weights. kind: whose config it is; content: the JSON of it; pixels: of a preprocessor_config."""

    kind: Literal["open_clip", "timm", "hugging_face", "eyesmith"]
    content: Mapping[str, Any]
    pixels: Mapping[str, Any] | None = None
    where: str = ""


KeyMap = Mapping[str, Theirs]  # by our names


class _Config(Protocol):
    def build(self) -> nn.Module: ...


def meta_state(config: _Config) -> dict[str, Tensor]:
    """Our names and shapes, without numbers."""
    with torch.device("meta"):
        return dict(config.build().state_dict())


def with_leaves(modules: Mapping[str, str]) -> dict[str, Theirs]:
    """The map of modules with a weight and a bias, from our names of modules to theirs."""
    return {f"{own}.{leaf}": Theirs((f"{their}.{leaf}",)) for own, their in modules.items() for leaf in LEAVES}


def within(keymap: KeyMap, own: str, their: str) -> dict[str, Theirs]:
    """The map of a part of a model: our names behind the prefix `own`, the file's behind `their`."""

    def behind(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(their + name for name in names)

    return {
        own + name: replace(place, parts=behind(place.parts), others=tuple(map(behind, place.others)))
        for name, place in keymap.items()
    }


def to_theirs(ours: Mapping[str, Tensor], keymap: KeyMap) -> dict[str, Tensor]:
    """A file's tensors out of ours."""
    theirs: dict[str, Tensor] = {}
    for name, place in keymap.items():
        value = _there(ours[name], place.form)
        if len(place.parts) == 1:
            theirs[place.parts[0]] = value
        else:  # clones: a file that holds two views of one storage would store the whole twice
            shares = place.shares or (1,) * len(place.parts)
            pieces = value.split([len(value) * share // sum(shares) for share in shares])
            theirs |= {part: piece.clone() for part, piece in zip(place.parts, pieces, strict=True)}
    return theirs


def to_ours(
    theirs: Mapping[str, Tensor], keymap: KeyMap, like: Mapping[str, Tensor], *, wanted: str, hint: str = ""
) -> dict[str, Tensor]:
    """Our tensors out of a file's; types stay, and what is whole there is not copied.

    like: ours, for the shapes. wanted, hint: the model, for messages, and what else may help. Raises CheckpointError
    naming tensors that are missing, left over or of another shape.
    """
    found = {name: replace(place, parts=place.among(theirs)) for name, place in keymap.items()}
    check_fit(theirs, to_theirs(like, found), wanted=wanted, hint=hint)
    ours: dict[str, Tensor] = {}
    for name, place in found.items():
        parts = [theirs[part] for part in place.parts]
        value = parts[0] if len(parts) == 1 else torch.cat(parts)
        ours[name] = _here(value, place.form, like[name])
    return ours


def _there(value: Tensor, form: Form) -> Tensor:
    if form == "pointwise":
        return value[..., None, None]
    if form == "transposed":
        return value.mT
    if form == "row":
        return value.flatten()
    if form == "table":
        return value[0]
    return value.permute(0, 2, 3, 1).flatten(1) if form == "patches" else value


def _here(value: Tensor, form: Form, like: Tensor) -> Tensor:
    if form == "transposed":
        return value.mT
    if form == "patches":
        out, channels, height, width = like.shape
        return value.view(out, height, width, channels).permute(0, 3, 1, 2)
    return value if form == "same" else value.reshape(like.shape)


def check_fit(theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, wanted: str, hint: str = "") -> None:
    """Raise CheckpointError unless names and shapes are the expected ones."""
    bent = [name for name in expected if name in theirs and theirs[name].shape != expected[name].shape]
    lines = [
        f"'{name}' is {list(theirs[name].shape)}, {wanted} needs {list(expected[name].shape)}" for name in bent[:1]
    ]
    lines += [f"{len(bent) - 1} more of another shape"] if len(bent) > 1 else []
    missing = [name for name in expected if name not in theirs]
    left_over = [name for name in theirs if name not in expected]
    for names, what in ((missing, "missing"), (left_over, "with no place")):
        if names:
            shown = ", ".join(f"'{name}'" for name in names[:3])
            lines.append(f"{len(names)} {what}: {shown}{' ...' if len(names) > 3 else ''}")
    if lines:
        raise CheckpointError(f"weights do not fit {wanted}: " + "; ".join([*lines, *([hint] if hint else [])]))


def inner(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def count_blocks(state: Iterable[str], prefix: str) -> int:
    """How many different numbers follow the prefix."""
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})


def table_size(cells: int, stride: int, sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The image size, in pixels, of a position table: the first of `sizes` that it is for, else a square.

    Raises CheckpointError when it is for none of them and no square.
    """
    for height, width in sizes:
        if height % stride == width % stride == 0 and height * width == cells * stride**2:
            return height, width
    side = math.isqrt(cells)
    if side * side != cells:
        raise CheckpointError(
            f"its position table has {cells} cells, which is for no square image; pass the height and width it was "
            "trained at as image_size"
        )
    return side * stride, side * stride
