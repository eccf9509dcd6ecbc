"""What follows a run while it trains: its log, health, trackers and checks. Its maths does not depend on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from eyesmith.models.clip import Clip
from eyesmith.runs.checks import Checks, Evaluator
from eyesmith.runs.trackers import Trackers
from eyesmith.train.config import TrainConfig
from eyesmith.train.health import Health, RunShape, as_line
from eyesmith.train.log import Log, LogSteps, read_lines
from eyesmith.train.loop import Hook
from eyesmith.train.precision import choose_precision
from eyesmith.train.processes import World
from eyesmith.train.state import TrainState
from eyesmith.train.watch import Pace, Watch


@contextmanager
def followed(
    config: TrainConfig,
    folder: Path,
    clip: Clip,
    state: TrainState,
    *,
    steps: int,
    steps_per_epoch: int,
    description: dict[str, Any],
    console: Console,
    evaluators: Sequence[Evaluator] = (),
) -> Iterator[list[Hook]]:
    """Hooks for `train`, in the order they must run; put the one that saves the state behind them.

    So a state on disk never lacks lines of its own step in the log. Every process of a run enters this; the first one
    writes. steps: of the whole run. description: for config.json of the best weights.
    """
    world = state.world
    watch = Watch(clip, state, every_steps=config.log_every_steps, last_step=steps, clip_norm=config.optim.clip_norm)
    with watch:
        if not world.is_first:
            checks = _checks(config, folder, steps_per_epoch, description, lambda _: None, evaluators, world)
            yield [lambda state, facts: watch.forget(), *([checks] if checks else [])]
            return
        health = _Health(Health(config.health, run_shape(config, clip, steps)), console, read_lines(folder))
        trackers = Trackers.open(
            config.track.trackers, folder, project=config.track.project, config=description, note=console.print
        )
        try:
            log = Log(folder, [health, trackers])
            precision = choose_precision(config.precision, clip.logit_scale.device)
            pace = Pace(state, world_size=world.size, precision=precision)
            checks = _checks(config, folder, steps_per_epoch, description, log.write, evaluators, world)
            yield [LogSteps(log, watch, pace, config.log_every_steps), *([checks] if checks else [])]
        finally:
            trackers.close()


def run_shape(config: TrainConfig, clip: Clip, steps: int) -> RunShape:
    """What health's rules know of a run of so many steps."""
    trained = {
        name: sum(value.numel() for value in getattr(clip, name).parameters() if value.requires_grad)
        for name in ("image", "text")
    }
    return RunShape(
        steps=steps,
        warmup_steps=config.optim.warmup_steps or round(config.optim.warmup_frac * steps),
        batch_size=config.batch_size,
        embed_dim=clip.image.embed_dim,
        init_scale=config.model.init_scale,
        log_every_steps=config.log_every_steps,
        trained=trained,
        locked=("text",) if config.model.lock_text else (),
        device=clip.logit_scale.device.type,
    )


def _checks(
    config: TrainConfig,
    folder: Path,
    steps_per_epoch: int,
    description: dict[str, Any],
    write: Any,
    evaluators: Sequence[Evaluator],
    world: World,
) -> Checks:
    return Checks(
        config,
        folder,
        steps_per_epoch=steps_per_epoch,
        description=description,
        write=write,
        evaluators=evaluators,
        world=world,
    )


class _Health:
    """Health as a listener of the log, that also tells a person. It has read what a resumed run wrote before."""

    def __init__(self, health: Health, console: Console, lines: Sequence[dict[str, Any]]) -> None:
        self._health, self._console = health, console
        for line in lines:
            health.observe(line)

    def __call__(self, line: dict[str, Any]) -> list[dict[str, Any]]:
        found = self._health.observe(line)
        for finding in found:
            self._console.print(
                f"health, step {finding.step:,}: {finding.message}; {finding.hint}", style="yellow", markup=False
            )
        return [as_line(finding) for finding in found]
