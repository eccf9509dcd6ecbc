"""The training loop: fetch, step, then hooks."""

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, Self

import torch

from eyesmith.data.loader import Batch
from eyesmith.optim import freeze, parameter_groups
from eyesmith.optim.build import make_optimizer
from eyesmith.train.config import RunConfig
from eyesmith.train.objective import Objective
from eyesmith.train.parallel import Parallel
from eyesmith.train.processes import World
from eyesmith.train.replay import NonFiniteError
from eyesmith.train.state import TrainState


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one step did. `step` counts from 1; wait_s is the time that fetching the batch took.

    scale: 1/temperature, None where there is none. chance_loss: the loss of guessing, 0 where there is no such level.
    """

    step: int
    is_last: bool
    epoch: float
    samples: int
    batch_size: int
    loss: float
    lr: float
    scale: float | None
    grad_norm: float
    wait_s: float
    chance_loss: float = 0.0


class Hook(Protocol):
    """Something done after a step: logging, saving, measuring. It must not change what the next step computes."""

    def __call__(self, state: TrainState, facts: StepFacts) -> None: ...


def new_state(objective: Objective, config: RunConfig, world: World | None = None) -> TrainState:
    """The state before the first step: what does not train frozen, the model spread over the processes, an optimiser.

    Changes `objective.model` in place. Raises ConfigError for patterns that fit no parameter, and for a strategy or
    batch size that the number of processes does not allow.
    """
    model, optim, world = objective.model, config.optim, world or World()
    world.share(config.batch_size)
    freeze(model, optim.freeze)
    extra = objective.extra()
    parallel = Parallel(objective, config.parallel, world)
    groups = parameter_groups(
        model,
        weight_decay=optim.weight_decay,
        no_decay=optim.no_decay,
        image_lr_scale=optim.image_lr_scale,
        text_lr_scale=optim.text_lr_scale,
        layer_decay=optim.layer_decay,
        text_layer_decay=optim.text_layer_decay,
        layer_decay_by=optim.layer_decay_by,
        extra=extra,
    )
    optimizer = make_optimizer(optim.name, groups, lr=optim.peak_lr, betas=optim.betas, eps=optim.eps)
    state = TrainState(model=model, optimizer=optimizer, average={}, extra=extra, parallel=parallel)
    if optim.ema_decay:
        state.average = {name: value.detach().clone() for name, value in state.trained().items()}
    return state


class Batches(Protocol):
    """Where the loop gets its batches from: a `Loader`."""

    @property
    def steps_per_epoch(self) -> int: ...

    def batch(self, step: int) -> Batch:
        """This process's rows of a global step, counted from 0: a pure function of the step."""
        ...


def total_steps(config: RunConfig, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run, at least one."""
    return max(1, round(config.epochs * steps_per_epoch))


def train(
    state: TrainState,
    objective: Objective,
    batches: Batches,
    config: RunConfig,
    *,
    hooks: Sequence[Hook] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train from `state.step` to the end of the run; False when `should_stop` ended it between two steps.

    Every process of the run calls this, with the batches of its own rows; facts are equal in all of them, but for
    waiting times. Raises NonFiniteError before the update when the loss or a gradient is not finite, naming step and
    samples.
    """
    last = total_steps(config, batches.steps_per_epoch)
    parallel = state.parallel or Parallel(objective, config.parallel, World())
    objective.model.train()
    while state.step < last:
        if parallel.world.any(should_stop()):
            return False
        start = time.perf_counter()
        batch = batches.batch(state.step)
        fetched = time.perf_counter()

        lr = config.optim.lr_at(state.step, last)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        found = objective.backward(parallel, batch, state.step)
        grad_norm = parallel.clip_grad_norm(state.trained(), config.optim.clip_norm)
        facts = StepFacts(
            step=state.step + 1,
            is_last=state.step + 1 == last,
            epoch=(state.step + 1) / batches.steps_per_epoch,
            samples=(state.step + 1) * config.batch_size,
            batch_size=len(batch.rows) * parallel.world.size,
            loss=found.loss.item(),
            lr=lr,
            scale=None if found.scale is None else found.scale.item(),
            grad_norm=grad_norm.item(),
            wait_s=fetched - start,
            chance_loss=found.chance,
        )
        _check_finite(facts, batch)
        state.optimizer.step()
        state.optimizer.zero_grad()
        with torch.no_grad():
            objective.after_update()
        state.update_average(config.optim)
        state.step += 1
        state.elapsed_s += time.perf_counter() - start
        for hook in hooks:
            hook(state, facts)
    return True


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


class StopSignal:
    """Ctrl-C between two steps, so that what is saved is a whole state.

    Inside the context, a first SIGINT or SIGTERM only raises the flag; a second one acts at once.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def __call__(self) -> bool:
        return self.is_set

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
