"""The processes of one run, as torchrun starts them: who this is, and what must happen once or everywhere."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import ConfigError

Result = TypeVar("Result")
STEP_TIMEOUT = timedelta(minutes=10)  # of one exchange in a step: a peer that is silent for longer is dead
LONG_TIMEOUT = timedelta(hours=24)  # where the first process may measure, read or write while the others wait


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among `size` of them. `local_rank` counts those of one machine, and chooses the device.

    patient: a group of all processes between the hosts for exchanges that may wait for hours; None for the default one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    patient: Any = field(default=None, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    def device(self) -> torch.device:
        """This process's CUDA device, else the CPU."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def share(self, batch_size: int) -> slice:
        """The rows of a global batch that are this process's. Raises ConfigError unless the batch divides."""
        if batch_size % self.size:
            raise ConfigError(
                f"batch_size: {self.size} processes cannot share {batch_size} pairs evenly; take a multiple of them"
            )
        own = batch_size // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raises ConfigError unless each process gets an equal share of a batch, and that falls into equal parts."""
        if batch_size % (self.size * accumulate):
            least = self.size * accumulate
            raise ConfigError(
                f"batch_size {batch_size}, accumulate {accumulate} and {self.size} processes do not go together: each "
                f"process takes an equal share of a batch in equal parts, so batch_size must be a multiple of "
                f"{self.size} x {accumulate} = {least}, as {max(1, round(batch_size / least)) * least}"
            )

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process; every process must call it at the same point."""
        return self.fewest(int(not flag)) == 0

    def fewest(self, count: int) -> int:
        """The least of all processes' numbers; every process must call it at the same point.

        Told between the hosts: no device is waited for. It may take hours.
        """
        if self.size == 1:
            return count
        found = torch.tensor(count)
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.patient)
        return int(found)

    def total(self, value: Tensor) -> Tensor:
        """The sum of all processes' values; every process must call it at the same point."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Go on when all processes are here, which may take hours."""
        if self.size > 1:
            dist.barrier(group=self.patient)

    def once(self, action: Callable[[], Result]) -> Result:
        """Run `action` in the first process and give its result, or its error, to all; the result must pickle.

        It may take hours.
        """
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self.patient)
        if outcome[1] is not None:
            raise outcome[1]
        return cast(Result, outcome[0])

    def gather(self, value: Result) -> list[Result]:
        """Every process's value, in order of their ranks, in all of them; the values must pickle.

        Told between the hosts. It may take hours.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.patient)
        return values

    def num_machines(self) -> int:
        """Machines that the processes run on; every process must call it at the same point."""
        return sum(local_rank == 0 for local_rank in self.gather(self.local_rank))

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """The block runs in one process of each machine first, then in the others: what one makes, they find."""
        if self.local_rank:
            self.wait()
        try:
            yield
        finally:
            if not self.local_rank:
                self.wait()


def patient_group() -> Any:
    """A new group of all processes, between their hosts, for exchanges that may take hours; all must call it."""
    return dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)


def _attempt() -> str:
    """A name for what the processes of this start tell each other.

    torchrun's own store outlives a restart: processes that read there where their dead predecessors were wait for them
    without end. Agents of several machines may count restarts differently, and need TORCH_DISABLE_SHARE_RDZV_TCP_STORE,
    which clusters/torchrun.sh sets.
    """
    is_one_agent = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}" if is_one_agent else "attempt"


@contextmanager
def joined() -> Iterator[World]:
    """The world of this process. Joins the others where torchrun started them, and leaves them at the end.

    A process group that exists already is used and kept. Exchanges go over NCCL on CUDA devices, over gloo on CPUs; one
    of a step that takes longer than STEP_TIMEOUT ends the process, and torchrun then all of them.
    """
    is_ours = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not is_ours and not dist.is_initialized():
        yield World()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if is_ours:
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = next(dist.rendezvous("env://", timeout=STEP_TIMEOUT))  # pyright: ignore[reportPrivateImportUsage]
        store = dist.PrefixStore(_attempt(), store)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=STEP_TIMEOUT)
    world = World(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        local_rank=local_rank,
        patient=patient_group() if is_ours else None,
    )
    try:
        yield world
    finally:
        if is_ours:
            dist.destroy_process_group()
            # the last to hold the group ends its threads; one still tidying up when Python ends aborts the process
            object.__setattr__(world, "patient", None)
