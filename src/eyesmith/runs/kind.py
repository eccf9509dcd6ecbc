"""What differs from one kind of run to another around the loop: the model, its measures, the folder it leaves."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console
from torch import nn

from eyesmith.eval import ResultRow
from eyesmith.runs.checks import Evaluator
from eyesmith.train.batches import BatchReader
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import Hook
from eyesmith.train.objective import Objective

Note = Callable[[str], None]
Learned = TypeVar("Learned", bound=Objective)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and beside whom a run works."""

    folder: Path
    world: World
    console: Console


class Kind(ABC, Generic[Learned]):
    """The part of a run that its objective decides, built from its config. Of every process of a run there is one.

    The random seed is set before it is made, so that a model's first weights are a function of the config.
    """

    objective: Learned

    @abstractmethod
    def __init__(self, config: Any, batches: BatchReader, place: Place) -> None:
        """Build the model with its initial weights on `place.world.device()`, and the objective."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The `model` part of config.json, by which the finished folder is opened."""

    @abstractmethod
    def measured(self, model: nn.Module, note: Note) -> list[ResultRow]:
        """Result rows of the final weights; `model` is whole, on the CPU, in evaluation mode."""

    @abstractmethod
    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        """Write the folder that `eyesmith.load` opens, its weights last; config: the content of config.json."""

    @abstractmethod
    def checks(
        self,
        *,
        steps_per_epoch: int,
        description: dict[str, Any],
        write: Callable[[dict[str, Any]], None],
        evaluators: Sequence[Evaluator],
    ) -> Hook | None:
        """A hook that measures while training and keeps the best weights; None where there is nothing to measure."""

    def measured_before(self, model: nn.Module, note: Note) -> list[ResultRow]:
        """Result rows of the initial weights, where they are worth measuring; `model` as for `measured`."""
        del model, note
        return []

    def facts(self) -> dict[str, Any]:
        """What else the log shall say at the beginning."""
        return {}


def kind_of(config: RunConfig) -> type[Kind]:
    """The kind of run of a config."""
    from eyesmith.runs.classify import ClassifyRun
    from eyesmith.runs.contrastive import ContrastiveRun
    from eyesmith.runs.masked import MaskedRun
    from eyesmith.train.classify_config import ClassifyConfig
    from eyesmith.train.config import TrainConfig
    from eyesmith.train.masked_config import MaskedConfig

    kinds: dict[type[RunConfig], type[Kind]] = {
        TrainConfig: ContrastiveRun,
        MaskedConfig: MaskedRun,
        ClassifyConfig: ClassifyRun,
    }
    return kinds[type(config)]
