"""A training run as a folder: started, gone on with, finished. Its folder is a model."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eyesmith.runs.folder import (
    CONFIG_FILE,
    check_empty,
    check_same_run,
    is_finished,
    is_measured,
    one_writer,
    read_run_config,
)
from eyesmith.runs.origin import Origin, check_config
from eyesmith.runs.work import RunSummary, Work, summary
from eyesmith.tasks import Evaluator
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World, joined


def start(
    config: RunConfig,
    folder: str | os.PathLike[str],
    *,
    console: Console | None = None,
    evaluators: Sequence[Evaluator] = (),
) -> RunSummary:
    """Train `config` into `folder`, leave a folder that `eyesmith.load` opens, and measure it.

    evaluators: measure the weights while training, beside what config.eval says, and as often.
    Under torchrun every process calls this; the first one alone writes. Raises ConfigError when the folder holds
    anything or another process writes to it, DataError for unusable data, Interrupted on Ctrl-C, MeasuringError where
    the model is saved and could not be measured.
    """
    with joined() as world:
        return _start(config, Path(folder), console or Console(stderr=True, quiet=True), world, evaluators)


def _start(
    config: RunConfig, root: Path, console: Console, world: World, evaluators: Sequence[Evaluator] = ()
) -> RunSummary:
    world.once(lambda: check_empty(root))  # before anything of ours is in it
    with one_writer(root, world):
        world.once(lambda: check_empty(root))
        config = config.with_lanes(world.num_machines())
        work = Work(config, root, console, world, evaluators, is_new=True)
        work.begin({"event": "start", "steps": work.last_step, **work.facts()})
        work.measure_before()
        return work.finish()


def resume(
    folder: str | os.PathLike[str],
    *,
    console: Console | None = None,
    evaluators: Sequence[Evaluator] = (),
    allow_other_data: bool = False,
) -> RunSummary:
    """Go on with an unfinished run exactly where its saved state stands; a finished one is returned as it is.

    One whose model was saved and could not be measured is measured. Any number of processes may go on with it.
    allow_other_data: also where the data are not those that the run began with; the log says so. Raises CheckpointError
    when the folder holds no run, or frozen weights or a teacher have changed, DataError for other data, ConfigError
    for a config that was edited in what the weights depend on.
    """
    with joined() as world:
        shown = console or Console(stderr=True, quiet=True)
        return _resume(Path(folder), shown, world, evaluators, allow_other_data=allow_other_data)


def _resume(
    root: Path, console: Console, world: World, evaluators: Sequence[Evaluator] = (), *, allow_other_data: bool = False
) -> RunSummary:
    if not world.once(lambda: (read_run_config(root), is_finished(root) and is_measured(root))[1]):
        with one_writer(root, world):
            return _go_on(root, console, world, evaluators, allow_other_data=allow_other_data)
    world.once(lambda: _check_unedited(root, allow_other_data=allow_other_data))
    if world.is_first:
        console.print(f"{root}: this run is finished, nothing is trained", markup=False, soft_wrap=True)
    return summary(root)


def _go_on(
    root: Path, console: Console, world: World, evaluators: Sequence[Evaluator], *, allow_other_data: bool
) -> RunSummary:
    config, origin = world.once(lambda: (read_run_config(root), Origin.read(root)))
    edited = world.once(lambda: _check_unedited(root, allow_other_data=allow_other_data))
    work = Work(config, root, console, world, evaluators, origin=origin, allow_other_data=allow_other_data)
    if world.once(work.has_saved_state):
        work.state.load(root, note=lambda text: work.console.print(text, markup=False))
    step = work.state.step
    other = [*edited, *work.other_data]
    if other:
        work.console.print(f"{root}: goes on with other data: {'; '.join(other)}", markup=False, soft_wrap=True)
        work.remember_data()
    line = {"event": "resume", "step": step, **({"other_data": other} if other else {}), **work.facts()}
    work.begin(line, after_step=step)
    return work.finish()


def start_or_resume(config: RunConfig, folder: str | os.PathLike[str], *, console: Console | None = None) -> RunSummary:
    """`start`, or `resume` when the folder holds a run of the same config. Raises ConfigError for another run's."""
    root = Path(folder)
    shown = console or Console(stderr=True, quiet=True)
    with joined() as world:
        if not world.once(lambda: _is_begun(config, root)):
            return _start(config, root, shown, world)
        if world.is_first and not is_finished(root):
            shown.print(f"{root}: holds this very run, unfinished; going on with it", markup=False, soft_wrap=True)
        return _resume(root, shown, world)


def _is_begun(config: RunConfig, root: Path) -> bool:
    if not (root / CONFIG_FILE).is_file():
        return False
    check_same_run(config, root)
    return True


def _check_unedited(root: Path, *, allow_other_data: bool) -> list[str]:
    origin = Origin.read(root)
    if origin is None:
        return []
    return check_config(origin, read_run_config(root), root, allow_other_data=allow_other_data)
