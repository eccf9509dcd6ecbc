"""LAMB: Adam's step, scaled for each tensor by the tensor's own length."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.optim.held import chosen, factor, parts_here, shard_groups, zero_if

RATIO_BOUNDS = (0.01, 10.0)


class Lamb(torch.optim.Optimizer):
    """The clamped variant that EVA-02-CLIP was trained with (DeepSpeed's fused kernel), for any parameter groups.

    With moments m and v, u = m / (sqrt(v) + eps) + weight_decay * p, without bias correction; the ratio |p| / |u|,
    clamped to [0.01, 10] and 1 where either length is 0; p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * ratio * u. The ratio
    applies to every tensor, undecayed ones included. Lengths are of whole tensors, also where processes hold parts of
    them (the release, under ZeRO, took them of each process's flat share). `found_inf` as in `held`.
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
        held = getattr(self, "found_inf", None)
        for group in self.param_groups:
            if trained := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._update(trained, group, held)
        return loss

    def _update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        beta1, beta2 = group["betas"]
        for parameter in trained:
            if not (state := self.state[parameter]):
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        states = [self.state[parameter] for parameter in trained]
        weights, grads = parts_here(trained), parts_here(grad for one in trained if (grad := one.grad) is not None)
        means, squares = (parts_here(state[name] for state in states) for name in ("exp_avg", "exp_avg_sq"))
        counts = [state["step"] for state in states]
        torch._foreach_add_(counts, [torch.ones_like(counts[0]) if held is None else 1 - held] * len(counts))
        zero_if(held, grads)
        torch._foreach_mul_(squares, factor(held, beta2, squares[0]))
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        if held is not None:
            grads = chosen(held, grads, means)  # a mean moved towards itself stays
        torch._foreach_lerp_(means, grads, 1 - beta1)
        updates = torch._foreach_sqrt(squares)
        torch._foreach_add_(updates, group["eps"])
        updates = list(torch._foreach_div(means, updates))
        if group["weight_decay"]:
            torch._foreach_add_(updates, torch._foreach_mul(weights, group["weight_decay"]))
        lengths, wanted = _lengths(trained, weights, updates)
        ratios = torch.where((lengths > 0) & (wanted > 0), (lengths / wanted).clamp(*RATIO_BOUNDS), 1.0)
        count = torch.stack(counts).double()  # 1 - 0.999^t in fp32 has four digits at the first step
        factors = group["lr"] * ((1 - beta2**count).sqrt() / (1 - beta1**count)) * ratios
        torch._foreach_mul_(updates, list(factors.to(updates[0].dtype).unbind()))
        zero_if(held, updates)
        torch._foreach_sub_(weights, updates)


def _lengths(tensors: list[Tensor], weights: list[Tensor], updates: list[Tensor]) -> tuple[Tensor, Tensor]:
    """L2 norms [n] of whole weights and updates, given what this process holds of them."""
    norms = torch.stack([torch.stack(torch._foreach_norm(parts)) for parts in (weights, updates)])  # [2, n]
    spread = [i for i, one in enumerate(tensors) if hasattr(one, "to_local")]
    if spread:
        sums = torch.stack([norms[:, i] for i in spread]).square()
        for group in shard_groups(tensors[spread[0]]):
            dist.all_reduce(sums, group=group)
        columns = list(norms.unbind(1))
        for i, whole in zip(spread, sums.sqrt(), strict=True):
            columns[i] = whole
        norms = torch.stack(columns, dim=1)
    return norms[0], norms[1]
