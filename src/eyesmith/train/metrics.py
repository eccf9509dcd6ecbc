"""What is measured inside a logged step: features, gradients by tower, use of the machine. Nothing it does is felt."""

from typing import Any, Literal, Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from eyesmith.train.distributed import World
from eyesmith.train.objective import Objective
from eyesmith.train.precision import Precision
from eyesmith.train.readings import StepFacts
from eyesmith.train.sharding import total_norm
from eyesmith.train.state import TrainState
from eyesmith.train.utilisation import device_flops

TOWERS = ("image", "text")

MAX_RANK_ROWS = 1024  # features whose effective rank is taken: more cost more and say little more


class Metrics:
    """Inside the context, measures every `every_steps`-th step of a run and its last one.

    It hangs on the towers' outputs and on the optimiser, draws no random number and changes no value, so a run with it
    computes bit for bit what one without it computes. Use it on every process of a run: gradients in parts are summed
    over all of them.
    """

    def __init__(
        self,
        objective: Objective,
        state: TrainState,
        *,
        every_steps: int,
        last_step: int,
        clip_norm: float,
        clip_by: Literal["all", "part"] = "all",
    ) -> None:
        """clip_norm, clip_by: of the run, whose gradients are looked at after they were clipped; those that were
        clipped by parts the loop has measured before.
        """
        self._objective, self._state = objective, state
        self._every_steps, self._last_step = every_steps, last_step
        self._clip_norm, self._is_by_part = clip_norm, clip_by == "part"
        self._features: dict[str, list[Tensor]] = {name: [] for name in TOWERS}
        self._text_len: int | None = None
        self._seen_step = -1
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, tower in self._objective.watched().items():
            self._handles.append(tower.register_forward_hook(self._see_features(name)))
        self._handles.append(self._state.optimizer.register_step_pre_hook(self._see_gradients))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def is_due(self) -> bool:
        """Whether the step that runs now is measured."""
        step = self._state.step + 1
        return self._objective.model.training and (step % self._every_steps == 0 or step == self._last_step)

    def of(self, facts: StepFacts) -> dict[str, float | None]:
        """What was measured in a logged step, by its name in the log and in its order there.

        None where a tower ran not at all, or has no gradient; nan where a feature is not finite. norm: mean length of
        features before they are brought to length 1; rank: `rank_of` the unit features of all processes; grad_norm: L2
        norm of a tower's gradients, before clipping.
        """
        readings = facts.readings
        is_shrunk = self._clip_norm and not self._is_by_part
        shrunk = max(1.0, facts.grad_norm / self._clip_norm) if is_shrunk else 1.0

        def number(name: str, factor: float = 1.0) -> float | None:
            return readings.number(name) * factor if name in readings else None

        ranks = {f"{tower}_rank": f"{tower}_gram" for tower in TOWERS}
        return {
            **{name: number(name, shrunk) for name in ("image_grad_norm", "text_grad_norm")},
            **{name: number(name) for name in ("image_norm", "text_norm")},
            **{name: rank_of(readings[gram]) if gram in readings else None for name, gram in ranks.items()},
        }

    def flops(self) -> float | None:
        """Of the model for one sample with texts as long as the last that were measured; None if not known."""
        return self._objective.flops(self._text_len)

    def _see_features(self, name: str) -> Any:
        def see(_: nn.Module, given: tuple[Any, ...], features: Tensor) -> None:
            if self.is_due():
                if self._seen_step != self._state.step:  # a step that was given up left its own
                    self._seen_step = self._state.step
                    for parts in self._features.values():
                        parts.clear()
                self._features[name].append(features.detach())
                if name == "text" and isinstance(given[0], Tensor):
                    self._text_len = given[0].shape[1]

        return see

    def _see_gradients(self, *_: Any) -> None:
        if not self.is_due():
            return
        found = self._state.readings
        for name, parts in self._features.items():
            if parts:
                features = torch.cat(parts).float()  # [B, D]
                parts.clear()
                if self._state.world.size > 1:
                    features = _of_all(features, self._state.world)
                found[f"{name}_norm"] = features.norm(dim=-1).mean()
                found[f"{name}_gram"] = gram(features)
        for name in () if self._is_by_part else TOWERS:
            tower = getattr(self._objective.model, name, None)
            grads = [] if tower is None else [value.grad for value in tower.parameters() if value.grad is not None]
            if grads:
                found[f"{name}_grad_norm"] = total_norm(grads)


def _of_all(own: Tensor, world: World) -> Tensor:
    """[n, D]: features of all processes, of each as many of its [b, D] as the rank takes."""
    # a process that left out broken samples has fewer; told between the hosts, so that no device is waited for
    fewest = world.fewest(min(len(own), max(1, MAX_RANK_ROWS // world.size)))
    some = own[:fewest].contiguous()
    parts = [torch.empty_like(some) for _ in range(world.size)]
    dist.all_gather(parts, some)
    return torch.cat(parts)


@torch.no_grad()
def gram(features: Tensor) -> Tensor:
    """Products [n, n] fp64, n = min(B, D), of features [B, D] of any length: at length 1, less their mean.

    Of rows with rows, or of columns with columns, whichever are fewer: both have the same eigenvalues but for zeros.
    """
    rows = torch.nn.functional.normalize(features[:MAX_RANK_ROWS].double(), dim=-1)
    rows = rows - rows.mean(dim=0)
    return rows @ rows.mT if len(rows) < rows.shape[1] else rows.mT @ rows


def rank_of(products: Tensor) -> float:
    """Over how many directions features spread, by their `gram` on the CPU: between 0 and min(B - 1, D).

    exp of the entropy of the singular values, normalised to sum 1, of rows brought to length 1 less their mean. 0 for
    equal rows, nan where a feature is not finite. Source: Roy and Vetterli 2007, The effective rank.
    """
    matrix = products.numpy()
    if not np.isfinite(matrix).all():
        return float("nan")
    squares = np.linalg.eigvalsh(matrix).clip(0)  # of the singular values
    if squares.sum() < 1e-12 * len(matrix):  # equal rows but for rounding
        return 0.0
    values = np.sqrt(np.where(squares < 1e-14 * squares.max(), 0, squares))  # below lies rounding
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


class Throughput:
    """Rates since the last logged step, over the time spent in steps: saving and checks in between do not count."""

    def __init__(self, state: TrainState, *, world_size: int, precision: Precision) -> None:
        self._device = next(state.model.parameters()).device
        self._world_size = world_size
        self._precision: Precision = precision
        self._began_s = state.elapsed_s
        self._samples, self._wait_s = 0, 0.0
        self._peak: float | None = None

    def add(self, samples: int, wait_s: float) -> None:
        """Count one step: its samples of all processes, and seconds that this one waited for its batch."""
        self._samples += samples
        self._wait_s += wait_s

    def take(self, elapsed_s: float, flops: float | None) -> dict[str, float | None]:
        """images_per_s, wait_frac, mfu since the last call; flops: of the model for one sample, None if not known."""
        passed = max(elapsed_s - self._began_s, 1e-9)
        rate = self._samples / passed
        mfu = None
        if flops is not None:
            if self._peak is None:
                self._peak, _ = device_flops(self._device, self._precision)
            mfu = rate * flops / (self._peak * self._world_size)
        result = {
            "images_per_s": round(rate, 1),
            "wait_frac": round(self._wait_s / passed, 4),
            "mfu": None if mfu is None else float(f"{mfu:.4g}"),
        }
        self._began_s, self._samples, self._wait_s = elapsed_s, 0, 0.0
        return result
