"""The computation that leaves the house: one tower with what stands before and after it, traced by torch.export."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from eyesmith.errors import ConfigError
from eyesmith.hub.export.target import ExportTarget
from eyesmith.images.pixels import normalize
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder
from eyesmith.models.vitamin.model import ViTaminConfig

PIXELS, IDS = "pixels", "ids"
IMAGE_FEATURES, TEXT_FEATURES = "image_features", "text_features"
_TRACED_BATCH = 2  # torch.export takes a batch of 1 for a constant


class ImageGraph(nn.Module):
    """pixels [B, 3, H, W], uint8 or normalised fp32 -> image_features [B, D] fp32, of length 1 if `is_unit`."""

    def __init__(self, encoder: Encoder, *, is_unit: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.is_unit = is_unit

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.encoder(normalize(pixels, self.encoder.mean, self.encoder.std)).float()
        return F.normalize(features, dim=-1) if self.is_unit else features


class TextGraph(nn.Module):
    """ids int64 [T, L] -> text_features [T, D] fp32, of length 1 if `is_unit`."""

    def __init__(self, tower: nn.Module, *, is_unit: bool) -> None:
        super().__init__()
        self.tower = tower
        self.is_unit = is_unit

    def forward(self, ids: Tensor) -> Tensor:
        features = self.tower(ids).float()
        return F.normalize(features, dim=-1) if self.is_unit else features


def trace_image(encoder: Encoder, target: ExportTarget) -> ExportedProgram:
    """The image tower as a program with a free batch and, if asked for, a free size.

    Raises ConfigError when the size is to be free and the encoder has a table for one size.
    """
    shape: dict[int, Any] = {0: Dim("batch")}
    if target.is_dynamic_size:
        _check_dynamic(encoder)
        # a single row or column of tokens would be a case of its own in the traced program
        shape |= {2: encoder.stride * Dim("rows", min=2), 3: encoder.stride * Dim("columns", min=2)}
    dtype = torch.uint8 if target.pixels == "uint8" else torch.float32
    # with a free size the traced one must be no special case: not square
    size = (3 * encoder.stride, 4 * encoder.stride) if target.is_dynamic_size else encoder.image_size
    pixels = torch.zeros(_TRACED_BATCH, 3, *size, dtype=dtype)
    graph = ImageGraph(encoder, is_unit=target.is_unit)
    with _any_size(encoder) if target.is_dynamic_size else _as_it_is():
        return trace(graph, (pixels,), {PIXELS: shape}, strict=False)


def trace_text(clip: Clip, target: ExportTarget) -> ExportedProgram:
    """The text tower as a program with a free number of texts and of tokens, up to its longest text."""
    ids = clip.text.tokenize(["a photo of a cat", "a photo of a dog"])
    shape = {0: Dim("texts"), 1: Dim("tokens", max=clip.text.context_len)}
    # strict: Python is interpreted, so that the number of texts stays free where code asks for len(ids)
    return trace(TextGraph(clip.text, is_unit=target.is_unit), (ids,), {IDS: shape}, strict=True)


def _check_dynamic(encoder: Encoder) -> None:
    config = getattr(encoder, "config", None)
    if not isinstance(config, ViTaminConfig) or config.has_position:
        height, width = encoder.image_size
        raise ConfigError(
            f"dynamic_size: this encoder has a position table for {height} x {width} pixels, which a file cannot "
            "resample as exactly as we do; export one file for each size (image_size), or use a ViTamin-XL, which has "
            "no table"
        )


@torch.no_grad()
def trace(graph: nn.Module, examples: tuple[Tensor, ...], shapes: dict[str, Any], *, strict: bool) -> ExportedProgram:
    """The module as a program. examples: what it is traced by; shapes: free axes of each by its argument's name."""
    with _evaluating(graph), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        program = torch.export.export(graph, examples, dynamic_shapes=shapes, strict=strict)
    for node in program.graph.nodes:  # where on this machine each line of code lies is nobody's business
        node.meta.pop("stack_trace", None)
    return program


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter, had_gradient in gradients:
            parameter.requires_grad_(had_gradient)


@contextmanager
def _any_size(encoder: Encoder) -> Iterator[None]:
    """Pixels pass unchecked inside: a check against one size would pin the program to it."""
    unchecked: Callable[[Tensor], Tensor] = lambda pixels: pixels  # noqa: E731
    encoder.prepare = unchecked  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        del encoder.prepare


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
