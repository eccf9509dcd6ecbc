"""An average of the weights over past steps (exponential moving average), which a run may end with."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from eyesmith.optim.held import chosen, parts_here


def decay_at(step: int, decay: float, *, has_warmup: bool) -> float:
    """Decay after step `step`, counted from 0; with a warm-up faster at first, so that the start is forgotten."""
    return min(decay, (step + 1) / (step + 10)) if has_warmup else decay


@torch.no_grad()
def move(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float, held: Tensor | None) -> None:
    """average = decay * average + (1 - decay) * weights, in place, by name; where `held` is 1 nothing changes."""
    old, new = parts_here(average.values()), parts_here(weights[name] for name in average)
    if held is not None:
        new = chosen(held, new, old)  # an average moved towards itself stays
    torch._foreach_lerp_(old, new, 1 - decay)


@torch.no_grad()
def take(average: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Give the weights the averaged values."""
    for name, value in average.items():
        weights[name].copy_(value)


@contextmanager
def taken(average: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the weights have the averaged values."""
    present = {name: weights[name].detach().clone() for name in average}
    take(average, weights)
    try:
        yield
    finally:
        take(present, weights)
