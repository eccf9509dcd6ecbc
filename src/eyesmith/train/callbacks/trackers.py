"""Trackers beside the local log: each hears the very lines of log.jsonl, at the same steps.

A tracker is imported when a run asks for it. One that fails while the run goes on (no network, a full disk) is told of
once and left out from then on: the local log has everything.
"""

import importlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eyesmith.errors import MissingDependencyError
from eyesmith.files import write_atomic


class Tracker(ABC):
    """Takes lines of the log. `name` is what config and messages call it."""

    name: str

    @abstractmethod
    def values(self, step: int, values: dict[str, float]) -> None:
        """Numbers of one step; checks are named check/split/metric."""

    @abstractmethod
    def text(self, step: int, message: str) -> None:
        """A sentence about the run's health."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held."""


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard."""

    name = "tensorboard"

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise _missing(self.name) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), max_queue=100, flush_secs=30)

    def values(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, message: str) -> None:
        self._writer.add_text("health", message, step)

    def close(self) -> None:
        self._writer.close()


class _Client(Tracker):
    """wandb's interface, which trackio has too: init, log, finish. The run's folder gives the name."""

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        try:
            self._module: Any = importlib.import_module(self.name)
        except ImportError as error:
            raise _missing(self.name) from error
        self._run = self._start(folder, project, config)

    @abstractmethod
    def _start(self, folder: Path, project: str, config: dict[str, Any]) -> Any: ...

    def values(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Wandb(_Client):
    """Weights & Biases; a resumed run goes on under its own id. WANDB_MODE=offline keeps it on this machine."""

    name = "wandb"

    def _start(self, folder: Path, project: str, config: dict[str, Any]) -> Any:
        known = folder / "wandb_id"
        run_id = known.read_text(encoding="utf-8").strip() if known.is_file() else secrets.token_hex(4)
        write_atomic(known, run_id)
        return self._module.init(
            project=project, name=folder.name, id=run_id, resume="allow", dir=str(folder), config=config
        )

    def text(self, step: int, message: str) -> None:
        self._run.alert(title="health", text=f"step {step}: {message}")


class Trackio(_Client):
    """trackio, which writes to a local database (`trackio show`)."""

    name = "trackio"

    def _start(self, folder: Path, project: str, config: dict[str, Any]) -> Any:
        return self._module.init(project=project, name=folder.name, resume="allow", config=config)

    def text(self, step: int, message: str) -> None:
        self._run.log({"health": message}, step=step)


TRACKERS: dict[str, Callable[[Path, str, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}


class Trackers:
    """All trackers of a run, as a listener of its log. Use it in the first process only, and close it at the end."""

    def __init__(self, trackers: Sequence[Tracker], note: Callable[[str], None]) -> None:
        self._trackers, self._note = list(trackers), note

    @classmethod
    def open(
        cls, names: Sequence[str], folder: Path, *, project: str, config: dict[str, Any], note: Callable[[str], None]
    ) -> "Trackers":
        """Start the trackers of these names. Raises MissingDependencyError for one that is not installed."""
        folder = Path(os.path.abspath(folder))  # its last part is the run's name
        return cls([TRACKERS[name](folder, project, config) for name in names], note)

    def __call__(self, line: dict[str, Any]) -> tuple[()]:
        """Hear one line of the log."""
        step = line.get("step")
        if step is None:
            return ()
        if line.get("event") == "health":
            self._each(lambda tracker: tracker.text(step, f"{line['message']}; {line['hint']}"))
        elif values := _numbers(line):
            self._each(lambda tracker: tracker.values(step, values))
        return ()

    def close(self) -> None:
        """End all of them."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                act(tracker)
            except Exception as error:  # a foreign program's trouble must not end a run of days
                self._trackers.remove(tracker)
                self._note(f"{tracker.name} failed and is left out from now on ({error}); log.jsonl has every line")


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line by name; a line with an event other than health has none."""
    if "event" in line:
        return {}
    found = {name: value for name, value in line.items() if name != "step" and isinstance(value, int | float)}
    checks = {f"check/{name}": value for name, value in line.get("eval", {}).items() if value is not None}
    return {name: float(value) for name, value in (found | checks).items()}


def _missing(name: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"track.trackers: {name} is not installed; `pip install 'eyesmith[{name}]'`, or leave it out: log.jsonl in the "
        "run folder always has every line"
    )
