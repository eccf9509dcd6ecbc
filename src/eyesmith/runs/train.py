"""A training run as a folder: started, gone on with, finished. Its folder is a model."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from eyesmith import __version__
from eyesmith.config import from_dict, to_dict
from eyesmith.data import Source, open_source
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import ResultRow, ZeroShot, append_rows, choose_splits, evaluate, read_rows, split_tasks
from eyesmith.files import write_json
from eyesmith.hub import is_run_folder, save_model
from eyesmith.runs.machine import choose_device, machine_facts
from eyesmith.runs.memory import keep_freed_memory
from eyesmith.runs.progress import progress
from eyesmith.train import (
    STATE_FILE,
    Batches,
    DataConfig,
    LogSteps,
    StepFacts,
    StopSignal,
    TextBank,
    TrainConfig,
    TrainState,
    append_line,
    new_state,
    total_steps,
    train,
    truncate_after,
)

CONFIG_FILE = "config.json"
RESULTS_FILE = "results.jsonl"


class Interrupted(KeyboardInterrupt):
    """A run stopped by Ctrl-C or SIGTERM; its state is saved. The message says how to go on."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A finished run: its folder, seconds spent in training steps, and its result rows."""

    folder: Path
    train_s: float
    rows: list[ResultRow]


def start(config: TrainConfig, folder: str | os.PathLike[str], *, console: Console | None = None) -> RunSummary:
    """Train `config` into `folder`, evaluate, and leave a folder that `eyesmith.load` opens.

    Raises ConfigError when the folder holds anything, DataError for unusable data, Interrupted on Ctrl-C.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        hint = f"go on with it by `eyesmith resume {root}`, or " if (root / CONFIG_FILE).is_file() else ""
        raise ConfigError(f"{root}: is not empty; {hint}choose another folder")
    work = _Work(config, root, console or Console(stderr=True, quiet=True))
    write_json(root / CONFIG_FILE, work.description())
    append_line(root, {"event": "start", "steps": work.last_step, **work.facts()})
    return work.finish()


def resume(folder: str | os.PathLike[str], *, console: Console | None = None) -> RunSummary:
    """Go on with an unfinished run exactly where its saved state stands; a finished one is returned as it is.

    Raises CheckpointError when the folder holds no run.
    """
    root = Path(folder)
    config = read_run_config(root)
    if is_finished(root):
        return RunSummary(folder=root, train_s=_trained_s(root), rows=_rows(root))
    work = _Work(config, root, console or Console(stderr=True, quiet=True))
    if work.has_saved_state():
        work.state.load(root)
    truncate_after(root, work.state.step)
    append_line(root, {"event": "resume", "step": work.state.step, **work.facts()})
    return work.finish()


def start_or_resume(
    config: TrainConfig, folder: str | os.PathLike[str], *, console: Console | None = None
) -> RunSummary:
    """`start`, or `resume` when the folder holds a run of the same config. Raises ConfigError for another run's."""
    root = Path(folder)
    if not (root / CONFIG_FILE).is_file():
        return start(config, root, console=console)
    if read_run_config(root) != config:
        raise ConfigError(f"{root}: holds a run with other settings; choose another folder, or delete this one")
    return resume(root, console=console)


def read_run_config(folder: Path) -> TrainConfig:
    """The training config of a run folder, finished or not."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: no run folder, there is no {CONFIG_FILE} in it")
    try:
        return from_dict(TrainConfig, json.loads(path.read_text(encoding="utf-8"))["train"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not the config of a training run ({error})") from None


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` ended: its weights are written last."""
    return is_run_folder(folder)


def open_training_source(data: DataConfig) -> Source:
    """The pairs that a run trains on."""
    return open_source(data.path, split=data.split, image_column=data.image_column, text_column=data.text_column)


class _Work:
    """One process's part of a run: everything built from the config, and the way to its end."""

    def __init__(self, config: TrainConfig, folder: Path, console: Console) -> None:
        self.config, self.folder, self.console = config, folder, console
        keep_freed_memory()
        source = open_training_source(config.data)
        self.fingerprint = source.fingerprint()
        torch.manual_seed(config.seed)
        self.clip = config.model.build().to(choose_device())
        self.batches = Batches(source, config, image_size=config.model.image.image_size)
        self._tell_left_out(source)
        if wanted := (*config.eval.splits, *config.eval.curve_splits):
            choose_splits(config.data.path, wanted)  # a wrong name is better known before the training than after
        self.bank = TextBank(self.clip, self.batches.captions()) if config.model.lock_text else None
        self.state = new_state(self.clip, config)
        self.last_step = total_steps(config, self.batches)

    def description(self) -> dict[str, Any]:
        train_part = to_dict(self.config)
        return {"eyesmith_version": __version__, "model": train_part["model"], "train": train_part}

    def facts(self) -> dict[str, Any]:
        count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
        return {
            "machine": machine_facts(),
            "parameters": {
                "image": count(self.clip.image),
                "text": count(self.clip.text),
                "trained": sum(value.numel() for value in self.state.trained().values()),
            },
            "data": {"samples": self.batches.plan.num_samples, "fingerprint": self.fingerprint},
            "texts_encoded": self.bank.num_encoded if self.bank else None,
        }

    def _tell_left_out(self, source: Source) -> None:
        left_out = [*source.problems, *self.batches.skipped]
        if left_out:
            first = left_out[0]
            self.console.print(
                f"{source.name}: {len(left_out)} findings, for example {first.kind}: {first.key or first.where}: "
                f"{first.detail}; `eyesmith data check {self.config.data.path}` lists them",
                markup=False,
            )

    def has_saved_state(self) -> bool:
        return (self.folder / STATE_FILE).is_file()

    def finish(self) -> RunSummary:
        began = time.monotonic()
        with (
            StopSignal() as stop,
            progress(self.console, f"train {self.config.model.name}", self.last_step, start=self.state.step) as advance,
        ):

            def show(state: TrainState, facts: StepFacts) -> None:
                advance(facts.step, f"loss {facts.loss:.3f}")

            hooks = [LogSteps(self.folder, self.config.log_every_steps), self._save, *self._curve(), show]
            is_done = train(
                self.state, self.clip, self.batches, self.config, bank=self.bank, hooks=hooks, should_stop=stop
            )
        if not is_done:
            self.state.save(self.folder)
            raise Interrupted(
                f"stopped after step {self.state.step} of {self.last_step}, saved; go on with "
                f"`eyesmith resume {self.folder}`"
            )
        self.state.take_average()
        self.clip.cpu().eval()
        rows = self._measure()
        (self.folder / RESULTS_FILE).unlink(missing_ok=True)
        append_rows(self.folder / RESULTS_FILE, rows)
        append_line(
            self.folder,
            {
                "event": "end",
                "step": self.state.step,
                "time_s": round(self.state.elapsed_s, 2),
                "wall_s": round(time.monotonic() - began, 2),
                "skipped": len(self.batches.source.problems) + len(self.batches.skipped),
            },
        )
        save_model(self.folder, self.clip, config=self.description())
        return RunSummary(folder=self.folder, train_s=self.state.elapsed_s, rows=rows)

    def _save(self, state: TrainState, facts: StepFacts) -> None:
        if facts.step % self.config.save_every_steps == 0 or facts.is_last:
            state.save(self.folder)

    def _measure(self) -> list[ResultRow]:
        splits = self.config.eval.splits
        if not splits:
            return []
        return evaluate(self.clip, self.config.data.path, splits, note=self.console.print)

    def _curve(self) -> Iterator[Any]:
        settings = self.config.eval
        tasks = [
            task
            for split in settings.curve_splits
            for task in split_tasks(self.config.data.path, split).tasks
            if isinstance(task, ZeroShot) and task.task == "zero_shot"
        ]
        every = max(1, round(settings.every_epochs * self.batches.plan.steps_per_epoch))

        def measure(state: TrainState, facts: StepFacts) -> None:
            if facts.step % every == 0 or facts.is_last:
                with state.averaged():
                    found = {name: round(value, 5) for task in tasks for name, value in task.run(self.clip)}
                append_line(self.folder, {"step": facts.step, "time_s": round(state.elapsed_s, 2), "eval": found})

        if tasks:
            yield measure


def _trained_s(folder: Path) -> float:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return next(line["time_s"] for line in reversed(lines) if "time_s" in line)


def _rows(folder: Path) -> list[ResultRow]:
    path = folder / RESULTS_FILE
    return read_rows(path) if path.is_file() else []
