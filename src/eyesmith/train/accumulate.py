"""One backward pass of a batch, whole or in parts: the loss and the gradient are those of the whole batch either way.

In parts (cached gradients): a first pass without gradient gives the features of all rows; the loss on them gives its
gradient by feature; a second pass over each part, with the same random draws, carries that gradient into the weights.
Alive at a time are the features of all rows and the activations of one part. With the kernels of the second pass in the
first one too, the gradient is bit for bit that of keeping the graphs of all parts. Without gradient some kernels are
faster and round otherwise, and a batch that goes through the towers in one piece is summed in another order: the last
digits differ.
Source: GradCache (arXiv 2101.06983); open_clip's --accum-freq computes the same with the loss once for each part.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eyesmith.data.loader import Batch
from eyesmith.errors import DataError
from eyesmith.train.config import RunConfig
from eyesmith.train.objective import Wrapped


class Features(NamedTuple):
    """image, text: unit features [b, D] of some rows; scale []; bias [] or None."""

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None


def cut(batch: Batch, config: RunConfig) -> list[Batch]:
    """The parts of a batch, `config.accumulate`, or fewer where broken samples have left it too few rows.

    Raises DataError for fewer under FSDP, whose processes would wait for each other's passes for ever.
    """
    parts = batch.parts(config.accumulate)
    if len(parts) < config.accumulate and config.parallel.strategy == "fsdp":
        raise DataError(
            f"accumulate: this process has {len(batch)} samples of a step that can be read, and needs one for each of "
            f"{config.accumulate} parts; lower accumulate, or take out what `eyesmith data check` finds, and resume"
        )
    return parts


def backward(
    model: Wrapped,
    parts: Sequence[Callable[[], Features]],
    loss_of: Callable[[Features], Tensor],
    *,
    same_kernels: bool = False,
) -> tuple[Tensor, Features]:
    """Add the gradient of loss_of(features of all parts' rows, joined in order) to the weights.

    parts: each computes the features of some rows, with the same draws at each call. Returns the loss [] and all
    features, both without gradient. In one part this is a plain forward and backward pass. same_kernels: the first pass
    computes as the second does, to the bit, and slower; not under FSDP.
    """
    if len(parts) == 1:
        with model.sync(True):
            found = parts[0]()
            loss = loss_of(found)
            model.backward(loss)
        return loss.detach(), _detached(found)
    with torch.set_grad_enabled(same_kernels), model.sync(False):
        cached = [_detached(part()) for part in parts]
    joined = Features(
        torch.cat([part.image for part in cached]),
        torch.cat([part.text for part in cached]),
        cached[0].scale,
        cached[0].bias,
    )
    sizes = [len(part.image) for part in cached]
    del cached
    leaves = Features(*(None if value is None else value.detach().requires_grad_() for value in joined))  # pyright: ignore
    loss = loss_of(leaves)
    model.backward(loss)
    image_grads, text_grads = (_grad(leaf).split(sizes) for leaf in (leaves.image, leaves.text))
    # from the last to the first, as autograd would add up the parts' gradients, had it kept the graphs of all of them
    for i, part in reversed(list(enumerate(parts))):
        is_last = i == 0
        with model.sync(is_last), model.repeated():
            found = part()
            pairs = [(found.image, image_grads[i]), (found.text, text_grads[i])]
            # the scale's gradient is complete already; it goes with the last part, where processes meet
            pairs.append((found.scale, _grad(leaves.scale) if is_last else torch.zeros_like(found.scale)))
            if found.bias is not None and leaves.bias is not None:
                pairs.append((found.bias, _grad(leaves.bias) if is_last else torch.zeros_like(found.bias)))
            pairs = [(value, grad) for value, grad in pairs if value.requires_grad]
            torch.autograd.backward([value for value, _ in pairs], [grad for _, grad in pairs])
    return loss.detach(), _detached(leaves)


def add_up(model: Wrapped, parts: Sequence[Callable[[], Tensor]]) -> Tensor:
    """Add the gradient of the parts' sum to the weights, one part after the other; returns the sum [].

    parts: losses [] that need no other part's features, each already divided by what the whole batch is divided by.
    Between processes gradients are averaged: a share of the global loss must be multiplied by their number before.
    """
    total = torch.zeros(())
    for i, part in enumerate(parts):
        with model.sync(i == len(parts) - 1):
            loss = part()
            model.backward(loss)
        total = loss.detach() if i == 0 else total + loss.detach()
    return total


def _grad(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _detached(features: Features) -> Features:
    bias = None if features.bias is None else features.bias.detach()
    return Features(features.image.detach(), features.text.detach(), features.scale.detach(), bias)
