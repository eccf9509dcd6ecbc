"""Which numbers and places the options of a verb may be: said once, beside the option, and checked before any work."""

import dataclasses
import inspect
import math
import os
import tempfile
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from eyesmith.errors import ConfigError, InputError

# what may be below zero of the fields of recipes, plans and the lab, by the end of its name
_SIGNED = ("mean", "init_bias", "threshold", "min_similarity", "tail_share")
_ENDLESS = ("balance.threshold",)  # inf keeps every text


@dataclass(frozen=True, slots=True)
class Within:
    """In an option's annotation: the smallest and largest number it may be. Without it an option is above 0."""

    least: float
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class Written:
    """In an option's annotation: a file or folder that the verb writes, whose place is tried before any work."""

    kind: Literal["file", "folder"]


SEED = Within(0, 2**63 - 1)
Seed = Annotated[int, SEED]
OutFile = Annotated[Path, Written("file")]
OutFolder = Annotated[Path, Written("folder")]


def check_arguments(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Raise InputError for the first argument of `function` that is outside of what its annotation says."""
    parameters = inspect.signature(function).parameters
    for name, value in arguments.items():
        marks = list(_marks(parameters[name].annotation))
        within = next((mark for mark in marks if isinstance(mark, Within)), None)
        if dataclasses.is_dataclass(value):  # which knows its bounds, but few think of nan
            for field in dataclasses.fields(value):
                for number in _numbers(getattr(value, field.name)):
                    check_number(field.name, number, Within(-math.inf))
            continue
        for number in _numbers(value):
            check_number(name, number, within)
        for mark in marks:
            if isinstance(mark, Written) and isinstance(value, str | os.PathLike):
                check_place(name, value, mark.kind)


def check_number(name: str, number: float, within: Within | None = None) -> None:
    """Raise ConfigError unless `number` is finite and within its bounds; above 0 where it has none."""
    if not math.isfinite(number):
        raise ConfigError(f"{name}: expected a finite number, got {number}")
    if within is None and number <= 0:
        raise ConfigError(f"{name}: expected {'at least 1' if isinstance(number, int) else 'above 0'}, got {number}")
    if within is not None and not within.least <= number <= within.most:
        is_open = math.isinf(within.most)
        expected = f"at least {within.least:g}" if is_open else f"{within.least:g} to {within.most:g}"
        raise ConfigError(f"{name}: expected {expected}, got {number}")


def check_field(name: str, word: str, kind: Any) -> None:
    """Raise ConfigError where `word`, given for the config field `name`, is a number that no such field takes.

    What is no number at all is left to the parser, which knows every type.
    """
    if not {int, float} & set(_leaves(kind)):
        return
    try:
        number = float(word)
    except ValueError:
        return
    if not math.isfinite(number) and not (name in _ENDLESS and number > 0):
        raise ConfigError(f"{name}: expected a finite number, got {word}")
    end = name.rpartition(".")[2]
    if number < 0 and end not in _SIGNED:
        raise ConfigError(f"{name}: expected 0 or more, got {word}")
    if end == "seed" and number > SEED.most:
        raise ConfigError(f"{name}: expected {SEED.least} to {SEED.most}, got {word}")


def check_place(name: str, path: str | os.PathLike[str], kind: Literal["file", "folder"]) -> None:
    """Raise InputError unless a file or folder can be written at `path`; nothing stays there of the trial."""
    place = Path(path)
    if place.exists() and place.is_dir() != (kind == "folder"):
        is_now = "folder" if place.is_dir() else "file"
        raise InputError(f"{name}: expected a {kind} to write, {place} is a {is_now}; choose another place")
    home = place.absolute() if kind == "folder" else place.absolute().parent
    while not home.exists() and home != home.parent:
        home = home.parent
    try:
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise InputError(f"{name}: {place} cannot be written: {home}: {error.strerror}; choose another place") from None


def _marks(annotation: Any) -> Iterator[Any]:
    """What stands beside the type of an option, also where it may be None."""
    yield from getattr(annotation, "__metadata__", ())
    for part in typing.get_args(annotation):
        yield from _marks(part)


def _numbers(value: Any) -> Iterator[float]:
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, int | float) and not isinstance(one, bool):
            yield one


def _leaves(kind: Any) -> Iterator[Any]:
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is Literal or not parts:
        yield kind
        return
    for part in parts:
        yield from _leaves(part)
