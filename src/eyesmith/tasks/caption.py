"""Pairs learned twice: each image near its own text, and its caption told word by word from its cells (CoCa)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.data.loader import Batch
from eyesmith.data.order import step_seed
from eyesmith.errors import ConfigError
from eyesmith.eval import ResultRow
from eyesmith.losses.caption import caption_loss
from eyesmith.models.captioner import Captioner, CaptionerConfig
from eyesmith.models.clip import Clip
from eyesmith.models.text import ClipTextConfig
from eyesmith.models.text.model import ClipText
from eyesmith.tasks.contrastive import Contrastive, TrainConfig, contrast
from eyesmith.tasks.encoder_run import save_beside
from eyesmith.tasks.task import FP32, RunContext
from eyesmith.train.accumulate import Features
from eyesmith.train.objective import StepLoss, Wrapped
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws

DECODER_FILE = "caption.safetensors"  # the decoder: what the run trained beside the model


@dataclass(frozen=True, kw_only=True)
class CaptionTaskConfig(TrainConfig):
    """A contrastive run with captioning as one more loss; the decoder is saved beside the model."""

    caption: CaptionerConfig = field(default_factory=CaptionerConfig)
    caption_weight: float = 2.0
    """Of the mean cross-entropy of a caption's next words (CoCa's)."""
    contrastive_weight: float = 1.0
    """Of the contrastive loss; 0 learns by captions alone (GenLIP), with optim.freeze=("text.*", "logit_scale")."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.caption_weight <= 0 or self.contrastive_weight < 0:
            raise ConfigError(
                "caption_weight and contrastive_weight: expected above 0, and 0 or more, "
                f"got {self.caption_weight} and {self.contrastive_weight}"
            )
        if not isinstance(self.model.text, ClipTextConfig) or self.model.lock_text:
            raise ConfigError(
                "model.text: captions are told in the tokens of a text tower of this house, which is not locked"
            )
        if self.model.text.pooling == "last":  # `ends` is the last place then, and padding would be told as words
            raise ConfigError(
                "model.text.pooling: captions are told to their end token, which a tower that pools at the last place "
                "does not know; take one that pools at the end of a text (largest or end)"
            )
        if self.accumulate > 1 or self.patch_drop_prob or self.loss.distill.teacher:
            raise ConfigError("accumulate, patch_drop_prob and loss.distill: do not go with captions; leave them out")
        if not self.contrastive_weight and not {"text.*", "logit_scale"} <= set(self.optim.freeze):
            raise ConfigError(
                'contrastive_weight: without it nothing trains the text tower; set optim.freeze=("text.*", '
                '"logit_scale")'
            )


class CaptionTowers(nn.Module):
    """Both towers and the decoder as one forward."""

    def __init__(self, clip: Clip, bias: nn.Parameter | None, *, is_contrastive: bool) -> None:
        super().__init__()
        self.clip, self.bias, self._is_contrastive = clip, bias, is_contrastive

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]:
        """Unit features [b, D] of pictures and of texts (None by captions alone), scale [], bias [], and what each
        caption costs, fp32 [b].
        """
        clip, image = self.clip, self.clip.image
        cells = image.dense(pixels).flatten(2).mT  # [b, N, C]
        seen = image.project(cells)  # [b, N, D]
        pooled = image.project(cells.mean(1)) if image.is_mean_pooled else image(pixels)
        pooled = F.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=-1)
        text = clip.text_features(ids) if self._is_contrastive else None
        lengths = cast(ClipText, clip.text).ends(ids) + 1
        decoder = decoder_of(clip)
        told = caption_loss(decoder(seen, ids), decoder.words.weight, ids, lengths)
        return pooled, text, clip.logit_scale.exp(), None if self.bias is None else self.bias.view(()), told


class Captioning(Contrastive):
    """Pairs of images and texts, measured as `Contrastive` is. The model's `captioner` is no part of what is left."""

    config_type = CaptionTaskConfig
    config: CaptionTaskConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def new_model(cls, config: TrainConfig) -> Clip:
        clip, text = config.model.build(), config.model.text
        assert isinstance(config, CaptionTaskConfig)
        assert isinstance(text, ClipTextConfig)
        clip.captioner = Captioner(
            config.caption,
            cells=config.model.image.embed_dim,
            vocab_size=text.vocab_size,
            context_len=text.context_len,
        )
        return clip

    @classmethod
    def load(cls, model: Clip, config: TrainConfig, context: RunContext) -> None:
        with without_captioner(model):
            super().load(model, config, context)

    @classmethod
    def loss_bytes(cls, config: TrainConfig, gpus: int) -> int:
        """And the logits of all words, with their gradient; a CPU makes them of captions without their padding."""
        text = config.model.text
        assert isinstance(text, ClipTextConfig)
        words = config.batch_size // gpus * text.context_len * text.vocab_size
        return super().loss_bytes(config, gpus) + 2 * FP32 * words

    @classmethod
    def plan_notes(cls, config: TrainConfig) -> tuple[str, ...]:
        return (*super().plan_notes(config), "operations of the decoder, and what its blocks keep, are not counted")

    def module(self) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        return CaptionTowers(self.model, self._bias, is_contrastive=self.config.contrastive_weight > 0)

    def blocks(self) -> list[nn.Module]:
        return [*super().blocks(), *decoder_of(self.model).layers]

    def rebuild(self) -> Clip:
        return self.new_model(self.config)

    def watched(self) -> dict[str, nn.Module]:
        # the image tower is not called as a whole
        return {"text": self.model.text} if self.config.contrastive_weight else {}

    def row_outputs(self) -> list[nn.Module]:
        return [self.model.image.blocks()[-1], decoder_of(self.model)]

    def flops(self, text_len: int | None) -> float | None:
        return None  # the decoder's are not counted

    def backward(self, parallel: Wrapped, batch: Batch, step: int) -> StepLoss:
        config, device, world = self.config, self.device, parallel.world
        precision = choose_precision(config.precision, device)
        max_rows = config.batch_size // world.size
        batch = batch.to(device)
        count = world.total(torch.full((), float(len(batch)), device=device))
        with StepDraws(self.model, seed=step_seed(config.seed, step), device=device) as draws, parallel.sync(True):
            draws.give(batch.rows)
            with autocast(precision, device):
                image, text, scale, bias, told = parallel(batch.pixels, batch.extra["ids"])
            # processes average their gradients, and the mean is over all their captions
            loss = config.caption_weight * told.sum() * (world.size / count)
            pairs = torch.zeros((), device=device)
            if text is not None:
                pairs = contrast(
                    config.loss, Features(image, text, scale, bias), self._same(batch, world), max_rows=max_rows
                )
            parallel.backward(loss + config.contrastive_weight * pairs)
        found = world.total(loss.detach()) / world.size + config.contrastive_weight * pairs.detach()
        return StepLoss(found, scale.detach())

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        clip = cast(Clip, model)
        save_beside(folder / DECODER_FILE, decoder_of(clip).state_dict())
        with without_captioner(clip):
            super().save(folder, clip, config=config)

    def _evaluated(
        self, model: nn.Module, path: str, splits: Sequence[str] | None, context: RunContext
    ) -> list[ResultRow]:
        with without_captioner(cast(Clip, model)):
            return super()._evaluated(model, path, splits, context)


def decoder_of(clip: Clip) -> Captioner:
    """The decoder beside a model in training."""
    return cast(Captioner, clip.get_submodule("captioner"))


@contextmanager
def without_captioner(clip: Clip) -> Iterator[None]:
    """Inside, the model is the plain one that a run leaves."""
    decoder = decoder_of(clip)
    del clip.captioner
    try:
        yield
    finally:
        clip.captioner = decoder
