"""A step that went wrong, so that it can be run again and looked into: its file, and what to look at while it runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, TrainingError
from eyesmith.files import load_json, write_json

REPLAY_FILE = "replay.json"


class NonFiniteError(TrainingError):
    """The loss or a gradient of a step is not finite; the weights are still those before the step.

    step: counted from 1; keys: its samples in this process. `loss` and `grad_norm` may be inf or nan.
    """

    def __init__(self, message: str, *, step: int, keys: Sequence[str], loss: float, grad_norm: float) -> None:
        super().__init__(message)
        self.step, self.keys, self.loss, self.grad_norm = step, tuple(keys), loss, grad_norm

    def with_replay(self, folder: Path) -> "NonFiniteError":
        """The same error, that also says how to look into the step."""
        message = f"{self}. `eyesmith replay {folder}` runs this step again and shows where it began"
        return NonFiniteError(message, step=self.step, keys=self.keys, loss=self.loss, grad_norm=self.grad_norm)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A step to run again. The state before it lies in the folder of this file, as a run keeps its own.

    step: counted from 1. keys: samples of the first process. loss, grad_norm: in words, as JSON has no nan.
    """

    eyesmith_version: str
    step: int
    world_size: int
    precision: str
    loss: str
    grad_norm: str
    keys: tuple[str, ...]
    train: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write `folder`/replay.json, whole or not at all; returns its path."""
        write_json(folder / REPLAY_FILE, asdict(self))
        return folder / REPLAY_FILE


def read_replay(path: Path) -> tuple[Path, Replay]:
    """The folder of a replay and its content; path: the file, or its folder. Raises CheckpointError for another."""
    file = path / REPLAY_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"{path}: no replay; a run writes RUN/replay/step-N/{REPLAY_FILE} when a step is not finite"
        )
    try:
        content = load_json(file.read_text(encoding="utf-8"))
        return file.parent, Replay(**{**content, "keys": tuple(content["keys"])})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{file}: not a replay file ({error})") from None


@dataclass
class Trace:
    """What was seen while a step ran.

    forward, backward: the first value that was not finite, None where all were; largest: of each module's output the
    largest finite magnitude, by name in order of first use; broken_rows: by module whose outputs hold a sample a row,
    the rows that were not finite.
    """

    weights: str | None = None
    """The first weight that was not finite before the step."""
    forward: str | None = None
    forward_input: float | None = None
    """The largest magnitude that went into that module, None when its input was not finite either."""
    backward: str | None = None
    largest: dict[str, float] = field(default_factory=dict)
    broken_rows: dict[str, list[int]] = field(default_factory=dict)


@contextmanager
def traced(
    model: nn.Module, *, fixed: Mapping[str, nn.Module] | None = None, rows: Sequence[nn.Module] | None = None
) -> Iterator[Trace]:
    """Inside, every forward and backward pass of `model` is looked at; its values stay what they are.

    Modules are named as in `model.named_modules()`; of nested ones the innermost is seen first. fixed: models beside it
    by name, such as a teacher, whose forward passes are looked at too. rows: modules whose outputs hold a sample a row,
    in the order of the batch; the image and the text tower where None.
    """
    trace = Trace()
    trace.weights = next((name for name, value in model.named_parameters() if not _is_finite(value)), None)
    others = dict(fixed or {})
    modules = [(name, module) for name, module in model.named_modules() if name]
    modules += [(f"{one}.{name}", module) for one, other in others.items() for name, module in other.named_modules()]
    given_rows = [getattr(model, name, None) for name in ("image", "text")] if rows is None else rows
    seen = {name: 0 for name, module in modules if any(module is one for one in given_rows)}
    handles = []

    def look(name: str) -> Any:
        def see(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            for value in _tensors(result):
                trace.largest[name] = max(trace.largest.get(name, 0.0), _largest(value))
                if not _is_finite(value):
                    if trace.forward is None:
                        trace.forward = name
                        inputs = _tensors(given)
                        whole = all(_is_finite(one) for one in inputs)
                        trace.forward_input = max((_largest(one) for one in inputs), default=0.0) if whole else None
                    if name in seen and value.ndim >= 2:
                        bad = (~torch.isfinite(value).flatten(1).all(dim=1)).nonzero().flatten() + seen[name]
                        trace.broken_rows.setdefault(name, []).extend(bad.tolist())
                if name in seen and value.ndim >= 2:
                    seen[name] += len(value)
                if value.requires_grad:
                    value.register_hook(lambda grad: _see_gradient(trace, f"the output of {name}", grad))

        return see

    for name, module in modules:
        handles.append(module.register_forward_hook(look(name)))
    for name, value in model.named_parameters():
        if value.requires_grad:
            handles.append(value.register_hook(lambda grad, name=name: _see_gradient(trace, name, grad)))
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


def _see_gradient(trace: Trace, name: str, grad: Tensor) -> None:
    if trace.backward is None and not _is_finite(grad):
        trace.backward = name


def _tensors(value: Any) -> list[Tensor]:
    """The floating-point tensors in a module's arguments or result."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _largest(value: Tensor) -> float:
    """The largest finite magnitude; 0 where there is none."""
    finite = torch.where(torch.isfinite(value), value, 0).detach()
    return finite.abs().max().item() if finite.numel() else 0.0
