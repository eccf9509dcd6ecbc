"""One model over several processes: DDP or FSDP2 around it, recomputation and compilation of its blocks.

What is here is torch's own: its wrappers see one module, the objective's, whose forward gives all that a loss needs.
"""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from eyesmith.errors import ConfigError
from eyesmith.models.acceleration import compile_blocks
from eyesmith.models.encoder import Encoder
from eyesmith.models.lora import add_adapters_like
from eyesmith.optim.held import parts_here, shard_groups
from eyesmith.train.batch_norm import counted_before, share_statistics
from eyesmith.train.config import ParallelConfig
from eyesmith.train.distributed import World
from eyesmith.train.objective import Objective
from eyesmith.train.precision import HALF, LossScale, Precision

Strategy = Literal["none", "ddp", "fsdp"]
Made = TypeVar("Made", bound=nn.Module)


class GradNorms(NamedTuple):
    """L2 norms [] of gradients before they were clipped: of all, and of each part where parts are told apart."""

    total: Tensor
    parts: Mapping[str, Tensor]


class Parallel:
    """A model ready to train in this process: call it as the objective's module, then let gradients meet.

    After a backward pass under `sync(True)` every process holds the mean of all processes' gradients (FSDP: its part
    of them). Batch norms take their statistics of all processes' rows.
    """

    def __init__(
        self, objective: Objective, config: ParallelConfig, world: World, *, precision: Precision = "fp32"
    ) -> None:
        """Wraps the objective's model in place. All processes must hold equal weights, or under FSDP the first alone.

        The others' model then lies on the meta device, as `blank` makes it, and the first one's in main memory.

        precision: of the towers; in half of fp32 FSDP gathers weights in it, and adds gradients up in fp32.
        """
        self.world = world
        self.strategy = choose_strategy(config.strategy, world)
        self.objective = objective
        blocks = objective.blocks()
        if world.size > 1:
            share_statistics(objective.model)
        if config.checkpoint_blocks:
            for block in blocks:
                block.forward = _Recomputed(block)
        if config.compile_blocks:
            image = objective.model.image
            assert isinstance(image, Encoder)
            compile_blocks(image)
        self._inner = objective.module()
        self._module: nn.Module = self._inner
        self._replicated: list[nn.Parameter] = []
        self._unseen = self.strategy == "ddp"
        if self.strategy == "ddp":
            self._replicate()
        elif self.strategy == "fsdp":
            self._shard(blocks, config.shards, precision)
        self.scaling = LossScale(objective.device) if precision == "fp16" else None

    def _replicate(self) -> None:
        # depthwise weights [C, 1, 3, 3] have strides that may be read in two ways; the copy costs nothing
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames broadcast_buffers
            self._module = DistributedDataParallel(
                _Ordered(self._inner), broadcast_buffers=False, gradient_as_bucket_view=True
            )
        # DDP orders its buckets anew by its first backward pass. Let that be this one, always the same, so that the
        # sums of a resumed run are made in the order of one never stopped
        self._module().backward()
        self._inner.zero_grad()

    def _shard(self, blocks: Iterable[nn.Module], shards: int, precision: Precision) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # a second to import

        # our blocks may return views (a convolution on [B, H, W, C] maps), and nothing changes them in place
        warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(\w+\) returned a view tensor", UserWarning)
        is_sent = self.world.any(self.objective.device.type == "meta")
        device = self.world.device() if is_sent else self.objective.device
        held = {name: value.detach() for name, value in _tensors(self._inner)} if is_sent else {}
        mesh = shard_mesh(self.world.size, shards, device.type)
        # what flows between blocks stays as autocast leaves it
        policy = MixedPrecisionPolicy(
            param_dtype=HALF.get(precision),
            reduce_dtype=torch.float32 if precision in HALF else None,
            cast_forward_inputs=False,
        )
        # FSDP shards no scalars: each process keeps them, and their gradients are averaged by `sync`
        scalars = {parameter for parameter in self._inner.parameters() if parameter.ndim == 0}
        whole = set(self.objective.locked()) | scalars
        self._replicated = [parameter for parameter in self._inner.parameters() if parameter in scalars]
        for block in blocks:
            if not whole.issuperset(block.parameters()):
                fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=whole)
        fully_shard(self._inner, mesh=mesh, mp_policy=policy, ignored_params=whole)
        if is_sent:
            self._receive(held, device)

    def _receive(self, held: Mapping[str, Tensor], device: torch.device) -> None:
        """Give every process its parts of what the first one holds; a whole tensor at a time lies on the device."""
        from torch.distributed.tensor import distribute_tensor

        if self.objective.device.type == "meta":
            # parameters must stay the objects that the objective, FSDP and the optimiser know
            before = torch.__future__.get_swap_module_params_on_conversion()
            torch.__future__.set_swap_module_params_on_conversion(True)
            try:
                self._inner.to_empty(device=device)
            finally:
                torch.__future__.set_swap_module_params_on_conversion(before)
        for name, value in _tensors(self._inner):
            sent: Any = value
            if not is_part(value):
                value.data = value.data.to(device)  # the first process's come from its CPU
            whole = held[name].to(device) if self.world.is_first else torch.empty_like(held[name], device=device)
            dist.broadcast(whole, src=0)
            with torch.no_grad():
                if is_part(value):
                    own = distribute_tensor(whole, sent.device_mesh, sent.placements, src_data_rank=None)
                    sent.to_local().copy_(own.to_local())
                else:
                    value.copy_(whole)

    def __call__(self, *given: Any) -> Any:
        """As the objective's module."""
        return self._module(*given)

    def repeated(self) -> AbstractContextManager[None]:
        """For passes over rows that went through before: batch norms do not count them again."""
        return counted_before(self.objective.model)

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
        if is_on and self._unseen:
            self._check_used()
        grads = [one.grad for one in self._replicated if one.grad is not None] if is_on else []
        if grads:
            together = torch.stack(grads)
            dist.all_reduce(together)
            torch._foreach_copy_(grads, list((together / self.world.size).unbind()))

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss [], times the scale that fp16 needs: `clip_grad_norm` takes it away again."""
        (loss if self.scaling is None else loss * self.scaling.value).backward()

    def _check_used(self) -> None:
        self._unseen = False
        unused = [name for name, one in self._inner.named_parameters() if one.requires_grad and one.grad is None]
        if unused:
            raise ConfigError(
                f"optim.freeze: {', '.join(unused[:4])} ({len(unused)} in all) had no part in the first step's loss, "
                "and processes would wait for their gradients for ever; freeze what is not used"
            )

    def clip_grad_norm(
        self, parameters: Mapping[str, Tensor], max_norm: float, *, part: Callable[[str], str] | None = None
    ) -> GradNorms:
        """Norms of the gradients, equal in every process; above max_norm (0: never) they are scaled down to it.

        part: names what a parameter belongs to; each part is then scaled by its own norm. Gradients and norms are
        without fp16's scale then.
        """
        grads: dict[str, list[Tensor]] = {}
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                grads.setdefault("" if part is None else part(name), []).append(parameter.grad)
        if self.scaling is not None:
            self.scaling.unscale(grad for some in grads.values() for grad in some)
        norms = {name: total_norm(some) for name, some in grads.items()} or {"": total_norm([])}
        if max_norm:  # else a pass over all gradients for nothing
            for name, some in grads.items():
                torch._foreach_mul_(parts_here(some), (max_norm / (norms[name] + 1e-6)).clamp(max=1.0))
        total = next(iter(norms.values())) if len(norms) == 1 else torch.stack(list(norms.values())).norm()
        return GradNorms(total, {} if part is None else norms)

    def whole(self) -> nn.Module:
        """The model with whole weights: itself, or under FSDP a copy; every process must call it.

        The copy is on this process's device: all of them measure it together.
        """
        model = self.objective.model
        if self.strategy != "fsdp":
            return model
        # one at a time lies whole on the device beside the parts
        tensors = {name: whole_tensor(value.detach()).cpu() for name, value in model.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            copy = self.objective.rebuild()
            add_adapters_like(copy, model)
        copy.load_state_dict(tensors)
        return copy.eval().to(self.objective.device)


def blank(make: Callable[[], Made]) -> Made:
    """What `make` builds, on the meta device: names and shapes, no numbers."""
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, NotImplementedError):  # it looks at numbers while it is built
        return make().to("meta")


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, also those that no state holds."""
    return [*module.named_parameters(), *module.named_buffers()]


class _Ordered(nn.Module):
    """A module, or without arguments a sum of 0 in which every parameter that trains has a part."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *given: Any) -> Any:
        if given:
            return self.inner(*given)
        return torch.stack([one.flatten()[0] for one in self.parameters() if one.requires_grad]).sum() * 0


def shard_mesh(world_size: int, shards: int, device: str) -> Any:
    """The mesh that FSDP spreads a model over: [shards], or [replicas, shards] where fewer processes share a copy.

    shards: processes that share one copy, 0 for all. Raises ConfigError where they do not divide the processes.
    """
    from torch.distributed.device_mesh import init_device_mesh  # a second to import, for those who use it

    if shards in (0, world_size):
        return init_device_mesh(device, (world_size,))
    if world_size % shards:
        raise ConfigError(
            f"parallel.shards: {world_size} processes cannot be parted into groups of {shards}; take a divisor, as the "
            "GPUs of one machine, or 0 for all"
        )
    return init_device_mesh(device, (world_size // shards, shards), mesh_dim_names=("replicas", "shards"))


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

    def __init__(self, block: nn.Module) -> None:
        self.forward: Callable[..., Tensor] = block.forward
        self._contexts = lambda: (nullcontext(), counted_before(block))

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        forward = partial(self.forward, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=self._contexts)
