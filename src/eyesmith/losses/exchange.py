"""What the processes that share a batch tell each other: their rows, sums over everyone's rows, totals."""

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
    """The ranks over which the rows of a batch are spread, in their order; `rank` of `world_size` is this one.

    own_rows: rows of this rank, b; max_rows: as many are kept for each in what is gathered, which has world_size times
    max_rows rows, G. num_rows: rows of all ranks, B; is_padding: bool [G], rows that no rank has; None where there are
    none, and then B is G. Every method is one collective, whatever the number of ranks, and none for a single one. No
    method waits for the device, so all ranks must call the same ones in the same order.
    """

    rank: int = 0
    world_size: int = 1
    own_rows: int
    max_rows: int
    num_rows: int | Tensor
    is_padding: Tensor | None = None
    group: dist.ProcessGroup | None = None

    @staticmethod
    def of(features: Tensor, group: dist.ProcessGroup | None = None, max_rows: int | None = None) -> "Ranks":
        """The ranks of a process group (None: the default group, or this process alone where there is none).

        features: [b, D] of this rank. max_rows: the most that any rank may have, equal on all; each then tells how many
        it has. None: all have b, which nobody checks. Raises ShapeError where b is more.
        """
        own_rows = len(features)
        if max_rows is not None and own_rows > max_rows:
            raise ShapeError(f"max_rows: expected {own_rows} or more, the rows of this rank, got {max_rows}")
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(group) == 1:
            return Ranks(own_rows=own_rows, max_rows=own_rows, num_rows=own_rows)
        rank, world_size = dist.get_rank(group), dist.get_world_size(group)
        if max_rows is None:
            num_rows, is_padding, max_rows = world_size * own_rows, None, own_rows
        else:
            counts = torch.empty(world_size, dtype=torch.int64, device=features.device)
            _all_gather(counts, torch.full_like(counts[:1], own_rows), group=group)
            places = torch.arange(max_rows, device=features.device)
            is_padding = (places >= counts[:, None]).flatten()
            num_rows = counts.sum().to(torch.promote_types(features.dtype, torch.float32))
        return Ranks(
            rank=rank,
            world_size=world_size,
            own_rows=own_rows,
            max_rows=max_rows,
            num_rows=num_rows,
            is_padding=is_padding,
            group=group,
        )

    @property
    def own(self) -> slice:
        """Where this rank's rows are in what is gathered."""
        start = self.rank * self.max_rows
        return slice(start, start + self.own_rows)

    def gather(self, own: Tensor) -> Tensor:
        """Rows [G, ...] of all ranks, from this rank's [b, ...]; 0 where no rank has one."""
        if self.world_size == 1:
            return own
        if missing := self.max_rows - self.own_rows:
            own = torch.cat([own, own.new_zeros(missing, *own.shape[1:])])
        everyone = own.new_empty(self.world_size * self.max_rows, *own.shape[1:])
        _all_gather(everyone, own.contiguous(), group=self.group)
        return everyone

    def sum_to_owners(self, everyone: Tensor) -> Tensor:
        """[b, ...]: the sum over all ranks of what each holds, [G, ...], for the rows of this rank."""
        if self.world_size == 1:
            return everyone
        own = everyone.new_empty(self.max_rows, *everyone.shape[1:])
        _reduce_scatter(own, everyone, group=self.group)
        return own[: self.own_rows]

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


class _Total(torch.autograd.Function):
    """Every rank computes the same value of the sum, so the gradient of a part needs no exchange."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:
        ctx.world_size = ranks.world_size
        return ranks.total(part.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.world_size, None
