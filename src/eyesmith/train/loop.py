"""The training loop: fetch, step, then hooks."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from eyesmith.models.clip import Clip
from eyesmith.optim import freeze, parameter_groups
from eyesmith.train.accumulate import Features, backward
from eyesmith.train.batches import Batch, BatchReader
from eyesmith.train.config import TrainConfig
from eyesmith.train.draws import StepDraws, step_seed
from eyesmith.train.health import chance_loss
from eyesmith.train.objective import Teacher, contrast, distill, same_of
from eyesmith.train.parallel import Parallel
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.processes import World
from eyesmith.train.replay import NonFiniteError
from eyesmith.train.state import TrainState
from eyesmith.train.text_bank import Texts

MAX_LOG_SCALE = math.log(100)  # the temperature's bound of CLIP and of both reference repositories


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one step did. `step` counts from 1; wait_s is the time that fetching the batch took.

    chance_loss: the loss of guessing, see `health.chance_loss`.
    """

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
    chance_loss: float = 0.0


class Hook(Protocol):
    """Something done after a step: logging, saving, measuring. It must not change what the next step computes."""

    def __call__(self, state: TrainState, facts: StepFacts) -> None: ...


def new_state(clip: Clip, config: TrainConfig, world: World | None = None) -> TrainState:
    """The state before the first step: what does not train frozen, the model spread over the processes, an optimiser.

    Changes `clip` in place; encode a text bank before. Raises ConfigError for patterns that fit no parameter, and for a
    strategy or batch size that the number of processes does not allow.
    """
    optim, world = config.optim, world or World()
    world.share(config.batch_size)
    freeze(clip, optim.freeze)
    extra: dict[str, nn.Parameter] = {}
    if config.loss.kind == "sigmoid":
        extra["logit_bias"] = nn.Parameter(torch.tensor(config.loss.init_bias, device=clip.logit_scale.device))
    parallel = Parallel(clip, extra.get("logit_bias"), config.parallel, world)
    groups = parameter_groups(
        clip,
        weight_decay=optim.weight_decay,
        no_decay=optim.no_decay,
        image_lr_scale=optim.image_lr_scale,
        text_lr_scale=optim.text_lr_scale,
        layer_decay=optim.layer_decay,
        text_layer_decay=optim.text_layer_decay,
        extra=extra,
    )
    optimizer = torch.optim.AdamW(groups, lr=optim.peak_lr, betas=optim.betas, eps=optim.eps, fused=True)
    state = TrainState(model=clip, optimizer=optimizer, average={}, extra=extra, parallel=parallel)
    if optim.ema_decay:
        state.average = {name: value.detach().clone() for name, value in state.trained().items()}
    return state


def total_steps(config: TrainConfig, batches: BatchReader) -> int:
    """Optimiser steps of the whole run, at least one."""
    return max(1, round(config.epochs * batches.plan.steps_per_epoch))


def train(
    state: TrainState,
    clip: Clip,
    batches: BatchReader,
    config: TrainConfig,
    *,
    bank: Texts | None,
    teacher: Teacher | None = None,
    hooks: Sequence[Hook] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train from `state.step` to the end of the run; False when `should_stop` ended it between two steps.

    Every process of the run calls this, with the batches of its own rows; facts are equal in all of them, but for
    waiting times. bank: features of all captions, for a locked text tower. teacher: a model to distil from. Raises
    NonFiniteError before the update when the loss or a gradient is not finite, naming step and samples.
    """
    last = total_steps(config, batches)
    parallel = state.parallel or Parallel(clip, None, config.parallel, World())
    clip.train()
    while state.step < last:
        if parallel.world.any(should_stop()):
            return False
        start = time.perf_counter()
        batch = batches.batch(state.step)
        fetched = time.perf_counter()

        lr = config.optim.lr_at(state.step, last)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        loss, features = _backward(clip, parallel, batch, config, step=state.step, bank=bank, teacher=teacher)
        grad_norm = parallel.clip_grad_norm(state.trained(), config.optim.clip_norm)
        facts = StepFacts(
            step=state.step + 1,
            is_last=state.step + 1 == last,
            epoch=(state.step + 1) / batches.plan.steps_per_epoch,
            samples=(state.step + 1) * config.batch_size,
            batch_size=len(batch.texts) * parallel.world.size,
            loss=loss.item(),
            lr=lr,
            scale=features.scale.item(),
            grad_norm=grad_norm.item(),
            wait_s=fetched - start,
            chance_loss=chance_loss(config.loss, batch.texts, batch.labels, config.batch_size),
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


def _backward(
    clip: Clip,
    parallel: Parallel,
    batch: Batch,
    config: TrainConfig,
    *,
    step: int,
    bank: Texts | None,
    teacher: Teacher | None,
) -> tuple[Tensor, Features]:
    """The loss of the global batch and this process's features; its gradient is added to the weights."""
    device = clip.logit_scale.device
    precision = choose_precision(config.precision, device)
    pixels = batch.pixels.to(device)
    same = same_of(config.loss, batch.texts, batch.labels)
    same = None if same is None else same.to(device)
    known = None if bank is None else bank(batch.texts).to(device)  # [b, D]
    target = None if teacher is None else teacher(pixels, batch.texts)

    def features_of(rows: Tensor) -> Features:
        texts = [batch.texts[row] for row in rows]
        part = pixels if len(rows) == len(pixels) else pixels[rows.to(device)]
        ids = None if bank is not None else clip.text.tokenize(texts).to(device)
        draws.give(batch.rows[rows])
        with autocast(precision, device):
            image, text, scale, bias = parallel(part, ids)
        text = known[rows.to(device)] if known is not None else text
        assert text is not None
        return Features(image, text, scale, bias)

    def loss_of(found: Features) -> Tensor:
        loss = contrast(config.loss, found.image, found.text, found.scale, found.bias, same)
        return loss if target is None else loss + distill(config.loss, found, target)

    parts = [partial(features_of, rows) for rows in torch.arange(len(pixels)).tensor_split(config.accumulate)]
    with StepDraws(clip, config.batch_size, seed=step_seed(config.seed, step), device=device) as draws:
        return backward(parallel, parts, loss_of)


def _check_finite(facts: StepFacts, batch: Batch) -> None:
    if not (math.isfinite(facts.loss) and math.isfinite(facts.grad_norm)):
        raise NonFiniteError(
            f"step {facts.step}: loss {facts.loss}, gradient norm {facts.grad_norm}, learning rate {facts.lr:.2g}; "
            f"stopped before the update. Samples: {', '.join(batch.keys[:8])} ... Lower optim.peak_lr, or set "
            "optim.clip_norm=1, and resume from the last saved state",
            step=facts.step,
            keys=batch.keys,
            loss=facts.loss,
            grad_norm=facts.grad_norm,
        )
