"""One process's part of a run: everything built from the config, and the way to its end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from eyesmith import __version__
from eyesmith.data.loader import Loader, transfer_to
from eyesmith.errors import EyesmithError
from eyesmith.eval import ResultRow, append_rows, read_rows
from eyesmith.eval.features.agreement import agreed
from eyesmith.files import write_json
from eyesmith.hub.initial import InitialConfig
from eyesmith.hub.run_folder import save_encoder_file
from eyesmith.models.lora import merged
from eyesmith.runs.data_identity import describe_data
from eyesmith.runs.folder import CONFIG_FILE, FROZEN_FILE, plain
from eyesmith.runs.hooks import run_hooks
from eyesmith.runs.machine import keep_freed_memory, machine_facts
from eyesmith.runs.origin import (
    Origin,
    check_data,
    check_teachers,
    check_weights,
    frozen_tensors,
    is_gone,
    keep_frozen,
    kept_frozen,
    take_kept,
)
from eyesmith.tasks import Evaluator, RunContext, Task, run_to_dict, task_of
from eyesmith.tasks.registry import save_task_file
from eyesmith.tasks.task import BEFORE
from eyesmith.train.callbacks.logging import append_line, read_lines, truncate_after
from eyesmith.train.callbacks.progress import progress
from eyesmith.train.checkpoint import states
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import Hook, StopSignal, new_state, total_steps, train
from eyesmith.train.precision import choose_precision, set_switches
from eyesmith.train.readings import StepFacts
from eyesmith.train.replay import NonFiniteError, Replay
from eyesmith.train.state import TrainState

RESULTS_FILE = "results.jsonl"
REPLAY_FOLDER = "replay"


class Interrupted(KeyboardInterrupt):
    """A run stopped by Ctrl-C or SIGTERM; its state is saved. The message says how to go on."""


class MeasuringError(EyesmithError):
    """The model of a run is trained and saved, and measuring it failed. The message says how to measure again."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A finished run: its folder, seconds spent in training steps, and its result rows.

    was_finished: before it was asked for, so that nothing was done now.
    """

    folder: Path
    train_s: float
    rows: list[ResultRow]
    was_finished: bool = False


def open_work(config: RunConfig, folder: Path, console: Console) -> "Work":
    """Everything that a run of `config` trains with in one process, built and not begun; nothing is written."""
    return Work(config, folder, console, World())


class Work:
    """One process's part of a run: everything built from the config, and the way to its end."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        console: Console,
        world: World,
        evaluators: Sequence[Evaluator] = (),
        *,
        is_new: bool = False,
        origin: Origin | None = None,
        allow_other_data: bool = False,
    ) -> None:
        """is_new: it will be remembered what the run begins with. origin: of a run that goes on, remembered then; its
        data and frozen weights are compared with those of now.
        """
        self.config, self.folder, self.world, self.evaluators = config, folder, world, tuple(evaluators)
        self.console = console if world.is_first else Console(quiet=True)
        world.check_batch(config.batch_size, config.accumulate)
        set_switches(config.parallel)
        keep_freed_memory()
        kind = task_of(config)
        self.rows = kind.open_rows(config, world)
        self.fingerprint = self.rows.fingerprint()
        self._tell_left_out()
        self.other_data = self._compare_data(origin, allow_other_data) if origin else []
        if origin:
            world.once(lambda: check_teachers(origin, config, folder))
        has_state = world.once(self.has_saved_state)
        is_orphan = world.once(lambda: origin is not None and has_state and is_gone(config))
        kept = kept_frozen(folder) if is_orphan else {}
        self.context = RunContext(folder=folder, world=world, console=self.console, kept=kept)
        torch.manual_seed(config.seed)
        self.task: Task = kind.build(
            replace(config, initial=InitialConfig()) if is_orphan else config, self.rows, self.context
        )
        self.task.add_adapters()
        if is_orphan:  # all that trains comes out of the state, the rest is kept
            self.context.say(f"{config.initial.weights}: is gone; the run goes on with the weights that it keeps")
            take_kept(self.task.model, kept)
            self.task.config = config
        if is_new and world.is_first:  # while the model is not spread over processes
            self._begins_with = Origin.of(config, self.task, self._data()), frozen_tensors(self.task, config)
        if origin is not None:
            world.once(lambda: check_weights(origin, self.task, config, folder, has_state=has_state))
        self.state = new_state(self.task, config, world)
        self.last_step = total_steps(config, self.rows.steps_per_epoch)
        transfer = transfer_to(self.task.device)
        self.batches = Loader(self.rows, prepare=self.task.prepare, transfer=transfer, last_step=self.last_step)

    def _compare_data(self, origin: Origin, allow_other_data: bool) -> list[str]:
        path = self.config.data.path
        try:
            return self.world.once(
                lambda: check_data(origin, self._data(), self.folder, path=path, allow_other_data=allow_other_data)
            )
        except BaseException:
            self.rows.close()
            raise

    def _data(self) -> dict[str, Any]:
        return plain(describe_data(self.rows, reads_texts=self.config.reads_texts))

    def remember_data(self) -> None:
        """Keep the data of now as those that the run is compared with from here on."""

        def write() -> None:
            if (origin := Origin.read(self.folder)) is not None:
                replace(origin, train=plain(run_to_dict(self.config)), data=self._data()).write(self.folder)

        self.world.once(write)

    def description(self) -> dict[str, Any]:
        model, train_part = self.task.description(), run_to_dict(self.config)
        return {"eyesmith_version": __version__, "model": model, "train": train_part}

    def facts(self) -> dict[str, Any]:
        model = self.task.model
        towers = {name: getattr(model, name) for name in ("image", "text") if hasattr(model, name)}
        counts = {name: sum(p.numel() for p in tower.parameters()) for name, tower in towers.items()}
        return {
            "machine": machine_facts(),
            "parameters": {
                **counts,
                "trained": sum(value.numel() for value in self.state.trained().values()),
            },
            "data": {"samples": self.rows.num_samples, "fingerprint": self.fingerprint},
            **self.task.facts(),
        }

    def _tell_left_out(self) -> None:
        left_out = [*self.rows.problems, *self.rows.skipped]
        if left_out:
            first = left_out[0]
            self.console.print(
                f"{self.config.data.path}: {len(left_out)} findings, for example {first.kind}: "
                f"{first.key or first.where}: {first.detail}; `eyesmith data check {self.config.data.path}` lists them",
                markup=False,
            )

    def has_saved_state(self) -> bool:
        return bool(states(self.folder))

    def begin(self, line: dict[str, Any], *, after_step: int | None = None) -> None:
        """Write the config, or drop the log after a step, and say in the log what begins."""

        def write() -> None:
            if after_step is None:
                origin, frozen = self._begins_with
                origin.write(self.folder)
                keep_frozen(self.folder, frozen)
                del self._begins_with
                save_encoder_file(self.folder, self.config.model)
                save_task_file(self.folder, self.config)
                write_json(self.folder / CONFIG_FILE, self.description())
            else:
                truncate_after(self.folder, after_step)
            append_line(self.folder, line)

        self.world.once(write)

    def measure_before(self) -> None:
        """Write what the initial weights reach, so that what a fine-tuned model gains and keeps can be seen."""
        model = self.state.whole_model()
        with agreed(self.world, (Exception,)):
            rows = self.task.measured_before(model, self.context)
        if rows:
            self.world.once(lambda: append_rows(self.folder / RESULTS_FILE, rows))

    def finish(self) -> RunSummary:
        try:
            return self._finish()
        finally:
            self.batches.close()

    def _finish(self) -> RunSummary:
        began = time.monotonic()
        with (
            StopSignal() as stop,
            progress(self.console, f"train {self.config.model_name}", self.last_step, start=self.state.step) as advance,
        ):
            said = [""]

            def show(state: TrainState, facts: StepFacts) -> None:
                if facts.is_logged:
                    said[0] = f"loss {facts.loss:.3f}"
                advance(facts.step, said[0])

            def save(state: TrainState, facts: StepFacts) -> None:
                if facts.step % self.config.save_every_steps == 0 or facts.is_last:
                    in_background = self.config.parallel.async_save
                    state.save(self.folder, in_background=in_background, keep=self.config.keep_states)

            with self._hooks() as following:
                # a state on disk never lacks lines of its own step in the log
                hooks: list[Hook] = [*following, save]
                if self.world.is_first:
                    hooks.append(show)
                is_done = train(
                    self.state,
                    self.task,
                    self.batches,
                    self.config,
                    hooks=hooks,
                    should_stop=stop,
                )
            # what is kept is written while signals are still held: a launcher sends more than one
            whole = self._leave_model() if is_done else None
            if whole is None:
                self.state.save(self.folder, keep=self.config.keep_states)
            is_stopped = self.world.any(stop())
        if is_stopped or whole is None:
            left = "saved" if whole is None else "the model is saved, not measured"
            raise Interrupted(
                f"stopped after step {self.state.step} of {self.last_step}, {left}; go on with "
                f"`eyesmith resume {self.folder}`"
            )
        rows = self._measured(whole.to(self.task.device))
        return self.world.once(lambda: self._end(rows, began))

    def _leave_model(self) -> nn.Module:
        """Save the trained model: whole in every process, on the CPU."""
        self.state.finish_saving()
        self.state.take_average()
        whole = merged(self.state.whole_model().eval().cpu())
        self.world.once(lambda: self.task.save(self.folder, whole, config=self.description()))
        return whole

    def _end(self, rows: list[ResultRow], began: float) -> RunSummary:
        """Write what was measured, then forget what only the unfinished run needed."""
        rows = [*rows, *(row for row in _rows(self.folder) if row.model.endswith(BEFORE))]
        (self.folder / RESULTS_FILE).unlink(missing_ok=True)
        append_rows(self.folder / RESULTS_FILE, rows)
        append_line(
            self.folder,
            {
                "event": "end",
                "step": self.state.step,
                "time_s": round(self.state.elapsed_s, 2),
                "wall_s": round(time.monotonic() - began, 2),
                "skipped": len(self.rows.problems) + len(self.rows.skipped),
            },
        )
        (self.folder / FROZEN_FILE).unlink(missing_ok=True)
        return RunSummary(folder=self.folder, train_s=self.state.elapsed_s, rows=rows)

    def _measured(self, model: nn.Module) -> list[ResultRow]:
        """By all processes together; an error in one is told by all."""
        try:
            with agreed(self.world, (Exception,)):
                return list(self.task.measured(model, self.context))
        except Exception as error:
            what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            if self.world.is_first:
                append_line(self.folder, {"event": "unmeasured", "step": self.state.step, "error": what})
            raise MeasuringError(
                f"{self.folder}: the model is trained and saved, only measuring it failed ({what}). Measure again by "
                f"`eyesmith resume {self.folder}`, or on anything else by `eyesmith eval {self.folder} TASK --data DIR`"
            ) from error

    @contextmanager
    def _hooks(self) -> Iterator[list[Hook]]:
        """Hooks that log, diagnose and measure; a step that is not finite is kept to be run again."""
        try:
            with run_hooks(
                self.task,
                self.context,
                self.state,
                steps=self.last_step,
                steps_per_epoch=self.rows.steps_per_epoch,
                description=self.description(),
                evaluators=self.evaluators,
            ) as hooks:
                yield hooks
        except NonFiniteError as error:
            raise error.with_replay(save_replay(self.folder, self.state, self.config, error)) from None


def summary(folder: Path) -> RunSummary:
    """Of a run that was finished before."""
    times = [line["time_s"] for line in read_lines(folder) if isinstance(line.get("time_s"), int | float)]
    return RunSummary(folder=folder, train_s=times[-1] if times else 0.0, rows=_rows(folder), was_finished=True)


def _rows(folder: Path) -> list[ResultRow]:
    path = folder / RESULTS_FILE
    return read_rows(path) if path.is_file() else []


def save_replay(folder: Path, state: TrainState, config: RunConfig, error: NonFiniteError) -> Path:
    """Keep the step of `error` in `folder`/replay/step-N; returns the replay file. Every process must call it."""
    target = folder / REPLAY_FOLDER / f"step-{error.step}"
    state.save(target)
    state.finish_saving()
    replay = Replay(
        eyesmith_version=__version__,
        step=error.step,
        world_size=state.world.size,
        precision=choose_precision(config.precision, next(state.model.parameters()).device),
        loss=str(error.loss),
        grad_norm=str(error.grad_norm),
        keys=error.keys,
        train=run_to_dict(config),
    )
    if state.world.is_first:
        replay.write(target)
    state.world.wait()
    return target
