"""A run's folder as a place: who writes to it, what a killed process left there, which run it holds."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyesmith import writer
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.files import load_json
from eyesmith.hub import is_run_folder
from eyesmith.tasks import run_from_dict, run_to_dict
from eyesmith.tasks.registry import UnregisteredTaskError
from eyesmith.train.callbacks.logging import read_lines
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World

CONFIG_FILE = "config.json"
ORIGIN_FILE = "origin.json"
FROZEN_FILE = "frozen.safetensors"  # while the run goes on; the finished model has them too
_BEFORE_CONFIG = {ORIGIN_FILE, FROZEN_FILE, "encoder", "task"}  # what a start writes before config.json


@contextmanager
def one_writer(folder: Path, world: World) -> Iterator[None]:
    """Only the processes of `world` write to the run folder inside the block; see `eyesmith.writer.one_writer`."""
    with writer.one_writer(folder, once=world.once, called="run folder"):
        yield


def check_empty(folder: Path) -> None:
    """Raise ConfigError where a folder holds anything but what a process of ours left that was killed at its start."""
    names = writer.content(folder)
    if ORIGIN_FILE in names:
        names -= _BEFORE_CONFIG
    if names:
        hint = f"go on with it by `eyesmith resume {folder}`, or " if (folder / CONFIG_FILE).is_file() else ""
        raise ConfigError(f"{folder}: is not empty; {hint}choose another folder")


def read_run_config(folder: Path) -> RunConfig:
    """The training config of a run folder, finished or not."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: no run folder, there is no {CONFIG_FILE} in it")
    try:
        return run_from_dict(load_json(path.read_text(encoding="utf-8"))["train"], at=folder)
    except UnregisteredTaskError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not the config of a training run ({error})") from None


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` left its model: the weights are written when all steps are done."""
    return is_run_folder(folder)


def is_measured(folder: Path) -> bool:
    """Whether the run in `folder` came to its very end: its model was measured after it was saved."""
    return any(line.get("event") == "end" for line in read_lines(folder))


def check_same_run(config: RunConfig, folder: Path) -> None:
    """Raise ConfigError naming the fields where a folder holds another run than that of `config`."""
    begun = read_run_config(folder)
    if config.is_same_run(begun):
        return
    there, wanted = run_to_dict(begun), run_to_dict(config)
    if not wanted.get("data", {}).get("lanes"):
        wanted = {**wanted, "data": {**wanted["data"], "lanes": there.get("data", {}).get("lanes")}}
    raise ConfigError(
        f"{folder}: holds a {'finished ' if is_finished(folder) else ''}run with other settings: "
        f"{in_words(changed(there, wanted))}; choose another folder, delete this one, or go on with it as it is by "
        f"`eyesmith resume {folder}`"
    )


def changed(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields, dotted, in which two JSON-able configs differ, with both values; None where one lacks it."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*before, *now)):
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= changed(one, other, f"{at}{name}.")
        elif plain(one) != plain(other):
            found[f"{at}{name}"] = (one, other)
    return found


def in_words(fields: Mapping[str, tuple[Any, Any]], most: int = 6) -> str:
    """Changed fields for a message."""
    said = [f"{name} was {plain(before)}, now {plain(now)}" for name, (before, now) in list(fields.items())[:most]]
    return ", ".join(said) + (f" and {len(fields) - most} more" if len(fields) > most else "")


def plain(value: Any) -> Any:
    """The value as JSON gives it back: without tuples."""
    return json.loads(json.dumps(value))
