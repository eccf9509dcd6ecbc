"""What goes with a run while it trains: its log, diagnostics, trackers, measuring. The maths depends on none of it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from rich.console import Console

from eyesmith.eval import current_name
from eyesmith.models.clip import ClipConfig
from eyesmith.models.lora import merged
from eyesmith.tasks import Evaluator, RunContext, Task
from eyesmith.train.callbacks.evaluation import Evaluation
from eyesmith.train.callbacks.logging import Log, LogSteps, read_lines
from eyesmith.train.callbacks.trackers import Trackers
from eyesmith.train.diagnostics import Health, as_line
from eyesmith.train.loop import Hook
from eyesmith.train.metrics import Metrics, Throughput
from eyesmith.train.precision import choose_precision
from eyesmith.train.state import TrainState
from eyesmith.train.symptoms import RunShape


@contextmanager
def run_hooks(
    task: Task,
    context: RunContext,
    state: TrainState,
    *,
    steps: int,
    steps_per_epoch: int,
    description: dict[str, Any],
    evaluators: Sequence[Evaluator] = (),
) -> Iterator[list[Hook]]:
    """Hooks for `train`, in the order they must run.

    Every process of a run enters this; the first one writes. steps: of the whole run. description: for config.json of
    the best weights.
    """
    config, folder, is_first = task.config, context.folder, context.world.is_first
    every = config.log_every_steps
    with ExitStack() as stack:
        metrics = Metrics(
            task,
            state,
            every_steps=every,
            last_step=steps,
            clip_norm=config.optim.clip_norm,
            clip_by=config.optim.clip_by,
        )
        stack.enter_context(metrics)
        listeners: list[Any] = []
        if is_first:
            health = Health(config.health, run_shape(task, steps))
            listeners.append(_Diagnosed(health, context.console, read_lines(folder)))
            if config.track.trackers:
                trackers = Trackers.open(
                    config.track.trackers,
                    folder,
                    project=config.track.project,
                    config=description,
                    note=context.console.print,
                )
                listeners.append(stack.enter_context(closing(trackers)))
        log = Log(folder, listeners)
        hooks: list[Hook] = []
        if is_first:
            precision = choose_precision(config.precision, task.device)
            throughput = Throughput(state, world_size=context.world.size, precision=precision)
            hooks = [LogSteps(log, metrics, throughput)]
        if (measure := task.curve(context, evaluators)) is not None:
            hooks.append(
                Evaluation(
                    measure,
                    config.eval,
                    folder,
                    steps_per_epoch=steps_per_epoch,
                    save=lambda new, model: task.save(new, merged(model), config=description),
                    write=log.write if is_first else lambda line: None,
                    current_name=current_name,
                )
            )
        yield hooks


def run_shape(task: Task, steps: int) -> RunShape:
    """What the rules of diagnostics know of a run of so many steps."""
    config, model = task.config, task.model
    towers = {name: getattr(model, name) for name in ("image", "text") if hasattr(model, name)}
    clip = config.model if isinstance(config.model, ClipConfig) else None
    return RunShape(
        steps=steps,
        warmup_steps=config.optim.num_warmup(steps),
        batch_size=config.batch_size,
        init_scale=clip.init_scale if clip else 0.0,
        log_every_steps=config.log_every_steps,
        trained={
            name: sum(value.numel() for value in tower.parameters() if value.requires_grad)
            for name, tower in towers.items()
        },
        locked=("text",) if clip and clip.lock_text else (),
        device=task.device.type,
    )


class _Diagnosed:
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
