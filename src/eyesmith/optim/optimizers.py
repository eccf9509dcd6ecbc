"""Optimisers by name, whose steps a flag can hold back, all on the same groups of parameters."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from eyesmith.optim.config import OptimConfig
from eyesmith.optim.held import chosen, factor, parts_here, shard_groups, zero_if

RATIO_BOUNDS = (0.01, 10.0)
_ADAM = ("exp_avg", "exp_avg_sq")


def make_optimizer(
    config: OptimConfig, groups: Sequence[dict[str, Any]], *, products: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """An optimiser over `parameter_groups`, each with its own weight_decay; the rate is overwritten before every step.

    products: what Muon multiplies its matrices in. An attribute `found_inf` holds the steps of each back, see `held`.
    """
    rates: dict[str, Any] = {"lr": config.peak_lr, "betas": config.betas, "eps": config.eps}
    if config.name == "adamw":
        return torch.optim.AdamW(list(groups), fused=True, **rates)
    if config.name == "muon":
        return Muon(groups, momentum=config.muon_momentum, products=products, **rates)
    return {"sgd": Sgd, "lion": Lion, "lamb": Lamb}[config.name](groups, **rates)


def fresh_moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimiser keeps of a parameter before its first step, by name, to read a saved state into."""
    names, is_counted = optimizer.kept_of(parameter) if isinstance(optimizer, Held) else (_ADAM, True)
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

    def kept_of(self, parameter: Tensor) -> tuple[tuple[str, ...], bool]:
        """Names of what is kept of a parameter, and whether its steps are counted: by default MOMENTS, IS_COUNTED."""
        del parameter
        return self.MOMENTS, self.IS_COUNTED

    def parts(self, trained: Sequence[Tensor]) -> list[list[Tensor]]:
        """What this process holds of weights, gradients and each of what is kept of them."""
        names, _ = self.kept_of(trained[0])
        moments = [[self.state[parameter][name] for parameter in trained] for name in names]
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
    """Orthogonal steps for matrices (the groups with `is_matrix`), AdamW's for the rest, at one rate and decay.

    For a matrix [o, i], which a kernel is too, its outputs by all the rest:
    m = momentum * m + (1 - momentum) * g; u = (1 - momentum) * g + momentum * m;
    p -= lr * weight_decay * p; p -= lr * 0.2 * sqrt(max(o, i)) * orthogonal(u), whose elements are as large as those of
    AdamW's steps. A packed matrix of queries, keys and values is one. Where processes hold parts of a matrix, each
    makes the step of the whole and takes its own part.
    Source: Jordan et al. 2024 (momentum and iteration), Moonlight (arXiv 2502.16982; size and decay).
    """

    def __init__(
        self, params: Iterable[Any], *, momentum: float = 0.95, products: torch.dtype = torch.float32, **settings: Any
    ) -> None:
        super().__init__(params, **settings)
        self._momentum, self._products = momentum, products
        self._matrices = {id(one) for group in self.param_groups if group.get("is_matrix") for one in group["params"]}

    def kept_of(self, parameter: Tensor) -> tuple[tuple[str, ...], bool]:
        """As `Held`."""
        return (("momentum_buffer",), False) if id(parameter) in self._matrices else (_ADAM, True)

    def update(self, trained: list[Tensor], group: dict[str, Any], held: Tensor | None) -> None:
        """As `Held`."""
        if not group.get("is_matrix"):
            weights, grads, means, squares = self.parts(trained)
            counts = [self.state[parameter]["step"] for parameter in trained]
            beta1, beta2 = group["betas"]
            shape = {name: group[name] for name in ("lr", "weight_decay", "eps")}
            adamw(weights, grads, means, squares, [], counts, fused=True, found_inf=held, amsgrad=False, maximize=False,
                  beta1=beta1, beta2=beta2, **shape)  # fmt: skip
            return
        weights, grads, means = self.parts(trained)
        zero_if(held, grads)
        torch._foreach_mul_(weights, factor(held, 1 - group["lr"] * group["weight_decay"], weights[0]))
        if held is not None:
            grads = chosen(held, grads, means)  # a mean moved towards itself stays
        torch._foreach_lerp_(means, grads, 1 - self._momentum)
        wanted = torch._foreach_lerp(grads, means, self._momentum)
        wholes = [_whole(one, like) for one, like in zip(wanted, trained, strict=True)]
        steps = [_own_part(one, like) for one, like in zip(self._orthogonal(wholes), trained, strict=True)]
        sizes = [group["lr"] * 0.2 * max(parameter.shape[0], parameter[0].numel()) ** 0.5 for parameter in trained]
        torch._foreach_mul_(steps, sizes)
        zero_if(held, steps)
        torch._foreach_sub_(weights, steps)

    def _orthogonal(self, wholes: Sequence[Tensor]) -> list[Tensor]:
        """Each as `orthogonal` makes it, those of one size at once: twice as fast on two cores as one by one."""
        places: dict[torch.Size, list[int]] = {}
        matrices = [one.flatten(1) for one in wholes]
        for place, matrix in enumerate(matrices):
            places.setdefault(matrix.shape, []).append(place)
        found = list(wholes)
        for of_size in places.values():
            made = orthogonal(torch.stack([matrices[place] for place in of_size]), products=self._products)
            for place, matrix in zip(of_size, made, strict=True):
                found[place] = matrix.reshape(wholes[place].shape)
        return found


def orthogonal(matrices: Tensor, *, products: torch.dtype = torch.float32) -> Tensor:
    """The nearly orthogonal matrices of the same singular vectors, [n, o, i], in their own format.

    Five steps of X = a X + (b XX' + c (XX')^2) X from X of length 1, in `products`: singular values come between 0.7
    and 1.2. Zeros stay zeros. Source: Newton-Schulz as tuned by Jordan et al. 2024.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    found = matrices.to(products)
    is_tall = found.shape[1] > found.shape[2]
    found = found.mT.contiguous() if is_tall else found
    found = found / (torch.linalg.vector_norm(found, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = found @ found.mT
        factors = torch.baddbmm(square, square, square, beta=b, alpha=c)
        found = torch.baddbmm(found, factors, found, beta=a)
    return (found.mT if is_tall else found).to(matrices.dtype)


def _whole(part: Tensor, like: Tensor) -> Tensor:
    """The whole of a tensor of which this process holds `part`, spread as `like` is; every process must call it."""
    spread: Any = like
    if not hasattr(spread, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    shape, stride = spread.shape, spread.stride()
    return DTensor.from_local(
        part, spread.device_mesh, spread.placements, run_check=False, shape=shape, stride=stride
    ).full_tensor()


def _own_part(whole: Tensor, like: Tensor) -> Tensor:
    spread: Any = like
    if not hasattr(spread, "to_local"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, spread.device_mesh, spread.placements, src_data_rank=None).to_local()


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
