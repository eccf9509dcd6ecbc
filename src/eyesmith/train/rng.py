"""The random numbers that a step's forward passes use: a function of seed and step, drawn for the global batch."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from eyesmith.models.drop_path import DropPath


def step_seed(seed: int, step: int) -> int:
    """A seed for torch's generators, different for every run seed and step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


class StepDraws:
    """What one step draws inside the model. Rows of the global batch have their own, whoever computes them and when.

    Stochastic depth is drawn here for all rows, on the CPU in the order of the modules. Whatever else a model draws
    (dropout of a model of one's own) comes from torch's global generator, seeded by the first row of a part: equal in
    each pass over the same rows, but not between runs that cut the batch in other ways. A context, at whose end the
    model draws for itself again.
    """

    def __init__(self, model: nn.Module, num_rows: int, *, seed: int, device: torch.device) -> None:
        """num_rows: of the global batch. seed: of this step, see `step_seed`; torch's global generator is seeded."""
        self._seed = seed
        self._paths = [
            module for module in model.modules() if isinstance(module, DropPath) and module.prob > 0 and module.training
        ]
        torch.manual_seed(seed)
        drawn = [path.draw(num_rows) for path in self._paths]
        self._factors = torch.stack(drawn).to(device) if drawn else torch.empty(0, num_rows)  # [modules, B]

    def give(self, rows: Tensor) -> None:
        """From now on the model's batch is these rows of the global one: int64 [b], at least one.

        They hold until the next call, so that blocks which are computed again in the backward pass find theirs.
        """
        factors = self._factors[:, rows.to(self._factors.device)]  # [modules, b]
        torch.manual_seed(self._seed + 1 + rows[:1].tolist()[0])
        for path, own in zip(self._paths, factors, strict=True):
            path.factors = own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            path.factors = None
