"""Batch norms whose statistics are those of the whole batch, however many processes share it.

As torch.nn.SyncBatchNorm, but on any device, and in place of modules that stay what they are: one process's weights,
names and results. Means and deviations from them are joined by Chan's rule, so nothing cancels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eyesmith.errors import ConfigError


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Every batch norm of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def share_statistics(model: nn.Module) -> None:
    """Let every batch norm in training take its statistics of all processes' rows; those then call it together.

    Changes the modules in place. Running statistics are equal in every process. Raises ConfigError for a batch norm of
    a kind of its own, which cannot be told to share.
    """
    for name, module in batch_norms(model).items():
        has_activation = any(kind.__name__ == "BatchNormAct2d" for kind in type(module).__mro__)  # timm's
        if type(module).forward is not _BatchNorm.forward and not has_activation:
            raise ConfigError(
                f"{name}: {type(module).__name__} is a batch norm of its own kind, whose statistics several processes "
                "cannot share; train in one process, or freeze it"
            )
        module.forward = partial(_forward, module, has_activation)  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def counted_before(model: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training leave their running statistics as they are: the rows have been counted before.

    By a momentum of 0: what a norm keeps for its gradient must stay the same when a pass is made again.
    """
    norms = [one for one in batch_norms(model).values() if one.training and one.num_batches_tracked is not None]
    before = [(norm, norm.momentum, cast(Tensor, norm.num_batches_tracked).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(count)


def _forward(module: Any, has_activation: bool, x: Tensor) -> Tensor:
    if not module.training:
        return type(module).forward(module, x)
    weight = torch.ones(x.shape[1], device=x.device) if module.weight is None else module.weight
    bias = torch.zeros(x.shape[1], device=x.device) if module.bias is None else module.bias
    y, mean, variance, count = _Normalised.apply(x, weight, bias, module.eps)
    if module.running_mean is not None:
        with torch.no_grad():
            module.num_batches_tracked.add_(1)
            # momentum None is the mean of all batches so far
            share = 1 / module.num_batches_tracked if module.momentum is None else module.momentum
            for running, new in ((module.running_mean, mean), (module.running_var, variance * count / (count - 1))):
                running.copy_((1 - share) * running + share * new)
    return module.act(module.drop(y)) if has_activation else y


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias over all axes but the second, of all processes' rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        own_mean = values.mean(axes)  # [C]
        own_squares = (values - _over(own_mean, x)).square().sum(axes)  # [C]
        own_count = own_mean.new_full((1,), x.numel() // x.shape[1])
        own = torch.cat([own_mean, own_squares, own_count])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        means, squares, counts = torch.stack(parts).split([len(own_mean), len(own_mean), 1], dim=1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        inverse = torch.rsqrt(variance + eps)
        normal = (values - _over(mean, x)) * _over(inverse, x)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = normal * _over(weight.to(normal.dtype), x) + _over(bias.to(normal.dtype), x)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        axes = [axis for axis in range(x.ndim) if axis != 1]
        grad = grads[0].to(mean.dtype)
        normal = (x.to(mean.dtype) - _over(mean, x)) * _over(inverse, x)
        bias_grad, weight_grad = grad.sum(axes), (grad * normal).sum(axes)  # of own rows; those of all meet later
        sums = torch.cat([bias_grad, weight_grad])
        dist.all_reduce(sums)
        of_mean, of_deviation = (sums / count).chunk(2)
        inner = grad - _over(of_mean, x) - normal * _over(of_deviation, x)
        x_grad = inner * _over(inverse * weight.to(mean.dtype), x)
        return x_grad.to(x.dtype), weight_grad.to(weight.dtype), bias_grad.to(weight.dtype), None


def _over(channels: Tensor, x: Tensor) -> Tensor:
    """[C] against [B, C, ...]."""
    return channels.view(1, -1, *(1,) * (x.ndim - 2))
