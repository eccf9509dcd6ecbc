"""Gradient descent with Nesterov's momentum."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Callable, Iterable
from typing import Any

import torch

from eyesmith.optim.held import factor, parts_here, zero_if


class Sgd(torch.optim.Optimizer):
    """torch's SGD with nesterov=True, without dampening, whose step `found_inf` can hold, see `held`.

    g += weight_decay * p; m = momentum * m + g; p -= lr * (g + momentum * m).
    Source: Sutskever et al. 2013, as torch.optim.SGD has it; equal to it bit for bit on a CPU.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        held = getattr(self, "found_inf", None)
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not trained:
                continue
            for parameter in trained:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(
                        parameter, memory_format=torch.preserve_format
                    )
            weights = parts_here(trained)
            momenta = parts_here(self.state[parameter]["momentum_buffer"] for parameter in trained)
            grads = parts_here(parameter.grad for parameter in trained)
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, weights, alpha=group["weight_decay"])
            zero_if(held, grads)
            torch._foreach_mul_(momenta, factor(held, group["momentum"], momenta[0]))
            torch._foreach_add_(momenta, grads)
            steps = torch._foreach_add(grads, momenta, alpha=group["momentum"])
            zero_if(held, steps)
            torch._foreach_add_(weights, steps, alpha=-group["lr"])
        return loss
