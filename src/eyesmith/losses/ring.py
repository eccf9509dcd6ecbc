"""Blocks of rows that travel round the ranks of a process group, one hop a step, while each rank computes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_BLOCKS, _SUMS = 1, 2  # message tags: what is read travels beside what is added to


@dataclass(frozen=True, kw_only=True)
class Ring:
    """The ranks among which a batch is spread. sizes: rows of each rank; a single process is a ring of one.

    Rank r receives from r - 1 and sends to r + 1. At step t it holds the block that belongs to rank r - t.
    """

    rank: int
    sizes: tuple[int, ...]
    group: dist.ProcessGroup | None = None

    @staticmethod
    def of(num_rows: int, device: torch.device, group: dist.ProcessGroup | None = None) -> "Ring":
        """The ring of a process group (None: the default group, or this process alone where there is none).

        Ranks may hold different numbers of rows: each tells its own, which is one small collective.
        """
        world_size = world_size_of(group)
        if world_size == 1:
            return Ring(rank=0, sizes=(num_rows,))
        counts = list(torch.empty(world_size, 1, dtype=torch.int64, device=device))
        dist.all_gather(counts, torch.tensor([num_rows], device=device), group=group)
        return Ring(rank=dist.get_rank(group), sizes=tuple(torch.cat(counts).tolist()), group=group)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return len(self.sizes)

    @property
    def num_rows(self) -> int:
        """Rows of the global batch."""
        return sum(self.sizes)

    def blocks(self, own: Sequence[Tensor]) -> Iterator[tuple[int, Sequence[Tensor]]]:
        """Every rank's tensors in turn with that rank's number, own first; rows are the first axis.

        The next block is under way while the caller works on this one, so two blocks are held at a time.
        """
        held = list(own)
        for step in range(self.world_size):
            arriving = self._pass_on(held, step + 1, _BLOCKS) if step + 1 < self.world_size else None
            yield self._owner(step), held
            if arriving is not None:
                held = arriving()

    def sums(self) -> "Sums":
        """A new sum that follows the blocks round the ring, one step behind them."""
        return Sums(self)

    def total(self, value: Tensor) -> Tensor:
        """The sum of `value` over all ranks, equal on each."""
        if self.world_size > 1:
            dist.all_reduce(value, group=self.group)
        return value

    def gather(self, own: Tensor) -> Tensor:
        """All ranks' rows in the order of ranks, by the ring's own hops, so that ranks may differ in their number."""
        parts = dict(self.blocks([own]))
        return torch.cat([parts[rank][0] for rank in range(self.world_size)])

    def own_rows(self) -> slice:
        """Where this rank's rows are in the global batch."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def _owner(self, step: int) -> int:
        return (self.rank - step) % self.world_size

    def _pass_on(self, tensors: Sequence[Tensor], next_step: int, tag: int) -> Callable[[], list[Tensor]]:
        """Start sending `tensors` to the right and receiving the left's, which belong to the block of `next_step`.

        Returns what waits for both and gives the tensors received.
        """
        if self.world_size == 1:
            return lambda: list(tensors)
        num_rows = self.sizes[self._owner(next_step)]
        sent = [tensor.contiguous() for tensor in tensors]
        received = [tensor.new_empty((num_rows, *tensor.shape[1:])) for tensor in tensors]
        right, left = self._peer(self.rank + 1), self._peer(self.rank - 1)
        works = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, tensor, right, self.group, tag) for tensor in sent]
            + [dist.P2POp(dist.irecv, tensor, left, self.group, tag) for tensor in received]
        )

        def wait() -> list[Tensor]:
            for work in works:
                work.wait()
            sent.clear()  # until here the transport may still read them
            return received

        return wait

    def _peer(self, rank: int) -> int:
        rank %= self.world_size
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


class Sums:
    """What all ranks have added to a block's rows; it comes home, complete, after the last step.

    The partial sum of a block travels while the next block's share is computed, and is added to it after that: hence
    one step behind, and no rank waits for a transfer that it did not have a whole step of work to hide.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring, self._step = ring, 0
        self._arriving: Callable[[], list[Tensor]] | None = None

    def add(self, share: Tensor, combine: Callable[[Tensor, Tensor], Tensor] = torch.add) -> None:
        """This rank's share for the block of the current step, [rows of the block, ...]; called once a step, in order.

        combine: how two shares become one; associative. A ring of one adds nothing and copies nothing.
        """
        if self._arriving is not None:
            share = combine(self._arriving()[0], share)
        self._step += 1
        self._arriving = self._ring._pass_on([share], self._step, _SUMS)

    def home(self) -> Tensor:
        """The complete sum of this rank's own block; after as many `add`s as there are ranks."""
        assert self._arriving is not None
        assert self._step == self._ring.world_size
        return self._arriving()[0]


def world_size_of(group: dist.ProcessGroup | None) -> int:
    """Ranks of a group; without torch.distributed, or before it is set up, there is one."""
    if not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size(group)


class GatherRows(torch.autograd.Function):
    """All ranks' rows [B, D] from local rows [b, D], for losses that every rank computes whole.

    Backward takes the local rows of the gradient, times the number of ranks: every rank has computed the same global
    loss, and the mean over ranks that follows (DDP's) divides by it again.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, ring: Ring) -> Tensor:
        ctx.ring = ring
        return ring.gather(own)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ring: Ring = ctx.ring
        return grads[0][ring.own_rows()] * ring.world_size, None
