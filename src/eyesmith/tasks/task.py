"""What a run learns: one task is one file here, with its config, its model, its loss, its measures and its folder.

A task is found by its file's name (`registry.py`), so a new one is a new file: `tasks/NAME.py`, or a user's own.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import torch
from rich.console import Console
from torch import Tensor, nn

from eyesmith.data.loader import Batch, Rows
from eyesmith.data.order import step_seed
from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError
from eyesmith.eval import ResultRow
from eyesmith.hub import save_model
from eyesmith.hub.initial import InitialConfig, load_image
from eyesmith.hub.run_folder import describe
from eyesmith.models.clip import Clip, evaluating
from eyesmith.models.cost import encoder_cost
from eyesmith.models.lora import LoraConfig, adapt_blocks
from eyesmith.train.accumulate import add_up, cut
from eyesmith.train.config import RunConfig
from eyesmith.train.data import open_rows, open_training_source
from eyesmith.train.distributed import World
from eyesmith.train.objective import Model, Objective, StepLoss, Wrapped
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws
from eyesmith.train.sharding import blank, choose_strategy

PASSES = 2 * 3  # operations of a multiply-add in training: it counts two, and the backward pass is twice the forward
FP32 = 4  # bytes of a number
BEFORE = " before"  # after the model's name in result rows: what the initial weights reach
_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Where and beside whom a run works."""

    folder: Path
    world: World
    console: Console
    kept: Mapping[str, Tensor] = field(default_factory=lambda: _NOTHING)
    """Frozen weights that the run itself keeps, where the initial weights they came from are gone."""

    def say(self, text: str) -> None:
        """One line to a person, from the first process."""
        if self.world.is_first:
            self.console.print(text, markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class FrozenTeacher:
    """A model that a run asks about each image, for plans.

    source: as `eyesmith.load` takes it. grid: the cells that it shall have of an image; None: as many as it has by
    itself. is_kept: it sees each image once, before the training.
    """

    source: str
    grid: tuple[int, int] | None
    is_kept: bool


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """flops: of an image in a step, forward and backward; notes: what a reader of the plan should know of them."""

    flops: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextPlan:
    """length: tokens of a sample's text at most; flops: of a sample in a step, forward and backward."""

    length: int
    flops: float


@dataclass(frozen=True, kw_only=True)
class NamedRunConfig(RunConfig):
    """A run whose model has no name of its own. Captions are not read."""

    name: str
    """What the model is called in tables and results."""

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def reads_texts(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ConfigError("name: expected what the model shall be called, got nothing")


@dataclass(frozen=True, kw_only=True)
class EncoderRunConfig(NamedRunConfig):
    """A run of an image encoder by itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder.embed_dim:
            raise ConfigError(
                f"model.embed_dim: a run without texts trains no projection, got {self.encoder.embed_dim}; set it to 0"
            )
        if self.initial.part == "text":
            raise ConfigError("initial.part: a run without texts has no text tower; take all or image")
        if self.eval.suites:
            raise ConfigError("eval.suites: they measure image-text models while these train; leave it out")


class Evaluator(Protocol):
    """Measures a model while it trains, beside what the config says."""

    def run(self, clip: Clip) -> Iterable[tuple[str, float]]:
        """Names and fractions; higher is better."""
        ...


class Task(Objective[Model]):
    """A model in training with everything that its kind of run decides. Every process of a run has one.

    config_type: of its runs, a class of the same file. What has no body here must be given; the rest fits a model with
    an image encoder `image` that `eyesmith.load` opens by itself.
    """

    config_type: ClassVar[type[RunConfig]]
    adapts_towers: ClassVar[bool] = True
    """Whether config.lora is of the towers' blocks."""
    config: Any

    def __init__(self, model: Model, config: Any) -> None:
        self.model, self.config = model, config

    @classmethod
    @abstractmethod
    def new_model(cls, config: Any) -> Model:
        """A model with random weights, as the default device and the random seed of this moment make them."""

    @classmethod
    def open_rows(cls, config: Any, world: World) -> Rows:
        """The samples that a run of `config` trains on, this process's share of each batch."""
        return open_rows(config, world)

    @classmethod
    def load(cls, model: Any, config: Any, context: RunContext) -> None:
        """Give a new model the weights that config.initial names, if any."""
        if config.initial.weights:
            with context.world.first_on_each_machine():  # one fetches from the hub, the others find it
                load_image(model.image, config.initial.weights, note=context.say)

    @classmethod
    def first_model(cls, config: Any, context: RunContext, make: Callable[[], Any] | None = None) -> Any:
        """What `make`, by default `new_model`, builds, with what `load` gives it, on this process's device.

        Under FSDP the first process alone makes and loads it, in its main memory; the others' is blank, and gets its
        parts when it is spread, so that nobody needs room for a whole copy on a GPU. An error of the first is an error
        of all.
        """
        made: list[Any] = []
        build = make or (lambda: cls.new_model(config))

        def whole(context: RunContext) -> None:
            made.append(build())
            cls.load(made[0], config, context)

        world = context.world
        if choose_strategy(config.parallel.strategy, world) != "fsdp":
            whole(context)
            return made[0].to(world.device())
        world.once(lambda: whole(replace(context, world=World())))
        return made[0] if world.is_first else blank(build)

    @classmethod
    def build(cls, config: Any, rows: Rows, context: RunContext) -> Self:
        """The task of a run with its initial weights, on this process's device. The random seed is set before."""
        return cls(cls.first_model(config, context), config)

    @classmethod
    def skeleton(cls, config: Any) -> nn.Module:
        """The model on the meta device, for plans: names and shapes, no numbers."""
        with torch.device("meta"):
            return cls.new_model(config)

    @classmethod
    def loss_bytes(cls, config: Any, gpus: int) -> int:
        """Memory of one of `gpus` GPUs that the loss takes, beside pixels and what the towers keep; for plans."""
        return 0

    @classmethod
    def plan_notes(cls, config: Any) -> tuple[str, ...]:
        """What a plan's numbers do not say of a run."""
        return ()

    @classmethod
    def image_plan(cls, config: Any, model: nn.Module) -> ImagePlan | None:
        """What an image costs, for plans; None where it is a pass through the encoder, and its gradient if it trains.

        model: on the meta device.
        """
        return None

    @classmethod
    def text_plan(cls, config: Any, model: nn.Module) -> TextPlan | None:
        """What the text tower of a run costs, for plans; None where the config's text tower says it by itself.

        model: on the meta device.
        """
        return None

    @classmethod
    def extra_names(cls, config: Any) -> tuple[str, ...]:
        """Names of the single numbers that train beside the model, see `extra`; for plans."""
        return ()

    @classmethod
    def training_source(cls, config: Any) -> Source:
        """What a run of `config` trains on, for plans; broken images are not looked for."""
        return open_training_source(config.data, require_text=config.reads_texts)

    @classmethod
    def frozen_teacher(cls, config: Any) -> FrozenTeacher | None:
        """The model whose answers the image tower learns, where there is one; for plans."""
        return None

    @classmethod
    def from_weights(cls, config: Any, source: str) -> Any:
        """`config` started from the weights that `source` holds. Raises as `eyesmith.load` does."""
        return replace(config, initial=InitialConfig(weights=source, part="image"))

    def rebuild(self) -> Model:
        return self.new_model(self.config)

    def add_adapters(self) -> None:
        """Put config.lora's adapters beside the matrices of the towers' blocks that train; the rest of the towers does
        not train then. Raises ConfigError for a pattern that fits no layer.
        """
        lora: LoraConfig = self.config.lora
        if not lora.rank or not self.adapts_towers:
            return
        adapt_blocks(self.model, self.blocks(), lora, locked=self.locked())

    def teachers(self) -> Mapping[str, nn.Module]:
        """Frozen models that the loss asks, by the config's field that names each; a run goes on with the same ones."""
        return {}

    def description(self) -> dict[str, Any]:
        """The `model` part of config.json, by which the finished folder is opened."""
        return describe(self.model)  # pyright: ignore[reportArgumentType]

    def facts(self) -> dict[str, Any]:
        """What else the log shall say at the beginning."""
        return {}

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        """Result rows of splits of the run's data; `model` is whole, on the run's device, in evaluation mode.

        Called in every process of `context.world`, which may share the work, and must give the same in all.
        """
        return []

    def measured(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        """Result rows of the final weights, which are saved: by default those of config.eval.splits; see `rows`."""
        return self.rows(model, self.config.eval.splits, context)

    def measured_before(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        """Result rows of the initial weights, where they are worth measuring; see `rows`."""
        return []

    def curve(
        self, context: RunContext, evaluators: Sequence[Evaluator]
    ) -> Callable[[nn.Module], dict[str, float]] | None:
        """What measures a whole model while training: values by SPLIT/METRIC; None where there is nothing to measure.

        It is called in every process, and gives the same in all: by default the `curve_values`, where there are
        config.eval.curve_splits. evaluators: a caller's own, beside the config's.
        """
        if evaluators:
            raise ConfigError("evaluators: they measure image-text models, and this run trains another model")
        return (lambda model: self.curve_values(model, context)) if self.config.eval.curve_splits else None

    def curve_values(self, model: nn.Module, context: RunContext) -> dict[str, float]:
        """Of config.eval.curve_splits: by default their `rows`, in the run's precision."""
        with evaluating(model), autocast(choose_precision(self.config.precision, self.device), self.device):
            rows = self.rows(model, self.config.eval.curve_splits, context)
        return {f"{row.split}/{row.metric}": row.value for row in rows}

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        """Write the folder that `eyesmith.load` opens, its weights last; config: the content of config.json."""
        save_model(folder, model, config=config)  # pyright: ignore[reportArgumentType]

    def flops(self, text_len: int | None) -> float | None:
        """By default of the image encoder, trained."""
        return float(PASSES * encoder_cost(self.config.encoder).tower.macs)


class MeanTask(Task[Model]):
    """A task whose loss is a mean of terms that need no other row of the batch: a row each, or a patch."""

    @abstractmethod
    def outputs(self, model: Wrapped, part: Batch) -> Any:
        """What the terms of some rows are computed from, in the run's precision. Every parameter goes through `model`.

        `model` is called as `module()`.
        """

    @abstractmethod
    def terms(self, outputs: Any, part: Batch) -> Tensor:
        """The terms of these rows, fp32 [n]."""

    def num_terms(self, batch: Batch) -> Tensor:
        """How many terms a batch has, fp32 []: by default one a row."""
        return torch.full((), float(len(batch)), device=self.device)

    def chance_loss(self) -> float:
        """The loss of guessing; 0 where there is no such level."""
        return 0.0

    def backward(self, parallel: Wrapped, batch: Batch, step: int) -> StepLoss:
        config, device, world = self.config, self.device, parallel.world
        precision = choose_precision(config.precision, device)
        batch = batch.to(device)
        count = world.total(self.num_terms(batch))

        def share(part: Batch) -> Tensor:
            draws.give(part.rows)
            with autocast(precision, device):
                outputs = self.outputs(parallel, part)
            # processes average their gradients, and the mean is over all their terms
            return self.terms(outputs, part).sum() * (world.size / count)

        parts = [partial(share, part) for part in cut(batch, config)]
        with StepDraws(self.model, seed=step_seed(config.seed, step), device=device) as draws:
            loss = add_up(parallel, parts)
        return StepLoss(world.total(loss) / world.size, chance=self.chance_loss())
