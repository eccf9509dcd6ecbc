"""The log of a run, read as it is: half lines, resumes and a run that never ended included."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyesmith.eval.results.rows import current_name
from eyesmith.files import load_json

LOG_FILE = "log.jsonl"


@dataclass(kw_only=True)
class RunLog:
    """What log.jsonl says. Points are (time_s, value) with time_s the seconds of training, never running backwards.

    start: the first "start" event; steps, samples, epochs, time_s: of the last logged step; rates: images per second.
    skipped: unusable samples, counted at the end; num_broken: lines that are no JSON object (a killed run leaves one).
    health: what the health rules said, as (step, sentence).
    """

    start: dict[str, Any] = field(default_factory=dict)
    resumes: int = 0
    steps: int | None = None
    samples: int | None = None
    epochs: float | None = None
    time_s: float | None = None
    loss: list[tuple[float, float]] = field(default_factory=list)
    evaluations: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    skipped: int = 0
    health: list[tuple[int, str]] = field(default_factory=list)
    num_broken: int = 0

    @property
    def images_per_s(self) -> float | None:
        """Median of the logged rates."""
        return statistics.median(self.rates) if self.rates else None


def read_log(folder: Path) -> RunLog:
    """The log of a run folder; an empty one when there is no file.

    A resumed run repeats the steps since its last saved state: what was logged beyond the step where it went on is
    dropped, so that no step is counted twice. Where a clock starts again at zero after a resume, it is set on.
    """
    log = RunLog()
    entries: list[dict[str, Any]] = []
    for entry in _lines(folder / LOG_FILE, log):
        event = entry.get("event")
        if event == "start" and not log.start:
            log.start = entry
        elif event == "resume":
            log.resumes += 1
            step = _number(entry, "step")
            if step is not None:
                entries = [old for old in entries if (_number(old, "step") or 0) <= step]
        entries.append(entry)
    _fill(log, entries)
    return log


def _lines(path: Path, log: RunLog) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            entry = load_json(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            yield entry
        elif line.strip():
            log.num_broken += 1


def _fill(log: RunLog, entries: list[dict[str, Any]]) -> None:
    offset, latest, is_after_resume = 0.0, 0.0, False
    for entry in entries:
        is_after_resume = is_after_resume or entry.get("event") == "resume"
        if entry.get("event") == "health" and isinstance(entry.get("message"), str):
            hint = entry.get("hint")
            sentence = f"{entry['message']}; {hint}" if isinstance(hint, str) and hint else entry["message"]
            log.health.append((int(_number(entry, "step") or 0), sentence))
        time_s = _number(entry, "time_s")
        if time_s is None or entry.get("event") == "start":
            continue
        if is_after_resume and "event" not in entry:
            offset = latest if time_s + offset < latest else offset
            is_after_resume = False
        latest = max(latest, time_s + offset)
        log.time_s = latest
        log.skipped = int(_number(entry, "skipped") or log.skipped)
        loss, rate = _number(entry, "loss"), _number(entry, "images_per_s")
        if loss is not None:
            log.loss.append((latest, loss))
        if rate is not None:
            log.rates.append(rate)
        step, samples, epochs = _number(entry, "step"), _number(entry, "samples"), _number(entry, "epoch")
        log.steps = log.steps if step is None else int(step)
        log.samples = log.samples if samples is None else int(samples)
        log.epochs = log.epochs if epochs is None else epochs
        evaluation = entry.get("eval")
        for key, value in evaluation.items() if isinstance(evaluation, dict) else ():
            fraction = _finite(value)
            if fraction is not None:
                log.evaluations.setdefault(current_name(str(key)), []).append((latest, fraction))


def _number(entry: dict[str, Any], key: str) -> float | None:
    return _finite(entry.get(key))


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
