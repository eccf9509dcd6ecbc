"""The random numbers that a step's forward passes use: a function of seed, step, layer and row of the global batch.

Each is hashed from its place, on the device and for the rows that are computed there, so that it is the same whoever
computes the row, in which part, and after which resume; nobody draws for the rows of others.
"""

from typing import Self

import torch
from torch import Tensor, nn

from eyesmith.models.drop_path import DropPath

VERSION = 2  # of how dropped paths are drawn, kept in states; 1 drew them for the whole batch on the CPU
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number; products of int64 wrap as those of SplitMix64 do
_MIXERS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_BITS = 24  # of a fraction, all that fp32 holds


def hashed(values: Tensor) -> Tensor:
    """int64, each mixed into 64 bits of which none tells another. Source: SplitMix64 (Steele et al. 2014)."""
    for shift, factor in _MIXERS:
        values = (values ^ _shifted(values, shift)) * factor
    return values ^ _shifted(values, 31)


def fractions(seed: int, num_layers: int, rows: Tensor) -> Tensor:
    """[num_layers, b] fp32 in [0, 1), on the device of rows: int64 [b], places in the global batch.

    The number of a layer and a row is hash(hash(seed + (layer + 1) * c) + (row + 1) * c) / 2^64, cut to 24 bits.
    """
    layers = hashed((torch.arange(num_layers, device=rows.device) + 1) * _GOLDEN + seed)
    return _shifted(hashed(layers[:, None] + (rows + 1) * _GOLDEN), 64 - _BITS).float() * 2.0**-_BITS


def _shifted(values: Tensor, places: int) -> Tensor:
    """Shifted right as a number without sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)


class StepDraws:
    """What one step draws inside the model. Rows of the global batch have their own, whoever computes them and when.

    Stochastic depth is drawn here, in the order of the modules. Whatever else a model draws (dropout, say) comes
    from torch's global generator, seeded by the first row of a part: equal in each pass over the same rows,
    but not between runs that cut the batch in other ways. A context, at whose end the model draws for itself again.
    """

    def __init__(self, model: nn.Module, *, seed: int, device: torch.device) -> None:
        """seed: of this step, `order.step_seed`; torch's global generator is seeded."""
        self._seed, self._device = seed, device
        self._paths = [
            module for module in model.modules() if isinstance(module, DropPath) and module.prob > 0 and module.training
        ]
        self._kept = torch.tensor([1 - path.prob for path in self._paths])[:, None].to(device, non_blocking=True)
        torch.manual_seed(seed)

    def give(self, rows: Tensor) -> None:
        """From now on the model's batch is these rows of the global one: int64 [b] on the CPU, at least one.

        They hold until the next call, so that blocks which are computed again in the backward pass find theirs.
        """
        torch.manual_seed(self._seed + 1 + rows[:1].tolist()[0])
        if self._paths:
            places = rows.to(self._device, non_blocking=True)
            factors = (fractions(self._seed, len(self._paths), places) < self._kept) / self._kept  # [layers, b]
            for path, own in zip(self._paths, factors, strict=True):
                path.factors = own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            path.factors = None
