"""log.jsonl of a run: one object a line, a step or a measurement or an event, appended as they happen."""

import json
import time
from pathlib import Path
from typing import Any

from eyesmith.files import write_atomic
from eyesmith.train.loop import StepFacts
from eyesmith.train.state import TrainState

LOG_FILE = "log.jsonl"


def append_line(folder: Path, line: dict[str, Any]) -> None:
    """Add one line; a crash leaves at most half of this one, which `truncate_after` removes."""
    with (folder / LOG_FILE).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def truncate_after(folder: Path, step: int) -> None:
    """Drop the lines of later steps, and a half-written last one: what a resumed run will write again."""
    path = folder / LOG_FILE
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if line.get("step", 0) <= step:
            kept.append(text)
    write_atomic(path, "".join(text + "\n" for text in kept))


class LogSteps:
    """Writes every n-th step: loss, rate, temperature, gradient norm, images a second and the share spent waiting.

    Rates are means since the last line.
    """

    def __init__(self, folder: Path, every_steps: int) -> None:
        self._folder, self._every_steps = folder, every_steps
        self._start, self._samples, self._wait_s = time.perf_counter(), 0, 0.0

    def __call__(self, state: TrainState, facts: StepFacts) -> None:
        self._samples += facts.batch_size
        self._wait_s += facts.wait_s
        if facts.step % self._every_steps and not facts.is_last:
            return
        now = time.perf_counter()
        passed = now - self._start
        line = {
            "step": facts.step,
            "samples": facts.samples,
            "epoch": round(facts.epoch, 3),
            "loss": round(facts.loss, 5),
            "lr": facts.lr,
            "scale": round(facts.scale, 4),
            "grad_norm": round(facts.grad_norm, 5),
            "images_per_s": round(self._samples / passed, 1),
            "wait_frac": round(self._wait_s / passed, 4),
            "time_s": round(state.elapsed_s, 2),
        }
        append_line(self._folder, line)
        self._start, self._samples, self._wait_s = now, 0, 0.0
