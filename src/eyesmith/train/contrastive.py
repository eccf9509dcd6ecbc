"""Training with text: both towers' features, the contrastive loss of all pairs, and what a teacher adds."""

import math
from collections.abc import Sequence, Set
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.losses.config import LossConfig
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation
from eyesmith.losses.positives import Same, same_from
from eyesmith.losses.sigmoid import sigmoid_loss
from eyesmith.losses.softmax import softmax_loss
from eyesmith.models.clip import Clip
from eyesmith.models.eva02.model import Eva02
from eyesmith.optim.groups import text_blocks
from eyesmith.train.accumulate import Features, backward, cut
from eyesmith.train.batches import Batch
from eyesmith.train.config import TrainConfig
from eyesmith.train.health import chance_loss
from eyesmith.train.masks import kept_patches
from eyesmith.train.objective import Objective, StepLoss
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws, step_seed
from eyesmith.train.sharding import Parallel
from eyesmith.train.text_bank import Texts
from eyesmith.train.utilisation import StepCost

MAX_LOG_SCALE = math.log(100)  # the temperature's bound of CLIP and of both reference repositories


class Towers(nn.Module):
    """Both towers and what scales their products, as one forward.

    `bias` is the sigmoid loss's, None for others.
    """

    def __init__(self, clip: Clip, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.clip = clip
        self.bias = bias

    def forward(
        self, pixels: Tensor, ids: Tensor | None, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """pixels: [b, 3, H, W]; ids: [b, L], None where text features are known already.

        kept: int64 [b, K] patches that the image tower sees, None for all. Returns unit features [b, D] of both, the
        scale [] and the bias []; None for what is not there.
        """
        text = None if ids is None else self.clip.text_features(ids)
        image = self.clip.image_features(pixels) if kept is None else self._of_kept(pixels, kept)
        # a view, as DDP wants outputs that are no parameters
        return image, text, self.clip.logit_scale.exp(), None if self.bias is None else self.bias.view(())

    def _of_kept(self, pixels: Tensor, kept: Tensor) -> Tensor:
        image = self.clip.image
        assert isinstance(image, Eva02)
        features = image.pool(image.encode(image.patches(pixels), kept=kept))
        return nn.functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


class Contrastive(Objective[Clip]):
    """Pairs of images and texts: each image's feature near its own text's, far from the others'."""

    def __init__(
        self, clip: Clip, config: TrainConfig, *, bank: Texts | None = None, teacher: "Teacher | None" = None
    ) -> None:
        """bank: features of all captions, for a locked text tower. teacher: a model to distil from."""
        self.model, self.config, self.bank, self.teacher = clip, config, bank, teacher
        self._bias: nn.Parameter | None = None
        if config.loss.kind == "sigmoid":
            self._bias = nn.Parameter(torch.tensor(config.loss.init_bias, device=clip.logit_scale.device))

    def module(self) -> Towers:
        return Towers(self.model, self._bias)

    def blocks(self) -> list[nn.Module]:
        return [*self.model.image.blocks(), *text_blocks(self.model.text)]

    def extra(self) -> dict[str, nn.Parameter]:
        return {} if self._bias is None else {"logit_bias": self._bias}

    def locked(self) -> Set[nn.Parameter]:
        return set(self.model.text.parameters()) if self.model.config.lock_text else set()

    def rebuild(self) -> Clip:
        return self.model.config.build()

    def after_update(self) -> None:
        self.model.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def watched(self) -> dict[str, nn.Module]:
        return {"image": self.model.image, "text": self.model.text}

    def flops(self, text_len: int | None) -> float | None:
        return StepCost(self.model).flops(text_len)

    def backward(self, parallel: Parallel, batch: Batch, step: int) -> StepLoss:
        clip, config, device = self.model, self.config, self.model.logit_scale.device
        precision = choose_precision(config.precision, device)
        max_rows = config.batch_size // parallel.world.size  # a picture that cannot be read leaves a process one less
        pixels = batch.pixels.to(device)
        same = same_of(config.loss, batch.texts, batch.labels)
        same = None if same is None else same.to(device)
        known = None if self.bank is None else self.bank(batch.texts).to(device)  # [b, D]
        target = None if self.teacher is None else self.teacher(pixels, batch.texts)
        kept = None
        if config.patch_drop_prob:
            assert isinstance(clip.image, Eva02)
            kept = kept_patches(
                batch.rows, clip.image.config.grid, config.patch_drop_prob, seed=config.seed, step=step
            ).to(device)

        def features_of(rows: slice) -> Features:
            ids = None if self.bank is not None else clip.text.tokenize(batch.texts[rows]).to(device)
            draws.give(batch.rows[rows])
            with autocast(precision, device):
                some = () if kept is None else (kept[rows],)
                image, text, scale, bias = parallel(pixels[rows], ids, *some)
            text = known[rows] if known is not None else text
            assert text is not None
            return Features(image, text, scale, bias)

        def loss_of(found: Features) -> Tensor:
            loss = contrast(config.loss, found, same, max_rows=max_rows)
            return loss if target is None else loss + distill(config.loss, found, target, max_rows=max_rows)

        parts = [partial(features_of, rows) for rows in cut(len(pixels), config.accumulate)]
        with StepDraws(clip, seed=step_seed(config.seed, step), device=device) as draws:
            loss, features = backward(parallel, parts, loss_of)
        return StepLoss(loss, features.scale, chance_loss(config.loss, batch.texts, batch.labels, config.batch_size))


def same_of(config: LossConfig, texts: Sequence[str], labels: Tensor | None) -> Same | None:
    """Codes of the rows that are no negatives of each other: of one class, or with equal captions; None: all are."""
    return same_from(texts, labels) if config.mask == "same" else None


def contrast(config: LossConfig, found: Features, same: Same | None, *, max_rows: int) -> Tensor:
    """The contrastive loss of the global batch, [], equal in every process.

    found: of this process's rows, at most max_rows; a bias for the sigmoid loss only.
    """
    image, text, scale, bias = found
    tile_rows = config.tile_rows or None
    if config.kind == "softmax":
        return softmax_loss(image, text, scale, same, tile_rows=tile_rows, max_rows=max_rows)
    if bias is None:
        raise ConfigError("loss.kind: the sigmoid loss needs a bias, and this state was made without one")
    return sigmoid_loss(image, text, scale, bias, same, tile_rows=tile_rows, max_rows=max_rows)


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
