"""Lion: steps of one length in every coordinate, in the direction of a momentum."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Callable, Iterable
from typing import Any

import torch

from eyesmith.optim.held import chosen, factor, parts_here, zero_if


class Lion(torch.optim.Optimizer):
    """Symbolic discovery's optimiser: first the decay, then a step of `lr` by the sign of a mean of gradients.

    p -= lr * weight_decay * p; p -= lr * sign(b1 * m + (1 - b1) * g); m = b2 * m + (1 - b2) * g. Its steps are longer
    than AdamW's, so rates are three to ten times lower, and decays higher by as much. `found_inf` as in `held`.
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
        held = getattr(self, "found_inf", None)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not trained:
                continue
            for parameter in trained:
                if not self.state[parameter]:
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            weights = parts_here(trained)
            means = parts_here(self.state[parameter]["exp_avg"] for parameter in trained)
            grads = parts_here(parameter.grad for parameter in trained)
            zero_if(held, grads)
            torch._foreach_mul_(weights, factor(held, 1 - group["lr"] * group["weight_decay"], weights[0]))
            steps = torch._foreach_lerp(means, grads, 1 - beta1)
            torch._foreach_sign_(steps)
            torch._foreach_mul_(steps, group["lr"])
            zero_if(held, steps)
            torch._foreach_sub_(weights, steps)
            if held is not None:
                grads = chosen(held, grads, means)  # a mean moved towards itself stays
            torch._foreach_lerp_(means, grads, 1 - beta2)
        return loss
