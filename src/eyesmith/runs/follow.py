"""What follows a run while it trains: its log, health, trackers and checks. Its maths does not depend on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from eyesmith.models.clip import ClipConfig
from eyesmith.runs.checks import Evaluator
from eyesmith.runs.kind import Kind
from eyesmith.runs.trackers import Trackers
from eyesmith.train.config import RunConfig
from eyesmith.train.health import Health, RunShape, as_line
from eyesmith.train.log import Log, LogSteps, read_lines
from eyesmith.train.loop import Hook
from eyesmith.train.objective import Objective
from eyesmith.train.precision import choose_precision
from eyesmith.train.state import TrainState
from eyesmith.train.watch import Pace, Watch


@contextmanager
def followed(
    config: RunConfig,
    folder: Path,
    kind: Kind,
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
    world, objective = state.world, kind.objective
    watch = Watch(
        objective, state, every_steps=config.log_every_steps, last_step=steps, clip_norm=config.optim.clip_norm
    )
    with watch:
        if not world.is_first:
            checks = kind.checks(
                steps_per_epoch=steps_per_epoch, description=description, write=lambda _: None, evaluators=evaluators
            )
            yield [checks] if checks else []
            return
        health = _Health(Health(config.health, run_shape(config, objective, steps)), console, read_lines(folder))
        trackers = Trackers.open(
            config.track.trackers, folder, project=config.track.project, config=description, note=console.print
        )
        try:
            log = Log(folder, [health, trackers])
            precision = choose_precision(config.precision, objective.device)
            pace = Pace(state, world_size=world.size, precision=precision)
            checks = kind.checks(
                steps_per_epoch=steps_per_epoch, description=description, write=log.write, evaluators=evaluators
            )
            yield [LogSteps(log, watch, pace), *([checks] if checks else [])]
        finally:
            trackers.close()


def run_shape(config: RunConfig, objective: Objective, steps: int) -> RunShape:
    """What health's rules know of a run of so many steps."""
    model = objective.model
    towers = {name: getattr(model, name) for name in ("image", "text") if hasattr(model, name)}
    clip = config.model if isinstance(config.model, ClipConfig) else None
    return RunShape(
        steps=steps,
        warmup_steps=config.optim.warmup_steps or round(config.optim.warmup_frac * steps),
        batch_size=config.batch_size,
        embed_dim=config.encoder.embed_dim,
        init_scale=clip.init_scale if clip else 0.0,
        log_every_steps=config.log_every_steps,
        trained={
            name: sum(value.numel() for value in tower.parameters() if value.requires_grad)
            for name, tower in towers.items()
        },
        locked=("text",) if clip and clip.lock_text else (),
        device=objective.device.type,
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
