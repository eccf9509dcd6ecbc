"""Everything the next step depends on, on disk: a run killed at any moment goes on as if it had not been.

The order of the data, the views of the images and every random draw inside the model are functions of the seed and the
step, so there is no random state to save.
"""

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError
from eyesmith.files import atomic_path
from eyesmith.train.config import OptimConfig

STATE_FILE = "state/last.pt"


@dataclass
class TrainState:
    """A model in training. `step` counts the finished ones; `average` are the averaged weights by name, if kept."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    elapsed_s: float = 0.0

    def trained(self) -> dict[str, Tensor]:
        """The parameters that training changes, by name; a locked tower is not among them."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def update_average(self, config: OptimConfig) -> None:
        """Move the averaged weights towards the present ones; faster at first, so that the start is forgotten."""
        if self.average:
            decay = min(config.ema_decay, (self.step + 1) / (self.step + 10))
            trained = self.trained()
            with torch.no_grad():
                for name, value in self.average.items():
                    value.lerp_(trained[name], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights, if they are kept."""
        trained = self.trained()
        present = {name: trained[name].detach().clone() for name in self.average}
        self.take_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in present.items():
                    trained[name].copy_(value)

    def take_average(self) -> None:
        """Give the model the averaged weights, if they are kept."""
        trained = self.trained()
        with torch.no_grad():
            for name, value in self.average.items():
                trained[name].copy_(value)

    def save(self, folder: Path) -> None:
        """Write `folder`/state/last.pt, whole or not at all."""
        content = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": {name: value.detach() for name, value in self.trained().items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(folder / STATE_FILE) as part, part.open("wb") as stream:
            torch.save(content, stream)  # to a path it would not say that the disk is full

    def load(self, folder: Path) -> None:
        """Take the saved state. Raises CheckpointError when there is none, it is damaged, or of another model."""
        path = folder / STATE_FILE
        if not path.is_file():
            raise CheckpointError(f"{folder}: nothing to resume, there is no {STATE_FILE}")
        content = _read(path)
        trained = self.trained()
        if content["model"].keys() != trained.keys():
            odd = sorted(content["model"].keys() ^ trained.keys())
            raise CheckpointError(
                f"{path}: is the state of another model, it differs in {odd[0]} (and {len(odd) - 1} more)"
            )
        for name, value in trained.items():
            if value.shape != content["model"][name].shape:
                sizes = f"{list(content['model'][name].shape)}, the config's model has {list(value.shape)}"
                raise CheckpointError(f"{path}: {name} is {sizes}")
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(content["model"][name])
            for name, value in self.average.items():
                value.copy_(content["average"][name])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.elapsed_s = content["step"], content["elapsed_s"]


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete the run and start it again") from None
