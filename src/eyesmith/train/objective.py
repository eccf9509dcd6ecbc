"""What the loop asks of whatever it trains; the tasks are built on it.

The loop, the optimiser and its schedule, processes, saved states, the log and resuming are the same for all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from eyesmith.data.loader import Batch
from eyesmith.train.distributed import World

Model = TypeVar("Model", bound=nn.Module)


class Wrapped(Protocol):
    """`Objective.module()` ready to train in this process: called like it, its gradients meet under `sync`."""

    world: World

    def __call__(self, *given: Any) -> Any: ...

    def sync(self, is_on: bool) -> AbstractContextManager[None]:
        """Whether the gradients of all processes meet at the end of the passes inside."""
        ...

    def repeated(self) -> AbstractContextManager[None]:
        """For passes over rows that went through before: inside, no running statistic moves."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss [], times the scale that fp16 needs."""
        ...


class Whole(nn.Module):
    """A model to be wrapped as it is: the wrappers put things of their own on what they are given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Any) -> Any:
        return self.model(*given)


class StepLoss(NamedTuple):
    """What a backward pass found, equal in all processes.

    loss: [] of the global batch. scale: [] 1/temperature, None where there is none. chance: the loss of guessing, 0
    where there is no such level. parts: [] each, of a loss that is a sum, by name; the log has them as NAME_loss.
    """

    loss: Tensor
    scale: Tensor | None = None
    chance: float = 0.0
    parts: Mapping[str, Tensor] = MappingProxyType({})


class Objective(ABC, Generic[Model]):
    """A model in training, and the loss of a batch.

    model: what trains, and what is saved in a run's state. Its image encoder is called `image`, a text tower `text`:
    rates, decay, recomputation and the log go by these names. Whatever else it holds (a head, a mask token, the
    temperature) has the names that it likes.

    Everything that `backward` draws must be a function of the seed, the step and the row in the global batch, so that a
    resumed run goes on as if it had not stopped and several processes compute what one would.
    """

    model: Model

    def module(self) -> nn.Module:
        """A new module around the model whose forward uses every parameter that trains; it is wrapped and called.

        Nothing of the wrapper is saved. By default its forward is the model's.
        """
        return Whole(self.model)

    def blocks(self) -> list[nn.Module]:
        """The residual units of all towers, for recomputation and sharding; by default those of the image encoder."""
        image: Any = self.model.image
        return image.blocks()

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """What else the step needs of its rows, [b, ...] on the CPU, by name: masks, token ids. Becomes `batch.extra`.

        It runs in the loader, beside the step, with nothing to draw from but the seed, the step and the rows.
        """
        return {}

    @abstractmethod
    def backward(self, parallel: Wrapped, batch: Batch, step: int) -> StepLoss:
        """Add the gradient of the global batch's loss to the weights; after it all processes hold equal gradients.

        parallel: calls `module()`; use it under `parallel.sync`, as `accumulate.backward` and `accumulate.add_up` do.
        batch: this process's rows of step `step`, counted from 0, with what `prepare` made of them.
        """

    @abstractmethod
    def rebuild(self) -> Model:
        """A new model of the same kind on the CPU, whose weights will be replaced."""

    def extra(self) -> dict[str, nn.Parameter]:
        """Parameters that train and are no part of the model, by name."""
        return {}

    def locked(self) -> Set[nn.Parameter]:
        """Parameters that never train and that every process keeps whole."""
        return frozenset()

    def after_update(self) -> None:
        """Called after each update of the weights, without gradient: bounds on values."""
        return

    def watched(self) -> dict[str, nn.Module]:
        """Modules whose outputs [n, D] tell how features fare, by the name of the tower they speak for."""
        image: Any = self.model.image
        return {"image": image}

    def fixed(self) -> dict[str, nn.Module]:
        """Models beside the one that trains, whose outputs the loss is made of, by name."""
        return {}

    def row_outputs(self) -> list[nn.Module]:
        """Modules, of `model` and of `fixed`, whose outputs hold a sample a row: where a broken one shows."""
        return [getattr(self.model, name) for name in ("image", "text") if hasattr(self.model, name)]

    def flops(self, text_len: int | None) -> float | None:
        """Floating-point operations of a step for one sample, forward and backward; None where they are not known.

        text_len: tokens of the last text seen, None without texts.
        """
        return None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device
