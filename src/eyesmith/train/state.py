"""Everything the next step depends on, on disk: a run killed at any moment goes on as if it had not been.

The order of the data, the views of the images and every random draw inside the model are functions of the seed and the
step, so there is no random state to save.
"""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError
from eyesmith.models.drop_path import DropPath
from eyesmith.optim.config import OptimConfig
from eyesmith.optim.held import chosen, parts_here
from eyesmith.optim.optimizers import fresh_moments
from eyesmith.train import checkpoint, rng
from eyesmith.train.checkpoint import DamagedStateError
from eyesmith.train.distributed import World
from eyesmith.train.readings import Gate
from eyesmith.train.sharding import Parallel


@dataclass
class TrainState:
    """A model in training. `step` counts the finished ones; `average` are the averaged weights by name, if kept.

    extra: parameters that train and are no part of the model, by name (the sigmoid loss's bias). parallel: how the
    model is spread over processes; None for one process and a plain model. readings: small tensors that hooks measured
    in the step that runs, for its `StepFacts`. gate: tells, when asked, whether all steps so far were finite.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    elapsed_s: float = 0.0
    extra: dict[str, nn.Parameter] = field(default_factory=dict)
    parallel: Parallel | None = None
    readings: dict[str, Tensor] = field(default_factory=dict)
    gate: Gate | None = None
    _writing: Future[None] | None = None
    _rng_version: int = rng.VERSION

    @property
    def world(self) -> World:
        """The processes that hold this state."""
        return self.parallel.world if self.parallel else World()

    def trained(self) -> dict[str, Tensor]:
        """The parameters that training changes, by name; a locked tower is not among them."""
        named = (*self.model.named_parameters(), *self.extra.items())
        return {name: value for name, value in named if value.requires_grad}

    def counted(self) -> dict[str, Tensor]:
        """What forward passes of training change, by name: the running statistics of batch norms."""
        # a weight that two parts share is a parameter by both its names
        names = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        held = self.model.state_dict().items()
        return {name: value for name, value in held if name not in names and isinstance(value, Tensor)}

    @torch.no_grad()
    def update_average(self, config: OptimConfig) -> None:
        """Move the averaged weights towards the present ones, after each step."""
        if not self.average:
            return
        # faster at first, so that the start is forgotten
        decay = min(config.ema_decay, (self.step + 1) / (self.step + 10)) if config.ema_warmup else config.ema_decay
        weights = self.trained()
        old, new = parts_here(self.average.values()), parts_here(weights[name] for name in self.average)
        if self.gate is not None:
            new = chosen(self.gate.held, new, old)  # an average moved towards itself stays
        torch._foreach_lerp_(old, new, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights, if they are kept."""
        present = {name: value.detach().clone() for name, value in self.trained().items() if name in self.average}
        self.take_average()
        try:
            yield
        finally:
            _give(self.trained(), present)

    def take_average(self) -> None:
        """Give the model the averaged weights, if they are kept."""
        _give(self.trained(), self.average)

    def confirm(self) -> None:
        """Raise NonFiniteError where a step since the last call was not finite; every process must call it."""
        if self.gate is not None:
            self.gate.confirm(self)

    def whole_model(self) -> nn.Module:
        """The model, or where processes hold parts of it a copy in whole; every process must call it."""
        return self.parallel.whole() if self.parallel else self.model

    def save(self, folder: Path, *, in_background: bool = False, keep: int = checkpoint.KEEP) -> None:
        """Write the state below `folder`/state, whole or not at all; of older ones the newest stay, `keep` in all.

        One file, `step-N.pt`, written by the first process; where processes hold parts of the model, a folder
        `step-N` into which each writes its own. Every process must call it. in_background: from a copy, while training
        goes on; errors show at the next call or in `finish_saving`. Raises NonFiniteError, and writes nothing, where a
        step since the last call was not finite.
        """
        self.confirm()
        self.finish_saving()
        content = self._tensors()
        content["step"] = torch.tensor(self.step)
        content["elapsed_s"] = torch.tensor(self.elapsed_s, dtype=torch.float64)
        content["rng_version"] = torch.tensor(rng.VERSION)
        is_sharded = self.parallel is not None and self.parallel.strategy == "fsdp"
        write = checkpoint.write_sharded if is_sharded else checkpoint.write_file
        self._writing = write(folder, content, step=self.step, world=self.world, in_background=in_background, keep=keep)

    def finish_saving(self) -> None:
        """Wait until what is being saved is on disk; raises what went wrong there."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load(self, folder: Path, *, note: Callable[[str], None] = lambda _: None) -> None:
        """Take the newest saved state that can be read, written by any number of processes.

        Every process must call it. note: told when a newer one cannot be read or was never finished, and when the run
        goes on with other random numbers than it began with. Raises CheckpointError when there is none, none can be
        read, or it is of another model.
        """
        world = self.world
        found = world.once(lambda: checkpoint.states(folder))
        if not found:
            raise CheckpointError(f"{folder}: nothing to resume, there is no state below {checkpoint.FOLDER}/")
        for path in world.once(lambda: checkpoint.unfinished(folder)):
            note(f"{path.name}: a state that was never written to its end is passed over")
        for path in found:
            damage = self._read(path)
            world.wait()  # for the one that reads longest
            if not world.any(damage is not None):
                break
            damage = damage or DamagedStateError(f"{path}: another process cannot read it")
            if path == found[-1]:
                raise CheckpointError(f"{damage}, and there is no older state; delete the run and start it again")
            note(f"{damage}; the state before it is taken")
        if self._paths() and self._rng_version != rng.VERSION:
            note(
                "dropped paths are drawn in another way than when this run began: it goes on with other random numbers "
                "than a run never stopped has"
            )

    def _read(self, path: Path) -> DamagedStateError | None:
        """Take a state, or say why it cannot be read; then what was taken of it must be replaced by another."""
        try:
            stored = checkpoint.sizes(path)
            error = None
        except DamagedStateError as damaged:
            stored, error = {}, damaged
        if self.world.any(error is not None):  # before a read in which processes wait for each other
            return error or DamagedStateError(f"{path}: another process cannot read it")
        self._check_fits(path, stored)
        if any(name.startswith("optimizer/") for name in stored):
            self._prepare_optimizer()
        content = self._tensors()
        content["step"] = torch.tensor(0)
        content["elapsed_s"] = torch.tensor(0.0, dtype=torch.float64)
        version = {"rng_version": torch.tensor(1)}
        try:
            checkpoint.read_into(path, content | version if "rng_version" in stored else content)
        except DamagedStateError as damaged:
            return damaged
        self.step, self.elapsed_s = int(content["step"]), float(content["elapsed_s"])
        self._rng_version = int(version["rng_version"])
        return None

    def _paths(self) -> list[nn.Module]:
        return [module for module in self.model.modules() if isinstance(module, DropPath) and module.prob > 0]

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, the very ones that training changes."""
        trained = self.trained()
        content = {f"model/{name}": value.detach() for name, value in trained.items()}
        content |= {f"average/{name}": value for name, value in self.average.items()}
        content |= {f"buffer/{name}": value for name, value in self.counted().items()}
        if self.parallel is not None and self.parallel.scaling is not None:
            content |= {f"loss_scale/{name}": value for name, value in self.parallel.scaling.tensors().items()}
        for name, parameter in trained.items():
            moments: dict[str, Any] = self.optimizer.state.get(parameter, {})
            content |= {f"optimizer/{name}/{key}": value for key, value in moments.items()}
        return content

    def _prepare_optimizer(self) -> None:
        """Give the optimiser the tensors that it makes at its first step, so that there is something to read into."""
        for parameter in self.trained().values():
            if not self.optimizer.state.get(parameter):
                self.optimizer.state[parameter] = fresh_moments(self.optimizer, parameter)

    def _check_fits(self, path: Path, stored: Mapping[str, tuple[int, ...]]) -> None:
        sizes = {name.removeprefix("model/"): size for name, size in stored.items() if name.startswith("model/")}
        trained = self.trained()
        if sizes.keys() != trained.keys():
            odd = sorted(sizes.keys() ^ trained.keys())
            raise CheckpointError(
                f"{path}: is the state of another model, it differs in {odd[0]} (and {len(odd) - 1} more)"
            )
        for name, value in trained.items():
            if tuple(value.shape) != sizes[name]:
                raise CheckpointError(f"{path}: {name} is {list(sizes[name])}, the model here has {list(value.shape)}")


@torch.no_grad()
def _give(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        weights[name].copy_(value)
