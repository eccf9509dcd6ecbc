"""The training loop: fetch, step, then hooks."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Protocol, Self

import torch

from eyesmith.data.loader import Batch
from eyesmith.optim import freeze, parameter_groups
from eyesmith.optim.groups import part_of
from eyesmith.optim.held import keep_or_restore
from eyesmith.optim.optimizers import make_optimizer
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.objective import Objective
from eyesmith.train.precision import choose_precision
from eyesmith.train.readings import PART, Gate, Readings, StepFacts
from eyesmith.train.sharding import Parallel
from eyesmith.train.state import TrainState

STOP_STEPS = 10  # several processes ask each other so often whether one of them shall stop


class Hook(Protocol):
    """Something done after a step: logging, saving, measuring. It must not change what the next step computes."""

    def __call__(self, state: TrainState, facts: StepFacts) -> None: ...


def new_state(objective: Objective, config: RunConfig, world: World | None = None) -> TrainState:
    """The state before the first step: what does not train frozen, the model spread over the processes, an optimiser.

    Changes `objective.model` in place. Raises ConfigError for patterns that fit no parameter, and for a strategy or
    batch size that the number of processes does not allow.
    """
    model, optim, world = objective.model, config.optim, world or World()
    world.check_batch(config.batch_size, config.accumulate)
    freeze(model, optim.freeze)
    # under FSDP a model may lie elsewhere before it is spread
    device = world.device() if world.size > 1 else objective.device
    precision = choose_precision(config.precision, device)
    extra = objective.extra()
    parallel = Parallel(objective, config.parallel, world, precision=precision)
    products = torch.bfloat16 if precision == "bf16" or device.type == "cuda" else torch.float32
    optimizer = make_optimizer(optim, parameter_groups(model, optim, extra=extra), products=products)
    state = TrainState(model=model, optimizer=optimizer, average={}, extra=extra, parallel=parallel)
    if optim.ema_decay:
        state.average = {name: value.detach().clone() for name, value in state.trained().items()}
    return state


class Batches(Protocol):
    """Where the loop gets its batches from: a `Loader`."""

    @property
    def steps_per_epoch(self) -> int: ...

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had."""
        ...

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
    waiting times. Of several processes each asks `should_stop` at every `STOP_STEPS`-th step only.

    The host waits for the device at logged steps alone. In fp16 a step whose gradient overflows is left out. Else a
    loss or gradient that is not finite shuts a gate there: that step and later ones change nothing. At the next logged,
    saved or measured step NonFiniteError names the first such step and its samples, and `state` is the one before it.
    """
    last = total_steps(config, batches.steps_per_epoch)
    parallel = state.parallel or Parallel(objective, config.parallel, World())
    objective.model.train()
    state.gate = gate = Gate(objective.device, parallel.scaling)
    state.optimizer.found_inf = gate.held  # pyright: ignore[reportAttributeAccessIssue]
    counted = list(state.counted().values())
    before = [value.clone() for value in counted]  # running statistics change in the forward pass already
    while state.step < last:
        if (parallel.world.size == 1 or state.step % STOP_STEPS == 0) and parallel.world.any(should_stop()):
            state.confirm()
            return False
        start = time.perf_counter()
        batch = batches.batch(state.step)
        fetched = time.perf_counter()

        lr = config.optim.lr_at(state.step, last)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        found = objective.backward(parallel, batch, state.step)
        part = partial(part_of, model=objective.model) if config.optim.clip_by == "part" else None
        norms = parallel.clip_grad_norm(state.trained(), config.optim.clip_norm, part=part)
        seen = gate.look(found.loss, norms.total)
        state.readings.clear()
        state.optimizer.step()
        state.optimizer.zero_grad()
        with torch.no_grad():
            objective.after_update()
            keep_or_restore(gate.held, counted, before)
        state.update_average(config.optim)
        elapsed_s = state.elapsed_s
        state.step += 1
        is_last = state.step == last
        readings = {**seen, "loss": found.loss, "grad_norm": norms.total, "scale": found.scale}
        readings |= {f"{name}_grad_norm": value for name, value in norms.parts.items()}
        readings |= {f"{name}{PART}": value for name, value in found.parts.items()}
        facts = StepFacts(
            step=state.step,
            is_last=is_last,
            is_logged=is_last or state.step % config.log_every_steps == 0,
            epoch=state.step / batches.steps_per_epoch,
            samples=batches.samples(state.step),
            batch_size=len(batch.rows) * parallel.world.size,
            lr=lr,
            wait_s=fetched - start,
            readings=Readings({**readings, **state.readings}),
            chance_loss=found.chance,
        )
        gate.note(facts, batch.keys, elapsed_s)
        if facts.is_logged:
            state.confirm()
        state.elapsed_s = elapsed_s + time.perf_counter() - start
        for hook in hooks:
            hook(state, facts)
    return True


class StopSignal:
    """Ctrl-C and SIGTERM between two steps, so that what is saved is a whole state.

    Inside the context both only raise the flag. Ctrl-C after either of them acts at once; another SIGTERM does not,
    because launchers send several: srun one to every process, and torchrun passes its own on.
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
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __call__(self) -> bool:
        return self.is_set

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before.pop(signal.SIGINT))
