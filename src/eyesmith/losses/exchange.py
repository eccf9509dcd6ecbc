"""What the processes that share a batch tell each other: their rows, sums over everyone's rows, totals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import ShapeError

# torch 2.13 renames both, and warns of the names that 2.11 has alone
_has_new_names = hasattr(dist, "all_gather_single")
_all_gather = dist.all_gather_single if _has_new_names else dist.all_gather_into_tensor
_reduce_scatter = dist.reduce_scatter_single if _has_new_names else dist.reduce_scatter_tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The ranks over which the rows of a batch are spread, in their order. sizes: rows of each; rank: which is this.

    Every method is one collective, whatever the number of ranks, and none for a single one. No method waits for the
    device, so all ranks must call the same ones in the same order.
    """

    rank: int
    sizes: tuple[int, ...]
    group: dist.ProcessGroup | None = None

    @staticmethod
    def of(num_rows: int, group: dist.ProcessGroup | None = None, sizes: Sequence[int] | None = None) -> "Ranks":
        """The ranks of a process group (None: the default group, or this process alone where there is none).

        num_rows: of this rank; sizes: of every rank, None if all have as many. They cannot be asked for without waiting
        for the device. Raises ShapeError for sizes that are not as many as ranks, or that say otherwise of this one.
        """
        rank, world_size = 0, 1
        if dist.is_available() and dist.is_initialized():
            rank, world_size = dist.get_rank(group), dist.get_world_size(group)
        sizes = (num_rows,) * world_size if sizes is None else tuple(sizes)
        if len(sizes) != world_size or sizes[rank] != num_rows:
            raise ShapeError(
                f"sizes: expected rows of {world_size} ranks, {num_rows} of rank {rank}, got {list(sizes)}; leave it "
                "out where all ranks have as many rows"
            )
        return Ranks(rank=rank, sizes=sizes, group=group)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return len(self.sizes)

    @property
    def num_rows(self) -> int:
        """Rows of the global batch."""
        return sum(self.sizes)

    @property
    def own(self) -> slice:
        """Where this rank's rows are in the global batch."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def gather(self, own: Tensor) -> Tensor:
        """Rows [B, ...] of all ranks, from this rank's [b, ...]."""
        if self.world_size == 1:
            return own
        padded = own.contiguous()
        if not self._is_even:
            padded = torch.cat([own, own.new_zeros(max(self.sizes) - len(own), *own.shape[1:])])
        everyone = own.new_empty(self.world_size * len(padded), *own.shape[1:])
        _all_gather(everyone, padded, group=self.group)
        return everyone if self._is_even else everyone[self._places(own.device)]

    def sum_to_owners(self, everyone: Tensor) -> Tensor:
        """[b, ...]: the sum over all ranks of what each holds, [B, ...], for the rows of this rank."""
        if self.world_size == 1:
            return everyone
        if not self._is_even:
            padded = everyone.new_zeros(self.world_size * max(self.sizes), *everyone.shape[1:])
            everyone = padded.index_copy_(0, self._places(everyone.device), everyone)
        own = everyone.new_empty(max(self.sizes), *everyone.shape[1:])
        _reduce_scatter(own, everyone.contiguous(), group=self.group)
        return own[: self.sizes[self.rank]]

    def total(self, value: Tensor) -> Tensor:
        """The sum of `value` over all ranks, equal on each; `value` is overwritten."""
        if self.world_size > 1:
            dist.all_reduce(value, group=self.group)
        return value

    def largest(self, value: Tensor) -> Tensor:
        """The largest `value` of all ranks, element by element."""
        if self.world_size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return value

    def total_with_grad(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts, with the gradient of each part times the number of ranks."""
        return part if self.world_size == 1 else _Total.apply(part, self)  # pyright: ignore[reportReturnType]

    @property
    def _is_even(self) -> bool:
        return len(set(self.sizes)) == 1

    def _places(self, device: torch.device) -> Tensor:
        """Int64 [B]: where the rows are once each rank's are padded to as many as the largest has."""
        stride = max(self.sizes)
        places = [rank * stride + row for rank, size in enumerate(self.sizes) for row in range(size)]
        return torch.tensor(places, device=device)


class _Total(torch.autograd.Function):
    """Every rank computes the same value of the sum, so the gradient of a part needs no exchange."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:
        ctx.world_size = ranks.world_size
        return ranks.total(part.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.world_size, None
