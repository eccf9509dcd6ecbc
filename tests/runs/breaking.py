"""A run that breaks, for tests of going on with it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from eyesmith.errors import EyesmithError
from eyesmith.runs.train import start
from eyesmith.runs.work import Work
from eyesmith.train.loop import Hook
from eyesmith.train.readings import StepFacts
from eyesmith.train.state import TrainState


class Broken(EyesmithError):
    pass


def start_and_break(config: Any, folder: Path, *, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a run that ends with an error after `step`, its last state kept as it was saved before."""
    hooks = Work._hooks

    def breaking(work: Work) -> AbstractContextManager[list[Hook]]:
        def stop(state: TrainState, facts: StepFacts) -> None:
            if facts.step == step:
                raise Broken("here")

        @contextmanager
        def both() -> Iterator[list[Hook]]:
            with hooks(work) as found:
                yield [*found, stop]

        return both()

    with monkeypatch.context() as patched:
        patched.setattr(Work, "_hooks", breaking)
        with pytest.raises(Broken):
            start(config, folder)
