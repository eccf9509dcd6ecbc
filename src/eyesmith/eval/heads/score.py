"""Scores that mean something: the model's own temperature, bias and link, never a constant 100."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.eval.statistics.metrics import check_finite, similarity
from eyesmith.images import ImageSource
from eyesmith.models.clip import Clip

LinkKind = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """How a model's cosines become probabilities, as it was trained.

    "softmax": of the texts, which belongs to the image? They share a probability of 1, so a score depends on the other
    texts, and one text alone always gets 1. "sigmoid": does this text belong to this image? Each pair by itself.
    scale: 1/temperature. bias: of the logits; it changes a sigmoid, never a softmax.
    """

    kind: LinkKind = "softmax"
    scale: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("softmax", "sigmoid"):
            raise ConfigError(f"link: expected softmax or sigmoid, got {self.kind!r}")
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.bias)):
            raise ConfigError(f"link: expected a positive scale and a finite bias, got {self.scale} and {self.bias}")

    def logits(self, cosines: Tensor) -> Tensor:
        """scale * cosine + bias, fp32, of the shape given."""
        return self.scale * cosines.float() + self.bias

    def probabilities(self, cosines: Tensor) -> Tensor:
        """Cosines [N, T] of N images with T texts -> [N, T] fp32 in 0..1."""
        check_finite(cosines)
        logits = self.logits(cosines)
        return logits.softmax(1) if self.kind == "softmax" else logits.sigmoid()


def link_of(clip: Clip, *, kind: LinkKind | None = None, bias: float | None = None) -> Link:
    """The link of a model: its learned scale, and sigmoid where it has a bias, else softmax.

    kind, bias: for a model trained with the sigmoid loss whose file does not hold the bias. Raises
    ConfigError for a sigmoid without a bias: its probabilities would all be far too high.
    """
    learned = getattr(clip, "logit_bias", None)
    if bias is None and isinstance(learned, Tensor):
        bias = float(learned.detach())
    kind = kind or ("softmax" if bias is None else "sigmoid")
    if kind == "sigmoid" and bias is None:
        raise ConfigError(
            "link: a sigmoid needs the bias the model was trained with, and this model has none; give bias"
        )
    return Link(kind=kind, scale=float(clip.logit_scale.detach().float().exp()), bias=bias or 0.0)


def score(
    clip: Clip, images: ImageSource | Sequence[ImageSource] | Tensor, texts: Sequence[str], *, link: Link | None = None
) -> Tensor:
    """Probabilities [N, T] fp32 that texts belong to images, by the model's own link (`link_of` when None).

    images: as `Clip.encode_image` takes them. texts: whole sentences, used as they are.
    """
    if isinstance(texts, str) or not len(texts):
        raise ConfigError(f"texts: expected a list of one or more sentences, got {texts!r}")
    link = link or link_of(clip)
    cosines = similarity(clip.encode_image(images).cpu(), clip.encode_text(texts).cpu())
    return link.probabilities(torch.clamp(cosines, -1, 1))
