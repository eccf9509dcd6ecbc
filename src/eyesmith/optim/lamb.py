"""LAMB: Adam's step, scaled for each tensor by the tensor's own length."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

RATIO_BOUNDS = (0.01, 10.0)


class Lamb(torch.optim.Optimizer):
    """The clamped variant that EVA-02-CLIP was trained with (DeepSpeed's fused kernel), for any parameter groups.

    With moments m and v, u = m / (sqrt(v) + eps) + weight_decay * p, without bias correction; the ratio |p| / |u|,
    clamped to [0.01, 10] and 1 where either length is 0; p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * ratio * u. The ratio
    applies to every tensor, undecayed ones included. Lengths are of whole tensors, also where processes hold parts of
    them (the release, under ZeRO, took them of each process's flat share).
    Source: LAMB (arXiv 1904.00962), with the clamp of DeepSpeed.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        update = mean / (square.sqrt() + group["eps"])
        if group["weight_decay"]:
            update = update + group["weight_decay"] * parameter
        length, wanted = _length(parameter), _length(update)
        ratio = torch.where((length > 0) & (wanted > 0), (length / wanted).clamp(*RATIO_BOUNDS), 1.0)
        count = state["step"].double()  # 1 - 0.999^t in fp32 has four digits at the first step
        correction = (1 - beta2**count).sqrt() / (1 - beta1**count)
        parameter.sub_(update * (group["lr"] * correction * ratio).to(update.dtype))


def _length(value: Tensor) -> Tensor:
    """L2 norm [] of a tensor, of all its parts where processes hold them."""
    norm = torch.linalg.vector_norm(value)
    return cast(Any, norm).full_tensor() if hasattr(norm, "full_tensor") else norm
