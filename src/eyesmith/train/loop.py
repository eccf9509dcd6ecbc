"""The training loop: fetch, step, then hooks."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eyesmith.errors import TrainingError
from eyesmith.losses import contrastive_loss
from eyesmith.models.clip import Clip
from eyesmith.optim import decay_groups, warmup_cosine
from eyesmith.train.batches import Batch, Batches, step_seed
from eyesmith.train.config import TrainConfig
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.state import TrainState
from eyesmith.train.text_bank import TextBank

MAX_LOG_SCALE = math.log(100)  # the temperature's bound of CLIP and of both reference repositories


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one step did. `step` counts from 1; wait_s is the time that fetching the batch took."""

    step: int
    is_last: bool
    epoch: float
    samples: int
    batch_size: int
    loss: float
    lr: float
    scale: float
    grad_norm: float
    wait_s: float


class Hook(Protocol):
    """Something done after a step: logging, saving, measuring. It must not change what the next step computes."""

    def __call__(self, state: TrainState, facts: StepFacts) -> None: ...


def new_state(clip: Clip, config: TrainConfig) -> TrainState:
    """The state before the first step: a fresh optimiser over what is not locked."""
    optim = config.optim
    optimizer = torch.optim.AdamW(
        decay_groups(clip, optim.weight_decay), lr=optim.peak_lr, betas=optim.betas, eps=optim.eps, fused=True
    )
    state = TrainState(model=clip, optimizer=optimizer, average={})
    if optim.ema_decay:
        state.average = {name: value.detach().clone() for name, value in state.trained().items()}
    return state


def total_steps(config: TrainConfig, batches: Batches) -> int:
    """Optimiser steps of the whole run, at least one."""
    return max(1, round(config.epochs * batches.plan.steps_per_epoch))


def train(
    state: TrainState,
    clip: Clip,
    batches: Batches,
    config: TrainConfig,
    *,
    bank: TextBank | None,
    hooks: Sequence[Hook] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train from `state.step` to the end of the run; False when `should_stop` ended it between two steps.

    bank: features of all captions, for a locked text tower. Raises TrainingError before the update when the loss or a
    gradient is not finite, naming step and samples.
    """
    last = total_steps(config, batches)
    device = next(clip.parameters()).device
    precision = choose_precision(config.precision, device)
    clip.train()
    while state.step < last:
        if should_stop():
            return False
        start = time.perf_counter()
        batch = batches.batch(state.step)
        fetched = time.perf_counter()

        lr = warmup_cosine(
            state.step,
            peak=config.optim.peak_lr,
            warmup_steps=round(config.optim.warmup_frac * last),
            total_steps=last,
        )
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        # drop-path draws from torch's global generator; seeding it here makes the step a function of its number
        torch.manual_seed(step_seed(config.seed, state.step))
        with autocast(precision, device):
            image = clip.image_features(batch.pixels.to(device))  # [B, D]
            text = _text_features(clip, batch, bank).to(device)  # [B, D]
        scale = clip.logit_scale.exp()
        loss = contrastive_loss(image, text, scale, batch.same().to(device))
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(clip.parameters(), config.optim.clip_norm or math.inf)
        facts = StepFacts(
            step=state.step + 1,
            is_last=state.step + 1 == last,
            epoch=(state.step + 1) / batches.plan.steps_per_epoch,
            samples=(state.step + 1) * config.batch_size,
            batch_size=len(batch.texts),
            loss=loss.item(),
            lr=lr,
            scale=scale.item(),
            grad_norm=grad_norm.item(),
            wait_s=fetched - start,
        )
        _check_finite(facts, batch)
        state.optimizer.step()
        state.optimizer.zero_grad()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, MAX_LOG_SCALE)
        state.update_average(config.optim)
        state.step += 1
        state.elapsed_s += time.perf_counter() - start
        for hook in hooks:
            hook(state, facts)
    return True


def _text_features(clip: Clip, batch: Batch, bank: TextBank | None) -> Tensor:
    if bank is not None:
        return bank(batch.texts)
    return clip.text_features(clip.text.tokenize(batch.texts).to(clip.logit_scale.device))


def _check_finite(facts: StepFacts, batch: Batch) -> None:
    if not (math.isfinite(facts.loss) and math.isfinite(facts.grad_norm)):
        raise TrainingError(
            f"step {facts.step}: loss {facts.loss}, gradient norm {facts.grad_norm}, learning rate {facts.lr:.2g}; "
            f"stopped before the update. Samples: {', '.join(batch.keys[:8])} ... Lower optim.peak_lr, or set "
            "optim.clip_norm=1, and resume from the last saved state"
        )
