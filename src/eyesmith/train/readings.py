"""What a step found, while it is still on the device, and the gate that shuts when it is not finite.

The host runs ahead of a GPU; asking for one number of a step makes it wait until that step is done. So nothing is asked
between two logged steps, and in one of them everything at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eyesmith.train.precision import LossScale
from eyesmith.train.replay import NonFiniteError

PART = "_loss"  # how the name of a part of the loss ends


class Readings:
    """Values of one step by name. Reading the first of them fetches all in one copy, and waits for the device."""

    def __init__(self, values: Mapping[str, Tensor | None]) -> None:
        """values: tensors of any shape, small ones; None is left out."""
        self._values = {name: value for name, value in values.items() if value is not None}
        self._fetched: dict[str, Tensor] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> Tensor:
        """fp64, on the CPU."""
        if self._fetched is None:
            flat = torch.cat([value.detach().double().flatten() for value in self._values.values()]).cpu()
            parts = flat.split([value.numel() for value in self._values.values()])
            shapes = [value.shape for value in self._values.values()]
            self._fetched = {
                name: part.view(shape) for name, part, shape in zip(self._values, parts, shapes, strict=True)
            }
        return self._fetched[name]

    def parts(self) -> dict[str, float]:
        """The parts of a loss that is a sum, by NAME_loss."""
        return {name: self.number(name) for name in self._values if name.endswith(PART)}

    def number(self, name: str) -> float:
        """A value []."""
        return float(self[name].numpy())


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one step did. `step` counts from 1; wait_s is the time that fetching the batch took.

    readings: loss, grad_norm, scale and what was measured, on the device until one is read: do that in a hook where
    `is_logged`, as others need not wait for it. chance_loss: the loss of guessing, 0 where there is no such level.
    """

    step: int
    is_last: bool
    is_logged: bool
    epoch: float
    samples: int
    batch_size: int
    lr: float
    wait_s: float
    readings: Readings
    chance_loss: float = 0.0

    @property
    def loss(self) -> float:
        """Of the global batch."""
        return self.readings.number("loss")

    @property
    def grad_norm(self) -> float:
        """L2 norm of all gradients, before clipping."""
        return self.readings.number("grad_norm")

    @property
    def scale(self) -> float | None:
        """1/temperature; None where there is none."""
        return self.readings.number("scale") if "scale" in self.readings else None


class Counted(Protocol):
    """What goes back to the step before, see `state.TrainState`."""

    step: int
    elapsed_s: float


@dataclass(frozen=True)
class _Unconfirmed:
    """A step of which nobody has asked yet whether it was finite, and its samples."""

    facts: StepFacts
    keys: tuple[str, ...]
    elapsed_s: float  # before the step


class Gate:
    """Shuts on the device at the first step whose loss or gradient is not finite, and stays shut.

    `held`: [] fp32, 0 or 1; updates that it holds leave everything as it was before that step: all since the gate is
    shut, and in fp16 single steps whose gradient overflowed. The host learns that it is shut in `confirm`, some steps
    later. Equal in every process, as losses and norms are.
    """

    def __init__(self, device: torch.device, scaling: LossScale | None = None) -> None:
        self.held = torch.zeros((), device=device)
        self._shut = self.held if scaling is None else torch.zeros((), device=device)
        self._scaling = scaling
        self._unconfirmed: list[_Unconfirmed] = []

    def look(self, loss: Tensor, grad_norm: Tensor) -> dict[str, Tensor]:
        """Shut where one of two values [] is not finite; returns what `confirm` and the log want to know of the step.

        In fp16 the scale of the loss follows.
        """
        is_fine = torch.isfinite(grad_norm)
        is_left_out = None if self._scaling is None else self._scaling.is_excused(is_fine)
        is_broken = ~(torch.isfinite(loss.detach()) & (is_fine if is_left_out is None else is_fine | is_left_out))
        torch.maximum(self._shut, is_broken.to(self._shut.dtype), out=self._shut)
        found = {"shut": self._shut, "is_broken": is_broken}
        if self._scaling is not None and is_left_out is not None:
            torch.maximum(self._shut, is_left_out.to(self._shut.dtype), out=self.held)
            found["loss_scale"] = self._scaling.value.clone()
            self._scaling.follow(is_left_out, self._shut)
        return found

    def note(self, facts: StepFacts, keys: Sequence[str], elapsed_s: float) -> None:
        """Remember a step until it is confirmed; its readings hold `shut`. elapsed_s: of the run, before it."""
        self._unconfirmed.append(_Unconfirmed(facts, tuple(keys), elapsed_s))

    def confirm(self, state: Counted) -> None:
        """Ask, waiting for the device, whether all steps since the last call were finite.

        Else `state` is counted back to the step before the first that was not, whose weights it has still, and
        NonFiniteError names that step and its samples. Every process must call it at the same step.
        """
        steps, self._unconfirmed = self._unconfirmed, []
        if not steps or not steps[-1].facts.readings.number("shut"):
            return
        for one in steps:
            facts, keys = one.facts, one.keys
            if facts.readings.number("is_broken"):
                state.step, state.elapsed_s = facts.step - 1, one.elapsed_s
                raise NonFiniteError(
                    f"step {facts.step}: loss {facts.loss}, gradient norm {facts.grad_norm}, learning rate "
                    f"{facts.lr:.2g}; stopped before the update. Samples: {', '.join(keys[:8])} ... Lower "
                    "optim.peak_lr, or set optim.clip_norm=1, and resume from the last saved state",
                    step=facts.step,
                    keys=keys,
                    loss=facts.loss,
                    grad_norm=facts.grad_norm,
                )
        raise AssertionError("the gate is shut, and every step since it was last asked is finite")
