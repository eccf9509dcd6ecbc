"""What a trained head says of classes it saw, and what the frozen encoder says of all: one probability of the two.

The systems fuse alike and differ in where the background stands, so one pure function serves both. K real classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How much the frozen encoder's word counts: 0 nothing, 1 alone."""

    alpha: float
    """For classes that training saw."""
    beta: float
    """For all others."""
    is_renormalised: bool = False
    """Whether the fused numbers are brought back to a sum of 1."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected 0 (the head alone) to 1 (the encoder alone), got {self}")


FUSIONS: dict[str, Fusion] = {
    "off": Fusion(alpha=0.0, beta=0.0),
    "f-vit": Fusion(alpha=0.2, beta=0.45),
    "f-vit-coco": Fusion(alpha=0.1, beta=0.8),
    "f-vit-lvis": Fusion(alpha=0.1, beta=0.4),
    "fc-clip": Fusion(alpha=0.4, beta=0.8, is_renormalised=True),
    "fc-clip-sliding": Fusion(alpha=0.45, beta=0.7, is_renormalised=True),
}
"""The published exponents. F-ViT on LVIS: a larger beta, 0.6 or 0.8, is said to raise rare classes a lot."""


def fuse(
    inside: Tensor,
    outside: Tensor,
    seen: Tensor,
    alpha: float,
    beta: float,
    *,
    background: Tensor | None = None,
    is_renormalised: bool = False,
) -> Tensor:
    """Weighted geometric mean of two tables of probabilities over the real classes: [..., K].

    inside, outside: [..., K], softmaxed over the real classes alone: the trained head's and the frozen encoder's.
    seen: bool [K], the classes of training. Of a seen class inside^(1 - alpha) * outside^alpha, of another the same
    with beta. is_renormalised: divided by their sum. background: [...], the head's probability that nothing is there;
    the result is multiplied by 1 - background, outside of the exponents, so that one that is sure of nothing stays so.
    Computed in logarithms, so that a probability of 0 gives next to nothing and no NaN. Raises ShapeError where the
    tables do not fit, ConfigError for an exponent outside of 0..1.

    Sources: F-ViT (no renormalisation; the reference has the background among the classes of both softmaxes, which is
    `fuse_with_background`), and FC-CLIP (renormalised; its void is our background).
    """
    if inside.shape != outside.shape or seen.shape != inside.shape[-1:]:
        raise ShapeError(
            f"inside, outside, seen: expected [..., K] twice and [K], got {list(inside.shape)}, {list(outside.shape)} "
            f"and {list(seen.shape)}"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name}: expected 0 (the head alone) to 1 (the encoder alone), got {value}")
    least = torch.finfo(inside.dtype).tiny
    known = seen.to(inside.device, inside.dtype)
    weight = known * alpha + (1 - known) * beta
    logs = (1 - weight) * inside.clamp_min(least).log() + weight * outside.clamp_min(least).log()
    fused = logs.softmax(dim=-1) if is_renormalised else logs.exp()
    if background is None:
        return fused
    if background.shape != inside.shape[:-1]:
        raise ShapeError(f"background: expected {list(inside.shape[:-1])}, got {list(background.shape)}")
    return fused * (1 - background)[..., None]


def fuse_with_background(inside: Tensor, outside: Tensor, seen: Tensor, alpha: float, beta: float) -> Tensor:
    """F-ViT as its reference has it: [..., K + 1], softmaxed over the classes and a background that comes last.

    inside, outside: [..., K + 1]. The background counts as a class that training saw, and nothing is renormalised.
    """
    return fuse(inside, outside, torch.cat((seen, seen.new_ones(1))), alpha, beta)


def fuse_logits(
    inside: Tensor,
    outside: Tensor,
    seen: Tensor,
    alpha: float,
    beta: float,
    *,
    has_background: bool = True,
    is_renormalised: bool = False,
) -> Tensor:
    """`fuse` out of logits: inside [..., K + 1] with the background (void) last, or [..., K] without; outside [..., K].

    The background is left out before both softmaxes and enters as the factor 1 - p, p from the softmax with it.
    Returns [..., K].
    """
    background = inside.softmax(dim=-1)[..., -1] if has_background else None
    real = inside[..., :-1] if has_background else inside
    probabilities = (real.softmax(dim=-1), outside.softmax(dim=-1))
    return fuse(*probabilities, seen, alpha, beta, background=background, is_renormalised=is_renormalised)
