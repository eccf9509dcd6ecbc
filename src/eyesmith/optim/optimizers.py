"""Optimisers by name, whose steps a flag can hold back, all on the same groups of parameters."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.optim.config import OptimConfig
from eyesmith.optim.held import chosen, factor, parts_here, shard_groups, zero_if

RATIO_BOUNDS = (0.01, 10.0)
_MATRIX_SIDE = 16  # what is shorter is no matrix to Muon
_ADAM = ("exp_avg", "exp_avg_sq")


def make_optimizer(config: OptimConfig, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """An optimiser over `parameter_groups`, each with its own weight_decay; the rate is overwritten before every step.

    An attribute `found_inf` holds the steps of each back, see `held`.
    """
    kind = {"sgd": Sgd, "lion": Lion, "lamb": Lamb, "muon": Muon}.get(config.name)
    if kind is not None:
        return kind(groups, lr=config.peak_lr, betas=config.betas, eps=config.eps)
    return torch.optim.AdamW(list(groups), lr=config.peak_lr, betas=config.betas, eps=config.eps, fused=True)


def fresh_moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimiser keeps of a parameter before its first step, by name, to read a saved state into."""
    names, is_counted = (optimizer.MOMENTS, optimizer.IS_COUNTED) if isinstance(optimizer, Held) else (_ADAM, True)
    count = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)} if is_counted else {}
    return count | {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names}


class Held(torch.optim.Optimizer):
    """An optimiser that updates all tensors of a group at once, and none where its `found_inf` is 1, see `held`."""

    MOMENTS: ClassVar[tuple[str, ...]]
    """What is kept of each parameter, of its shape; IS_COUNTED: and its steps, [] fp32."""
    IS_COUNTED: ClassVar[bool] = False

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
                for parameter in trained:
                    if not self.state[parameter]:
                        self.state[parameter] = fresh_moments(self, parameter)
                self.update(trained, group, held)
        return loss

    def parts(self, trained: Sequence[Tensor]) -> list[list[Tensor]]:
        """What this process holds of weights, gradients and each of MOMENTS."""
        moments = [[self.state[parameter][name] for parameter in trained] for name in self.MOMENTS]
        grads = [parameter.grad for parameter in trained if parameter.grad is not None]
        return [parts_here(tensors) for tensors in (trained, grads, *moments)]

    @abstractmethod
    def update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        """One update of parameters of `group` that have a gradient."""


class Lamb(Held):
    """The clamped variant that EVA-02-CLIP was trained with (DeepSpeed's fused kernel), for any parameter groups.

    With moments m and v, u = m / (sqrt(v) + eps) + weight_decay * p, without bias correction; the ratio |p| / |u|,
    clamped to [0.01, 10] and 1 where either length is 0; p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * ratio * u. The ratio
    applies to every tensor, undecayed ones included. Lengths are of whole tensors, also where processes hold parts of
    them (the release, under ZeRO, took them of each process's flat share).
    Source: LAMB (arXiv 1904.00962), with the clamp of DeepSpeed.
    """

    MOMENTS, IS_COUNTED = _ADAM, True

    def update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        """As `Held`."""
        beta1, beta2 = group["betas"]
        weights, grads, means, squares = self.parts(trained)
        counts = [self.state[parameter]["step"] for parameter in trained]
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


class Lion(Held):
    """Symbolic discovery's optimiser: first the decay, then a step of `lr` by the sign of a mean of gradients.

    p -= lr * weight_decay * p; p -= lr * sign(b1 * m + (1 - b1) * g); m = b2 * m + (1 - b2) * g. Its steps are longer
    than AdamW's, so rates are three to ten times lower, and decays higher by as much.
    Source: Chen et al. (arXiv 2302.06675), algorithm 2.
    """

    MOMENTS = ("exp_avg",)

    def update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        """As `Held`."""
        beta1, beta2 = group["betas"]
        weights, grads, means = self.parts(trained)
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


class Sgd(Held):
    """torch's SGD with nesterov=True, without dampening; its momentum is the first of `betas`.

    g += weight_decay * p; m = momentum * m + g; p -= lr * (g + momentum * m).
    Source: Sutskever et al. 2013, as torch.optim.SGD has it; equal to it bit for bit on a CPU.
    """

    MOMENTS = ("momentum_buffer",)

    def update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        """As `Held`."""
        momentum, _ = group["betas"]
        weights, grads, momenta = self.parts(trained)
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
        zero_if(held, grads)
        torch._foreach_mul_(momenta, factor(held, momentum, momenta[0]))
        torch._foreach_add_(momenta, grads)
        steps = torch._foreach_add(grads, momenta, alpha=momentum)
        zero_if(held, steps)
        torch._foreach_add_(weights, steps, alpha=-group["lr"])


class Muon(Held):
    """Matrices by the nearest orthogonal matrix to a mean of gradients, everything else as AdamW.

    With m = b1 * m + (1 - b1) * g and u = b1 * m + (1 - b1) * g:
    p -= lr * (weight_decay * p + 0.2 * sqrt(longer side) * orthogonal(u)), a step as long as AdamW's at the same rate.
    A kernel is a matrix of its outputs; what has a side under 16 (biases, norms, tables, depthwise kernels) is none.
    Needs whole matrices, so no FSDP.
    Source: Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), scaled as by Liu et al. (arXiv 2502.16982).
    """

    MOMENTS, IS_COUNTED = _ADAM, True

    def update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        """As `Held`. Raises ConfigError where this process holds parts of matrices."""
        if any(hasattr(one, "to_local") for one in trained):
            raise ConfigError("optim.name: muon needs whole matrices, and fsdp spreads them; take adamw, or ddp")
        beta1, beta2 = group["betas"]
        weights, grads, means, squares = self.parts(trained)
        counts = [self.state[parameter]["step"] for parameter in trained]
        torch._foreach_add_(counts, [torch.ones_like(counts[0]) if held is None else 1 - held] * len(counts))
        zero_if(held, grads)
        torch._foreach_mul_(squares, factor(held, beta2, squares[0]))
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        moved = grads if held is None else chosen(held, grads, means)  # a mean moved towards itself stays
        torch._foreach_lerp_(means, moved, 1 - beta1)
        steps = list(torch._foreach_lerp(grads, means, beta1))  # replaced below where it is no matrix's
        count = torch.stack(counts).double()
        corrections = ((1 - beta2**count).sqrt() / (1 - beta1**count)).to(weights[0].dtype).unbind()
        alike: dict[tuple[int, int], list[int]] = {}
        for i, one in enumerate(weights):
            sides = (one.shape[0], one[0].numel()) if one.ndim > 1 else (1, 1)
            if min(sides) >= _MATRIX_SIDE:
                alike.setdefault(sides, []).append(i)
            else:
                steps[i] = means[i] * corrections[i] / (squares[i].sqrt() + group["eps"])
        for sides, places in alike.items():  # as one product
            found = orthogonal(torch.stack([steps[i].reshape(sides) for i in places]))
            for i, one in zip(places, found.unbind(), strict=True):
                steps[i] = one.view_as(weights[i]) * (0.2 * max(sides) ** 0.5)
        if group["weight_decay"]:
            steps = list(torch._foreach_add(steps, weights, alpha=group["weight_decay"]))
        torch._foreach_mul_(steps, group["lr"])
        zero_if(held, steps)
        torch._foreach_sub_(weights, steps)


def orthogonal(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Roughly the orthogonal matrices nearest to these, [n, r, c]: singular values become 0.7 to 1.2, vectors stay.

    By a polynomial of fifth degree, `steps` times, in bf16 where that is faster; a zero matrix stays zero. Returns the
    type given. Source: Muon, as above.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if multiplies_bf16(x.device):
        x = x.to(torch.bfloat16)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 faster than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # without these instructions a CPU emulates bf16, slower than fp32
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
