"""log.jsonl of a run: one object a line, a step or a measurement or an event, appended as they happen."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eyesmith.files import load_json, not_linked, write_atomic
from eyesmith.train.metrics import Metrics, Throughput
from eyesmith.train.readings import StepFacts
from eyesmith.train.state import TrainState
from eyesmith.train.utilisation import peak_memory_mib

LOG_FILE = "log.jsonl"
Listener = Callable[[dict[str, Any]], Sequence[dict[str, Any]]]
"""Hears every line as it is written, and gives further ones to write after it."""


def append_line(folder: Path, line: dict[str, Any]) -> None:
    """Add one line; a crash leaves at most half of this one, which `truncate_after` removes."""
    with open(folder / LOG_FILE, "a", encoding="utf-8", opener=not_linked) as stream:
        stream.write(json.dumps(line) + "\n")


def truncate_after(folder: Path, step: int) -> None:
    """Drop the lines of later steps, and a half-written last one: what a resumed run will write again."""
    kept = [line for line in read_lines(folder) if line.get("step", 0) <= step]
    write_atomic(folder / LOG_FILE, "".join(json.dumps(line) + "\n" for line in kept))


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log up to the first that is no whole object; none where there is no log."""
    path = folder / LOG_FILE
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            line = load_json(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines


class Log:
    """The log of a run with those who listen to it: its health, and trackers."""

    def __init__(self, folder: Path, listeners: Sequence[Listener] = ()) -> None:
        self._folder, self._listeners = folder, tuple(listeners)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line, then what the listeners answer."""
        append_line(self._folder, line)
        for listener in self._listeners:
            for answer in listener(line):
                self.write(answer)


class LogSteps:
    """Writes a logged step: what the step did, what `metrics` measured in it, and rates since the last such line.

    A value that is not there (the gradient of a locked tower, an unknown number of operations) is left out.
    """

    def __init__(self, log: Log, metrics: Metrics, throughput: Throughput) -> None:
        self._log, self._metrics, self._throughput = log, metrics, throughput

    def __call__(self, state: TrainState, facts: StepFacts) -> None:
        self._throughput.add(facts.batch_size, facts.wait_s)
        if not facts.is_logged:
            return
        seen = self._metrics.of(facts)
        chance = facts.chance_loss
        line = {
            "step": facts.step,
            "samples": facts.samples,
            "epoch": round(facts.epoch, 3),
            "loss": round(facts.loss, 5),
            "chance_loss": round(chance, 5),
            "loss_frac": round(facts.loss / chance, 4) if chance else None,
            **{name: _significant(value, 5) for name, value in facts.readings.parts().items()},
            "lr": facts.lr,
            "scale": None if facts.scale is None else round(facts.scale, 4),
            "grad_norm": round(facts.grad_norm, 5) if math.isfinite(facts.grad_norm) else None,
            "loss_scale": facts.readings.number("loss_scale") if "loss_scale" in facts.readings else None,
            **{name: _significant(value, 4 if name.endswith("_rank") else 6) for name, value in seen.items()},
            **self._throughput.take(state.elapsed_s, self._metrics.flops()),
            "peak_mib": round(peak_memory_mib(next(state.model.parameters()).device), 1),
            "time_s": round(state.elapsed_s, 2),
        }
        self._log.write({name: value for name, value in line.items() if value is not None})


def _significant(value: float | None, digits: int) -> float | None:
    """Rounded to so many digits; None for what is no number, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
