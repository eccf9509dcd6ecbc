"""A frozen image-text model to learn from beside the pairs, and the terms that it adds to the loss."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.losses.config import LossConfig
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation
from eyesmith.models.clip import Clip
from eyesmith.train.accumulate import Features
from eyesmith.train.precision import Precision, autocast
from eyesmith.train.teacher import PART_ROWS


class Target(NamedTuple):
    """A teacher's unit features [b, E] of a batch, and its scale []."""

    image: Tensor
    text: Tensor
    scale: Tensor


class Teacher:
    """A frozen model to learn from; it sees the same views and captions as the student."""

    def __init__(self, clip: Clip, *, image_size: tuple[int, int], precision: Precision = "fp32") -> None:
        """image_size, precision: of the student. Raises ConfigError when the teacher takes another."""
        if tuple(clip.image.image_size) != tuple(image_size):
            raise ConfigError(
                f"loss.distill.teacher: takes images of {clip.image.image_size}, the student of {tuple(image_size)}; "
                "choose a teacher of the same size"
            )
        self.clip = clip.requires_grad_(False).eval()
        self._precision: Precision = precision

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 [b, L] on the CPU, as its own tower reads them."""
        return self.clip.text.tokenize(texts)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, ids: Tensor) -> Target:
        """pixels: [b, 3, H, W] uint8; ids: of `tokenize`; both on its device."""
        clip = self.clip
        with autocast(self._precision, clip.logit_scale.device):
            image = torch.cat([clip.image_features(part) for part in pixels.split(PART_ROWS)])
            text = torch.cat([clip.text_features(part) for part in ids.split(PART_ROWS)])
        return Target(image, text, clip.logit_scale.exp())


def distill(config: LossConfig, found: Features, target: Target, *, max_rows: int) -> Tensor:
    """The weighted sum [] of the config's distillation terms; max_rows: the most rows that a process may have."""
    settings = config.distill
    pairs = (found.image, found.text)
    both = (*pairs, target.image, target.text)
    total = torch.zeros((), device=found.image.device)
    if settings.feature:
        total = total + settings.feature * feature_distillation(*both, max_rows=max_rows)
    if settings.affinity:
        total = total + settings.affinity * affinity_distillation(*both, max_rows=max_rows)
    if settings.logit:
        total = total + settings.logit * logit_distillation(
            *pairs,
            found.scale,
            *target,
            temperature=settings.temperature,
            tile_rows=config.tile_rows or None,
            max_rows=max_rows,
        )
    return total
