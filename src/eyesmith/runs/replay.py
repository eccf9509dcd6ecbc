"""A step that was not finite: kept with the state before it, and run again to see where it went wrong."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.runs.work import open_work
from eyesmith.tasks.registry import KEY, UnregisteredTaskError, run_from_dict
from eyesmith.train.config import ParallelConfig
from eyesmith.train.loop import train
from eyesmith.train.replay import NonFiniteError, Replay, Trace, read_replay, traced

_NAMED_KEYS = 8  # samples in a sentence


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What running a step again showed. loss, grad_norm: of this time; sentences: the explanation, in order.

    samples: keys of rows whose features were not finite; largest: of each module's output the largest finite magnitude.
    """

    step: int
    is_reproduced: bool
    loss: float | None
    grad_norm: float | None
    trace: Trace
    samples: tuple[str, ...]
    sentences: tuple[str, ...]


def replay(path: str | os.PathLike[str], *, console: Console | None = None) -> Replayed:
    """Run the step of a replay file (or its folder) again in one process, and explain it.

    Nothing is compiled or recomputed, so that every module is seen; values are those of the run but for rounding.
    Raises CheckpointError for a file that is no replay, DataError when the run's data are not where they were.
    """
    folder, kept = read_replay(Path(path))
    try:
        config = run_from_dict(kept.train, at=folder.parent.parent)
    except UnregisteredTaskError:
        raise
    except ConfigError as wrong:
        raise CheckpointError(f"{folder}: of eyesmith {kept.eyesmith_version}, not readable here ({wrong})") from None
    parallel = ParallelConfig(tf32=config.parallel.tf32, cudnn_benchmark=config.parallel.cudnn_benchmark)
    config = replace(config, precision=kept.precision, parallel=parallel)  # pyright: ignore[reportArgumentType]
    work = open_work(config, folder, console or Console(stderr=True, quiet=True))
    work.state.load(folder)
    if work.state.step + 1 != kept.step:
        raise CheckpointError(f"{folder}: is about step {kept.step}, its state stands before {work.state.step + 1}")
    error: NonFiniteError | None = None
    objective = work.task
    with traced(objective.model, fixed=objective.fixed(), rows=objective.row_outputs()) as trace:
        try:
            train(
                work.state,
                work.task,
                work.batches,
                config,
                should_stop=lambda: work.state.step >= kept.step,
            )
        except NonFiniteError as again:
            error = again
    keys = error.keys if error else work.batches.batch(kept.step - 1).keys
    rows = sorted({row for found in trace.broken_rows.values() for row in found if row < len(keys)})
    samples = tuple(keys[row] for row in rows)
    return Replayed(
        step=kept.step,
        is_reproduced=error is not None,
        loss=error.loss if error else None,
        grad_norm=error.grad_norm if error else None,
        trace=trace,
        samples=samples,
        sentences=tuple(_explain(kept, error, trace, samples, keys, fixed=[*objective.fixed()])),
    )


def _explain(
    kept: Replay,
    error: NonFiniteError | None,
    trace: Trace,
    samples: tuple[str, ...],
    keys: tuple[str, ...],
    *,
    fixed: Sequence[str],
) -> list[str]:
    run = f"loss {kept.loss}, gradient norm {kept.grad_norm}"
    if error is None:
        said = [f"step {kept.step} is finite this time (in the run: {run})"]
    else:
        said = [f"step {kept.step} again: loss {error.loss}, gradient norm {error.grad_norm} (in the run: {run})"]
    if kept.world_size == 1 and tuple(keys) != kept.keys:
        said.append("the samples are others than in the run: the data have changed since")
    if error is None:
        said.append(
            "so it lies neither in these weights nor in these samples: try it on the machine of the run; "
            "look at its memory and at kernels that are not deterministic"
        )
        return said
    if trace.weights:
        said.append(
            f"{trace.weights} was not finite before the step already: an earlier update broke it; go on from an older "
            "state with a lower optim.peak_lr"
        )
    elif trace.forward:
        said += _explain_forward(trace, samples, len(keys), fixed)
    elif trace.backward:
        said.append(f"all features are finite; the first gradient that is not is that of {trace.backward}")
        said.append("set optim.clip_norm=1 and a lower optim.peak_lr; in half precision try fp32 for this step")
    else:
        at = "targets" if KEY in kept.train else "loss's temperature"
        said.append(f"every feature and every gradient is finite, and the loss is not: look at the {at}")
    top = sorted(trace.largest.items(), key=lambda pair: -pair[1])[:3]
    said.append("the largest outputs: " + ", ".join(f"{name} {value:.3g}" for name, value in top))
    return said


def _explain_forward(trace: Trace, samples: tuple[str, ...], batch: int, fixed: Sequence[str]) -> list[str]:
    assert trace.forward is not None
    if trace.forward_input is None:
        said = [f"the first output that is not finite is that of {trace.forward}, whose input is not finite either"]
    else:
        said = [
            f"the first output that is not finite is that of {trace.forward}; what went in is finite, up to "
            f"{trace.forward_input:.3g}"
        ]
    is_all = len(samples) == batch or not samples
    if is_all and trace.forward.partition(".")[0] in fixed:
        said.append(
            "all samples are hit, so it lies in target.teacher, which does not train: it is damaged, or needs "
            "precision=fp32"
        )
    elif is_all:
        said.append("all samples are hit, so it lies in the weights: lower optim.peak_lr, or set optim.clip_norm=1")
    else:
        more = f" and {len(samples) - _NAMED_KEYS} more" if len(samples) > _NAMED_KEYS else ""
        said.append(
            f"{len(samples)} of {batch} samples are hit, look at them: {', '.join(samples[:_NAMED_KEYS])}{more}"
        )
    return said
