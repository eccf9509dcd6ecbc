"""Optimisers by name, all on the same groups of parameters."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from eyesmith.optim.lamb import Lamb
from eyesmith.optim.lion import Lion
from eyesmith.optim.sgd import Sgd

OptimizerName = Literal["adamw", "lamb", "sgd", "lion"]


def make_optimizer(
    name: OptimizerName, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    """An optimiser over `parameter_groups`, each with its own weight_decay; `lr` is overwritten before every step.

    An attribute `found_inf` holds the steps of each back, see `held`.

    sgd: with Nesterov's momentum, which is the first of `betas`; its decay is added to the gradient. lion: see `Lion`;
    neither has an `eps`.
    """
    if name == "sgd":
        return Sgd(groups, lr=lr, momentum=betas[0])
    if name == "lion":
        return Lion(groups, lr=lr, betas=betas)
    if name == "lamb":
        return Lamb(groups, lr=lr, betas=betas, eps=eps)
    return torch.optim.AdamW(list(groups), lr=lr, betas=betas, eps=eps, fused=True)


def fresh_moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimiser keeps of a parameter before its first step, by name, to read a saved state into."""
    if isinstance(optimizer, Sgd | Lion):
        name = "exp_avg" if isinstance(optimizer, Lion) else "momentum_buffer"
        return {name: torch.zeros_like(parameter, memory_format=torch.preserve_format)}
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
    }
