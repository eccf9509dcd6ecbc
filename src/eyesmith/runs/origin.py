"""What a run began with, kept in its folder: config, data, frozen weights and teachers; compared when it goes on."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, ConfigError, DataError
from eyesmith.files import atomic_path, load_json, write_json
from eyesmith.models.identity import tensors_hash
from eyesmith.optim import freeze
from eyesmith.runs.data_identity import data_differences
from eyesmith.runs.folder import CONFIG_FILE, FROZEN_FILE, ORIGIN_FILE, changed, in_words, plain
from eyesmith.tasks import Task, run_to_dict
from eyesmith.train.config import RunConfig

_FREE = (  # may be edited before it goes on: no weight depends on them, or what they name is compared itself
    "data.path",
    "data.more_paths",
    "data.num_workers",
    "data.cache_gib",
    "data.max_skipped_frac",
    "initial.weights",
    "initial.text",
    "loss.distill.teacher",
    "target.teacher",
    "teachers",
    "log_every_steps",
    "save_every_steps",
    "keep_states",
    "eval",
    "health",
    "track",
    "parallel",
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """train: the config as `run_to_dict` gives it; data: of `describe_data`; frozen: SHA-256 of the weights that do not
    train; initial: of all weights, where the run started from another's; teachers: of theirs by name.
    """

    train: dict[str, Any]
    data: dict[str, Any]
    frozen: str
    initial: str
    teachers: dict[str, str]

    @classmethod
    def of(cls, config: RunConfig, task: Task, data: dict[str, Any]) -> "Origin":
        """Of a run before its first step; `task` as it was built, not yet spread over processes."""
        return cls(
            train=plain(run_to_dict(config)),
            data=data,
            frozen=tensors_hash(frozen_tensors(task, config)),
            initial=tensors_hash(task.model.state_dict()) if config.initial.weights else "",
            teachers={name: tensors_hash(one.state_dict()) for name, one in task.teachers().items()},
        )

    def write(self, folder: Path) -> None:
        """Into the run folder, on one line a part: short enough to be looked at."""
        write_json(folder / ORIGIN_FILE, {name: json.dumps(value) for name, value in vars(self).items()})

    @classmethod
    def read(cls, folder: Path) -> "Origin | None":
        """What a run folder keeps; None where it is of a time when nothing was. Raises CheckpointError when damaged."""
        path = folder / ORIGIN_FILE
        if not path.is_file():
            return None
        try:
            parts = load_json(path.read_text(encoding="utf-8"))
            return cls(**{name: load_json(value) for name, value in parts.items()})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error}); without it no data can be compared. Delete it to "
                "go on without comparing"
            ) from None


def frozen_tensors(task: Task, config: RunConfig) -> dict[str, Tensor]:
    """The parameters that do not train, by name."""
    freeze(task.model, config.optim.freeze)
    locked = task.locked()
    return {
        name: value.detach()
        for name, value in task.model.named_parameters()
        if not value.requires_grad or value in locked
    }


def keep_frozen(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Store frozen weights in the run folder, so that the run needs nobody else's file to go on."""
    if tensors:
        with atomic_path(folder / FROZEN_FILE) as part:
            save_file({name: value.cpu().contiguous().clone() for name, value in tensors.items()}, part)


def kept_frozen(folder: Path) -> dict[str, Tensor]:
    """What `keep_frozen` stored; nothing where nothing is frozen."""
    path = folder / FROZEN_FILE
    return load_file(path) if path.is_file() else {}


def is_gone(config: RunConfig) -> bool:
    """Whether a file or folder of initial weights is not there any more."""
    return any(one and not _is_there(one) for one in (config.initial.weights, config.initial.text))


def _is_there(source: str) -> bool:
    return source.startswith("hf:") or os.path.exists(source)


def check_teachers(origin: Origin, config: RunConfig, folder: Path) -> None:
    """Raise CheckpointError where a run goes on without the file or folder that a teacher was read from."""
    for name in origin.teachers:
        source = _named(config, name)
        if not _is_there(source):
            raise CheckpointError(
                f"{folder}: learns from {source} ({name}), which is gone, and a run keeps no copy of its teacher; put "
                f"it back, or write into {folder / CONFIG_FILE} at {name} where it lies now: its weights are compared "
                "with those that the run began with"
            )


def check_config(origin: Origin, config: RunConfig, folder: Path, *, allow_other_data: bool) -> list[str]:
    """Raise ConfigError where config.json was edited since the run began, in what its weights depend on.

    Returns what differs in how the data are read, where that is allowed.
    """
    fields = changed(origin.train, run_to_dict(config))
    fields = {name: values for name, values in fields.items() if not _is_free(name)}
    of_data = {name: values for name, values in fields.items() if name.startswith("data.")}
    rest = {name: values for name, values in fields.items() if name not in of_data}
    if rest:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: was edited since the run began: {in_words(rest)}; put it back, or start another "
            f"run (initial.weights={folder} starts from these weights)"
        )
    if of_data and not allow_other_data:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: was edited since the run began: {in_words(of_data)}; put it back, or go on with "
            f"other data by `eyesmith resume {folder} --allow-other-data`"
        )
    return [in_words({name: values}) for name, values in of_data.items()]


def check_data(origin: Origin, data: dict[str, Any], folder: Path, *, path: str, allow_other_data: bool) -> list[str]:
    """Raise DataError where the data are not those that the run began with; returns what differs where allowed."""
    found = data_differences(origin.data, data)
    if found and not allow_other_data:
        raise DataError(
            f"{path}: is not the data that {folder} began with: {_listed(found)}; put them back, or go on with other "
            f"data by `eyesmith resume {folder} --allow-other-data`"
        )
    return found


def check_weights(origin: Origin, task: Task, config: RunConfig, folder: Path, *, has_state: bool) -> None:
    """Raise CheckpointError where frozen weights or a teacher are not those that the run began with."""
    if origin.frozen != tensors_hash(frozen_tensors(task, config)):
        source = config.initial.weights or "the text encoder"
        raise CheckpointError(
            f"{source}: the frozen weights are not those that {folder} began with; put the old ones back, or take "
            "the file away: the run keeps its own"
        )
    if not has_state and origin.initial and origin.initial != tensors_hash(task.model.state_dict()):
        raise CheckpointError(
            f"{config.initial.weights}: holds other weights than those that {folder} began with, and no state is saved "
            "yet; put the old ones back, or start another run"
        )
    for name, teacher in task.teachers().items():
        if origin.teachers.get(name) != tensors_hash(teacher.state_dict()):
            raise CheckpointError(
                f"{name}: its weights are not those that {folder} began with; put the old ones back, or start "
                "another run"
            )


def _named(config: Any, name: str) -> Any:
    """A field by its dotted name, in which numbers are places."""
    for part in name.split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


def _is_free(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in _FREE)


def _listed(found: Iterable[str], most: int = 6) -> str:
    said = list(found)
    return "; ".join(said[:most]) + (f"; and {len(said) - most} more" if len(said) > most else "")


def take_kept(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Give `model` the weights that the run keeps, by name; a blank one gets them when it is spread."""
    if kept and not any(value.is_meta for value in model.parameters()):
        model.load_state_dict(dict(kept), strict=False)
