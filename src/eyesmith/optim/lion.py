"""Lion: steps of one length in every coordinate, in the direction of a momentum."""

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """Symbolic discovery's optimiser: first the decay, then a step of `lr` by the sign of a mean of gradients.

    p -= lr * weight_decay * p; p -= lr * sign(b1 * m + (1 - b1) * g); m = b2 * m + (1 - b2) * g. Its steps are longer
    than AdamW's, so rates are three to ten times lower, and decays higher by as much.
    Source: Chen et al. (arXiv 2302.06675), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                mean = state["exp_avg"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(group["lr"] * torch.sign(mean.lerp(parameter.grad, 1 - beta1)))
                mean.lerp_(parameter.grad, 1 - beta2)
        return loss
