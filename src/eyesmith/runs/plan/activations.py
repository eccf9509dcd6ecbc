"""How much a tower keeps for its backward pass, found by running it on tensors that hold no numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes kept for the backward pass, as `fixed + per_sample * samples`.

    fixed: weights cast to the products' format. per_sample: with everything kept. boundary, largest_block: per sample,
    what is kept when blocks are computed again in the backward pass, and what the largest of them then needs at a time.
    """

    fixed: int
    per_sample: int
    boundary: int
    largest_block: int

    def at(self, samples: int, *, checkpoint: bool) -> int:
        """Bytes for a number of samples."""
        return self.fixed + samples * (self.boundary + self.largest_block if checkpoint else self.per_sample)


def activations(
    tower: nn.Module, blocks: Sequence[nn.Module], sample: tuple[tuple[int, ...], torch.dtype], *, bf16: bool
) -> Activations:
    """What one forward pass of `tower` in training keeps.

    tower: on the meta device; its parameters that need no gradient count as frozen. sample: shape without the batch
    axis, and dtype, of the input. bf16: under bfloat16 autocast. A tensor kept twice counts once. As torch's eager mode
    does it; a compiled block keeps less.
    """
    batch = 2  # of one, sizes that broadcast could hide
    ledgers, fixed = _kept(tower, blocks, sample, batch, bf16=bf16)
    total, boundary, *by_block = (ledger.num_bytes() // batch for ledger in ledgers)
    return Activations(fixed=fixed, per_sample=total, boundary=boundary, largest_block=max(by_block, default=0))


@dataclass
class _Ledger:
    """Bytes by storage, so that what is kept twice counts once."""

    own: set[int]  # storages of parameters, buffers and parameters' casts
    kept: dict[int, Tensor] = field(default_factory=dict)

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()._cdata
        if storage not in self.own:
            self.kept.setdefault(storage, tensor)

    def num_bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.kept.values())


def _kept(
    tower: nn.Module,
    blocks: Sequence[nn.Module],
    sample: tuple[tuple[int, ...], torch.dtype],
    batch: int,
    *,
    bf16: bool,
) -> tuple[list[_Ledger], int]:
    """What is kept: all; at the boundaries with recomputed blocks; inside each block. And bytes of cast parameters."""
    own = {value.untyped_storage()._cdata for value in (*tower.parameters(), *tower.buffers())}
    everything, boundary = _Ledger(own), _Ledger(own)
    inside = {id(block): _Ledger(own) for block in blocks}
    current: list[int] = []

    def enter(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        current.append(id(block))
        boundary.add(arguments[0])

    def leave(*_: object) -> None:
        current.pop()

    def keep(tensor: Tensor) -> Tensor:
        everything.add(tensor)
        (inside[current[-1]] if current else boundary).add(tensor)
        return tensor

    shape, dtype = sample
    operations = _GpuOperations(bf16=bf16, own=own)
    handles = [block.register_forward_pre_hook(enter) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    was_training = tower.training
    try:
        tower.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), operations:
            tower(torch.empty(batch, *shape, dtype=dtype, device="meta"))
    finally:
        tower.train(was_training)
        for handle in handles:
            handle.remove()
    return [everything, boundary, *inside.values()], operations.cast_bytes()


class _GpuOperations(TorchFunctionMode):
    """On the meta device, what a GPU would do: fused attention, and the casts of bfloat16 autocast.

    torch's own autocast does nothing on that device, and for a GPU that is not there it switches itself off.
    """

    def __init__(self, *, bf16: bool, own: set[int]) -> None:
        """own: storages that are no activations; those of cast parameters are added."""
        super().__init__()
        self._bf16, self._own = bf16, own
        self._casts: dict[int, tuple[Tensor, Tensor]] = {}  # of parameters, once a pass as autocast does

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._bf16 and func in _IN_BF16:
            args, kwargs = _map(self._lower, args), {name: _map(self._lower, value) for name, value in kwargs.items()}
        elif self._bf16 and func in _IN_FP32:
            args, kwargs = _map(_raise, args), {name: _map(_raise, value) for name, value in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            is_causal = bool(kwargs.get("is_causal", False))
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3], is_causal=is_causal)[0]
        return func(*args, **kwargs)

    def _lower(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        if not isinstance(tensor, nn.Parameter):
            return tensor.to(torch.bfloat16)
        if id(tensor) not in self._casts:
            cast = tensor.to(torch.bfloat16)
            self._casts[id(tensor)] = (tensor, cast)
            self._own.add(cast.untyped_storage()._cdata)
        return self._casts[id(tensor)][1]

    def cast_bytes(self) -> int:
        """Bytes of the parameters' copies in bfloat16."""
        return sum(cast.numel() * cast.element_size() for _, cast in self._casts.values())


_IN_BF16 = {
    *(F.linear, F.conv2d, torch.conv2d, F.scaled_dot_product_attention, torch.bmm, torch.baddbmm, torch.mm),
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.addmm, torch.einsum),
}
_IN_FP32 = {
    *(F.layer_norm, torch.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.normalize),
    *(torch.cumsum, Tensor.norm),
}


def _raise(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_map(change, item) for item in value)
    return change(value) if isinstance(value, Tensor) else value
