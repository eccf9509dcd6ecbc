"""How long another config may train to take the time of a first one, from their steps taken in turn."""

import statistics
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from eyesmith.data.loader import Loader
from eyesmith.runs.machine import keep_freed_memory
from eyesmith.tasks import RunContext, task_of
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import new_state, train

WARM_UP_STEPS = 3
TIMED_STEPS = 15


def epochs_at_equal_time(config: TrainConfig, reference: TrainConfig) -> float:
    """Epochs of `config` that take as long as the whole of `reference`, both alone on this machine; at least one.

    Both are stepped in turn and the median ratio of neighbours is taken: whatever else the machine does meanwhile slows
    both alike, where a time measured once and spent later would favour one of them.
    """
    keep_freed_memory()
    ours, theirs = Trial(config), Trial(reference)
    ratios = [theirs.step_s() / ours.step_s() for _ in range(WARM_UP_STEPS + TIMED_STEPS)][WARM_UP_STEPS:]
    steps = reference.epochs * theirs.steps_per_epoch * statistics.median(ratios)
    return round(max(steps / ours.steps_per_epoch, 1.0), 2)


class Trial:
    """A run of up to `steps` steps that is stepped and thrown away; its schedule does not matter."""

    def __init__(self, config: TrainConfig, *, steps: int = WARM_UP_STEPS + TIMED_STEPS) -> None:
        """`samples_per_step`: of all steps of an epoch, in the mean."""
        kind, world = task_of(config), World()
        rows = kind.open_rows(config, world)
        self.steps_per_epoch = rows.steps_per_epoch
        self.samples_per_step = rows.samples(rows.steps_per_epoch) / rows.steps_per_epoch
        self._config = replace(config, epochs=(steps + 1) / self.steps_per_epoch)
        context = RunContext(folder=Path(), world=world, console=Console(quiet=True))
        self._objective = kind.build(self._config, rows, context)  # with all that a step of it costs
        self._objective.add_adapters()
        self._batches = Loader(rows, prepare=self._objective.prepare, ahead=0)  # two trials take turns
        self._state = new_state(self._objective, self._config)

    def step_s(self) -> float:
        """Seconds of one more step."""
        start, until = time.perf_counter(), self._state.step + 1
        train(
            self._state,
            self._objective,
            self._batches,
            self._config,
            should_stop=lambda: self._state.step == until,
        )
        return time.perf_counter() - start
