"""A run that leaves another at a kept state and lets its rate fall: one constant-rate run serves many budgets."""

import os
import re
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.runs.folder import check_empty, one_writer, read_run_config
from eyesmith.runs.origin import Origin, check_config
from eyesmith.runs.work import RunSummary, Work
from eyesmith.tasks import task_of
from eyesmith.train import checkpoint
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World, joined
from eyesmith.train.loop import total_steps

Shape = Literal["linear", "sqrt"]


def branch(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    at: int,
    steps: int,
    shape: Shape = "sqrt",
    console: Console | None = None,
) -> RunSummary:
    """Go on from the state that `run` keeps of step `at`, in a folder of its own, while the rate falls to 0.

    The first `at` steps are those of `run`, so nothing is trained twice: data, seed and every other setting stay. run:
    finished or not, and left as it is; `keep_states` says how many states it keeps. steps: of the cool-down, in which
    the rate falls linearly or as 1 - sqrt (arXiv 2405.18392). A stopped branch goes on by `resume`.
    Raises ConfigError where the rate of `run` is not constant there or its config was edited since it began,
    CheckpointError where it keeps no such state, and what `resume` raises for other data or weights.
    """
    parent, root, shown = Path(run), Path(folder), console or Console(stderr=True, quiet=True)
    with joined() as world:
        world.once(lambda: check_empty(root))
        with one_writer(root, world):
            world.once(lambda: check_empty(root))
            config, origin = world.once(lambda: _begun(parent))
            state = world.once(lambda: _state_of(parent, at))
            work = _work(config, origin, root, shown, world, at=at, steps=steps, shape=shape)
            # before the config is there, so that nobody can go on from nothing
            world.once(lambda: _copy(state, root / checkpoint.FOLDER))
            work.state.load(root)
            line = {"event": "start", "steps": work.last_step, "branch_of": str(parent), "step": at}
            work.begin({**line, **work.facts()})
            return work.finish()


def branched(config: RunConfig, steps_per_epoch: int, *, at: int, steps: int, shape: Shape) -> RunConfig:
    """The config of a branch: `config` to step `at`, then `steps` of a falling rate. Raises ConfigError as `branch`."""
    optim = config.optim
    if steps < 1:
        raise ConfigError(f"steps: expected 1 or more of cool-down, got {steps}")
    if optim.schedule in ("cosine", "steps"):
        how = "by a cosine from its beginning" if optim.schedule == "cosine" else f"in steps at {optim.step_fracs}"
        raise ConfigError(
            f"optim.schedule: the run's rate falls {how}; a branch leaves a run of optim.schedule=constant"
        )
    last = total_steps(config, steps_per_epoch)
    first, end = optim.num_warmup(last), optim.cooldown_start(last)
    if not first <= at <= end:
        raise ConfigError(f"at: the run's rate is constant from step {first} to {end}, got {at}")
    falling = replace(
        optim,
        schedule="constant_cooldown",
        warmup_frac=0.0,
        warmup_steps=first,
        cooldown_steps=steps,
        cooldown_shape="sqrt" if shape == "sqrt" else "power",
        cooldown_power=1.0,
    )
    return replace(config, optim=falling, epochs=(at + steps) / steps_per_epoch)


def _begun(run: Path) -> tuple[RunConfig, Origin | None]:
    """What a run began with. Raises ConfigError where its config was edited since in what its weights depend on."""
    config, origin = read_run_config(run), Origin.read(run)
    if origin is not None:
        check_config(origin, config, run, allow_other_data=False)
    return config, origin


def _state_of(run: Path, at: int) -> Path:
    newest_last = reversed(checkpoint.states(run))  # of two states of a step the first may be one that was damaged
    kept = {int(re.findall(r"\d+", path.name)[0]): path for path in newest_last if path.name[:5] == "step-"}
    if at not in kept:
        known = ", ".join(str(step) for step in sorted(kept)) or "none"
        raise CheckpointError(
            f"{run}: keeps no state of step {at}; there are: {known} (keep_states and save_every_steps say which)"
        )
    return kept[at]


def _work(
    trunk: RunConfig,
    origin: Origin | None,
    root: Path,
    console: Console,
    world: World,
    *,
    at: int,
    steps: int,
    shape: Shape,
) -> Work:
    """A branch of `trunk`, built and not begun."""
    with closing(task_of(trunk).open_rows(trunk, world)) as rows:
        expected = rows.steps_per_epoch
    while True:
        config = branched(trunk, expected, at=at, steps=steps, shape=shape)
        work = Work(config, root, console, world, is_new=True, origin=origin)
        found = work.rows.steps_per_epoch
        if found == expected:
            return work
        work.batches.close()  # building has left out what cannot be used, so an epoch has fewer steps
        expected = found


def _copy(state: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{state.name}.part"
    if state.is_dir():
        shutil.copytree(state, part)
    else:
        shutil.copyfile(state, part)
    part.rename(folder / state.name)
