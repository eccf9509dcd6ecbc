"""One model over several processes: DDP or FSDP2 around it, recomputation and compilation of its blocks.

What is here is torch's own: its wrappers see one module, the objective's, whose forward gives all that a loss needs.
"""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from eyesmith.errors import ConfigError
from eyesmith.models.acceleration import compile_blocks
from eyesmith.models.encoder import Encoder
from eyesmith.optim.held import parts_here, shard_groups
from eyesmith.train.config import ParallelConfig
from eyesmith.train.distributed import World
from eyesmith.train.objective import Objective

Strategy = Literal["none", "ddp", "fsdp"]


class Parallel:
    """A model ready to train in this process: call it as the objective's module, then let gradients meet.

    After a backward pass under `sync(True)` every process holds the mean of all processes' gradients (FSDP: its part
    of them).
    """

    def __init__(self, objective: Objective, config: ParallelConfig, world: World) -> None:
        """Wraps the objective's model in place. All processes must hold equal weights."""
        self.world = world
        self.strategy = choose_strategy(config.strategy, world)
        self.objective = objective
        blocks = objective.blocks()
        if config.checkpoint_blocks:
            for block in blocks:
                block.forward = _Recomputed(block.forward)
        if config.compile_blocks:
            image = objective.model.image
            assert isinstance(image, Encoder)
            compile_blocks(image)
        self._inner = objective.module()
        self._module: nn.Module = self._inner
        self._replicated: list[nn.Parameter] = []
        if self.strategy == "ddp":
            self._replicate()
        elif self.strategy == "fsdp":
            self._shard(blocks)

    def _replicate(self) -> None:
        # while DDP looks for unused parameters its buckets keep their first order, so that the sums of a resumed run
        # are made in the order of one never stopped; one that is unused spares the warning that there is none
        self._inner.unused = nn.Parameter(torch.zeros((), device=self.objective.device))
        # depthwise weights [C, 1, 3, 3] have strides that may be read in two ways; the copy costs nothing
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames broadcast_buffers
            self._module = DistributedDataParallel(
                self._inner, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
            )

    def _shard(self, blocks: Iterable[nn.Module]) -> None:
        from torch.distributed.device_mesh import init_device_mesh  # a second to import, for those who use it
        from torch.distributed.fsdp import fully_shard

        # our blocks may return views (a convolution on [B, H, W, C] maps), and nothing changes them in place
        warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(\w+\) returned a view tensor", UserWarning)
        device = self.objective.device.type
        mesh = init_device_mesh(device, (self.world.size,))
        locked = set(self.objective.locked())
        # FSDP shards no scalars: each process keeps the temperature, and their gradients are averaged by `sync`
        scalars = {parameter for parameter in self._inner.parameters() if parameter.ndim == 0}
        self._replicated = [parameter for parameter in self._inner.parameters() if parameter in scalars]
        for block in blocks:
            if not locked.issuperset(block.parameters()):
                fully_shard(block, mesh=mesh)
        fully_shard(self._inner, mesh=mesh, ignored_params=locked | scalars)

    def __call__(self, *given: Any) -> Any:
        """As the objective's module."""
        return self._module(*given)

    @contextmanager
    def sync(self, is_on: bool) -> Iterator[None]:
        """Whether forward and backward passes inside let the gradients of all processes meet at their end.

        Off, DDP adds them up here. FSDP always lets them meet, as only so each process holds no more than its part.
        """
        if isinstance(self._module, DistributedDataParallel) and not is_on:
            with self._module.no_sync():
                yield
        else:
            yield
        if is_on and self.world.size > 1:
            for parameter in self._replicated:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.world.size

    def clip_grad_norm(self, parameters: Mapping[str, Tensor], max_norm: float) -> Tensor:
        """L2 norm of all gradients [], equal in every process; above max_norm (0: never) they are scaled down to it."""
        grads = [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
        norm = total_norm(grads)
        if max_norm:  # else a pass over all gradients for nothing
            torch._foreach_mul_(parts_here(grads), (max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def whole(self) -> nn.Module:
        """The model with whole weights: itself, or under FSDP a copy on the CPU; every process must call it."""
        model = self.objective.model
        if self.strategy != "fsdp":
            return model
        with torch.random.fork_rng(devices=[]):
            copy = self.objective.rebuild()
        tensors = {name: whole_tensor(value.detach()) for name, value in model.state_dict().items()}
        copy.load_state_dict(tensors)
        return copy.eval()


def choose_strategy(wanted: Literal["auto", "none", "ddp", "fsdp"], world: World) -> Strategy:
    """`wanted`, with auto decided; one process needs none. Raises ConfigError for several without a strategy."""
    if world.size == 1:
        return "none"
    if wanted == "none":
        raise ConfigError(
            f"parallel.strategy: {world.size} processes were started and 'none' trains in one; take auto, ddp or fsdp"
        )
    return "ddp" if wanted == "auto" else wanted


@torch.no_grad()
def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm [] of all tensors together, of which processes may hold parts; then every process must call it."""
    norm = nn.utils.get_total_norm([value for value in tensors if not is_part(value)])
    parts = [value for value in tensors if is_part(value)]
    if parts:
        squares = nn.utils.get_total_norm(parts_here(parts)).square()
        for group in shard_groups(parts[0]):
            dist.all_reduce(squares, group=group)
        norm = (norm.square() + squares).sqrt()
    return norm


def whole_tensor(value: Tensor) -> Tensor:
    """A tensor of which processes hold parts, in whole; every process must call it. Others as they are."""
    return cast(Any, value).full_tensor() if is_part(value) else value


def is_part(value: Tensor) -> bool:
    """Whether processes hold parts of this tensor (a DTensor)."""
    return hasattr(value, "full_tensor")


class _Recomputed:
    """A forward whose inner values are dropped and computed again in the backward pass."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(partial(self.forward, **kwargs), *args, use_reentrant=False)
