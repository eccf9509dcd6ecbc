"""Measuring while training: what the weights of a moment reach, in the log, and the best of them kept as a model.

The averaged weights are measured where a run keeps them.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.files import load_json, write_json
from eyesmith.train.config import EvalConfig
from eyesmith.train.readings import StepFacts
from eyesmith.train.state import TrainState

BEST_FOLDER = "best"
BEST_FILE = "best.json"


class Evaluation:
    """A hook that measures every n-th step and the last, writes a line `{"step", "time_s", "check_s", "eval"}`, and
    keeps the best weights in RUN/best. Use it in every process of a run.
    """

    def __init__(
        self,
        measure: Callable[[nn.Module], dict[str, float]],
        config: EvalConfig,
        folder: Path,
        *,
        steps_per_epoch: int,
        save: Callable[[Path, nn.Module], None],
        write: Callable[[dict[str, Any]], None],
        current_name: Callable[[str], str] = str,
    ) -> None:
        """current_name: of a value that older runs, or the config, may call otherwise. measure: the values of a whole
        model, called in every process. save: writes a model to a folder. write: adds a line to the log; both are called
        in the first process.
        """
        self._measure, self._folder, self._save, self._write = measure, folder, save, write
        self._keep, self._current_name = config.keep_best, current_name
        self._every = config.every_steps or max(1, round(config.every_epochs * steps_per_epoch))

    def __call__(self, state: TrainState, facts: StepFacts) -> None:
        """Raises ConfigError when eval.keep_best is not among what was measured."""
        if facts.step % self._every and not facts.is_last:
            return
        start = time.perf_counter()
        state.confirm()
        with state.averaged():
            model = state.whole_model()
            found = self._measure(model)
            if not (state.world.is_first and found):
                return
            if self._keep != "none":
                self._keep_best(model, found, facts.step)
        self._write(
            {
                "step": facts.step,
                "time_s": round(state.elapsed_s, 2),
                "check_s": round(time.perf_counter() - start, 2),
                "eval": {name: round(value, 5) for name, value in found.items()},
            }
        )

    def _keep_best(self, model: nn.Module, found: dict[str, float], step: int) -> None:
        name = next(iter(found)) if self._keep == "first" else self._current_name(self._keep)
        if name not in found:
            raise ConfigError(f"eval.keep_best: {name!r} is not measured{closest(name, [*found, 'first', 'none'])}")
        if is_better(self._folder, name, found[name], current_name=self._current_name):
            facts = {"step": step, "name": name, "value": found[name]}
            replace_best(self._folder, lambda new: self._save(new, model), facts)


def read_best(folder: Path) -> dict[str, Any] | None:
    """step, name and value of the best weights of a run; None where none are kept."""
    path = folder / BEST_FOLDER / BEST_FILE
    try:
        return load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_better(folder: Path, name: str, value: float, *, current_name: Callable[[str], str] = str) -> bool:
    """Whether a value beats that of the best weights of a run; so does any where they were chosen by another one."""
    best = read_best(folder)
    return best is None or current_name(best["name"]) != name or value > best["value"]


def replace_best(folder: Path, save: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """Let `save` write `folder`/best, with `facts` beside it; it is replaced in one move.

    A kill between the two renames leaves the older model in `folder`/.best.old and no best/; the next check that is
    better, or equal after a resume, makes it again.
    """
    new, old = folder / f".{BEST_FOLDER}.new", folder / f".{BEST_FOLDER}.old"
    shutil.rmtree(new, ignore_errors=True)
    save(new)
    write_json(new / BEST_FILE, facts)
    shutil.rmtree(old, ignore_errors=True)
    best = folder / BEST_FOLDER
    if best.exists():
        os.rename(best, old)
    os.rename(new, best)
    shutil.rmtree(old, ignore_errors=True)
