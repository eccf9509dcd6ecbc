"""The loss of a run as its config says it, from the features of this process's rows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.losses.config import LossConfig
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation
from eyesmith.losses.mask import Same, same_from
from eyesmith.losses.sigmoid import sigmoid_loss
from eyesmith.losses.softmax import softmax_loss
from eyesmith.models.clip import Clip
from eyesmith.train.accumulate import Features


def same_of(config: LossConfig, texts: Sequence[str], labels: Tensor | None) -> Same | None:
    """Codes of the rows that are no negatives of each other: of one class, or with equal captions; None: all are."""
    return same_from(texts, labels) if config.mask == "same" else None


def contrast(
    config: LossConfig, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None, same: Same | None
) -> Tensor:
    """The contrastive loss of the global batch, [], equal in every process.

    image, text: [b, D] unit features of this process's rows. scale, bias: []; a bias for the sigmoid loss only.
    """
    tile_rows = config.tile_rows or None
    if config.kind == "softmax":
        return softmax_loss(image, text, scale, same, form=config.form, tile_rows=tile_rows)
    if bias is None:
        raise ConfigError("loss.kind: the sigmoid loss needs a bias, and this state was made without one")
    return sigmoid_loss(image, text, scale, bias, same, form=config.form, tile_rows=tile_rows)


class Target(NamedTuple):
    """A teacher's unit features [b, E] of a batch, and its scale []."""

    image: Tensor
    text: Tensor
    scale: Tensor


class Teacher:
    """A frozen model to learn from; it sees the same views and captions as the student."""

    def __init__(self, clip: Clip, *, image_size: tuple[int, int], part_rows: int = 256) -> None:
        """image_size: of the student. Raises ConfigError when the teacher takes another."""
        if tuple(clip.image.image_size) != tuple(image_size):
            raise ConfigError(
                f"loss.distill.teacher: takes images of {clip.image.image_size}, the student of {tuple(image_size)}; "
                "choose a teacher of the same size"
            )
        self._clip = clip.requires_grad_(False).eval()
        self._part_rows = part_rows

    @torch.no_grad()
    def __call__(self, pixels: Tensor, texts: Sequence[str]) -> Target:
        """pixels: [b, 3, H, W] uint8."""
        device = self._clip.logit_scale.device
        image = torch.cat([self._clip.image_features(part.to(device)) for part in pixels.split(self._part_rows)])
        text = self._clip.encode_text(texts, batch_size=self._part_rows)
        return Target(image, text, self._clip.logit_scale.exp())


def distill(config: LossConfig, found: Features, target: Target) -> Tensor:
    """The weighted sum [] of the config's distillation terms."""
    settings = config.distill
    pairs = (found.image, found.text)
    total = torch.zeros((), device=found.image.device)
    if settings.feature:
        total = total + settings.feature * feature_distillation(*pairs, target.image, target.text)
    if settings.affinity:
        total = total + settings.affinity * affinity_distillation(*pairs, target.image, target.text)
    if settings.logit:
        total = total + settings.logit * logit_distillation(
            *pairs, found.scale, *target, temperature=settings.temperature, tile_rows=config.tile_rows or None
        )
    return total
