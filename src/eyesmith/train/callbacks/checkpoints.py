"""Saving a run's state now and then, so that a run killed at any moment goes on from the last one."""

from pathlib import Path

from eyesmith.train.checkpoint import KEEP
from eyesmith.train.readings import StepFacts
from eyesmith.train.state import TrainState


class Checkpoints:
    """A hook that saves the state below the run folder every n-th step and after the last.

    Put it behind all others: a state on disk then never lacks lines of its own step in the log.
    """

    def __init__(self, folder: Path, every_steps: int, *, in_background: bool = False, keep: int = KEEP) -> None:
        self._folder, self._every_steps, self._in_background, self._keep = folder, every_steps, in_background, keep

    def __call__(self, state: TrainState, facts: StepFacts) -> None:
        if facts.step % self._every_steps == 0 or facts.is_last:
            state.save(self._folder, in_background=self._in_background, keep=self._keep)
