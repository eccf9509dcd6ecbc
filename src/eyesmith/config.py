"""Configs to JSON and back: frozen dataclasses, where a field of several types carries its class name as `kind`.

A class may name fields that it had once and the values they had, `FORMER_FIELDS`, where no value changed what is
computed: a file that holds one is read without it.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from cattrs import ClassValidationError, Converter
from cattrs.errors import ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_tagged_union

from eyesmith.errors import ConfigError

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A JSON-able mapping with every field of `config`, defaults included."""
    return _converter(type(config)).unstructure(config)


def from_dict(cls: type[Config], mapping: Mapping[str, Any]) -> Config:
    """The config of class `cls` that `to_dict` wrote. Raises ConfigError for an unknown, missing or wrong field."""
    try:
        return cast(Config, _converter(cls).structure(mapping, cls))
    except (ClassValidationError, IterableValidationError) as error:
        raise ConfigError(f"{cls.__name__}: " + "; ".join(_messages(error, ""))) from error


def closest(name: str, known: typing.Iterable[str]) -> str:
    """A hint for an unknown name: '; did you mean X?' or the list of what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"


def check_choices(config: Any, where: str = "") -> None:
    """Raise ConfigError for a field of a dataclass whose type lists its values and whose value is another.

    where: stands before the field's name.
    """
    for name, known in _choices(type(config)).items():
        if (value := getattr(config, name)) not in known:
            said = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ConfigError(f"{where}{name}: expected {said}, got {value!r}")


def check_least(config: Any, where: str = "", **least: float) -> None:
    """Raise ConfigError for a field of a dataclass that is below the number given by its name.

    where: stands before the field's name.
    """
    for name, low in least.items():
        if (value := getattr(config, name)) < low:
            raise ConfigError(f"{where}{name}: expected {low} or more, got {value}")


@lru_cache
def _choices(cls: type) -> dict[str, tuple[str, ...]]:
    hints = typing.get_type_hints(cls).items()
    return {name: typing.get_args(hint) for name, hint in hints if typing.get_origin(hint) is typing.Literal}


@lru_cache
def _converter(cls: type) -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for union in _unions(cls, set()):
        configure_tagged_union(union, converter, tag_name="kind")
    # JSON has no tuples and no difference between 1 and 1.0, but "3" for a number is a mistake
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(str, _exact(str))
    converter.register_structure_hook(bool, _exact(bool))
    converter.register_structure_hook_factory(dataclasses.is_dataclass, lambda c: _structure(c, converter))
    return converter


def _structure(cls: Any, converter: Converter) -> Any:
    structure: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
    former: Mapping[str, tuple[Any, ...]] = getattr(cls, "FORMER_FIELDS", {})

    def without_former(mapping: Any, kind: Any) -> Any:
        if isinstance(mapping, Mapping):
            mapping = {name: value for name, value in mapping.items() if value not in former.get(name, ())}
        return structure(mapping, kind)

    return without_former if former else structure


def _unions(cls: Any, seen: set[Any]) -> list[Any]:
    """Every union of two or more dataclasses among the fields below `cls`, innermost first."""
    found: list[Any] = []
    if cls in seen or not dataclasses.is_dataclass(cls):
        return found
    seen.add(cls)
    for hint in typing.get_type_hints(cls).values():
        members = [hint, *typing.get_args(hint)]
        for member in members:
            found += _unions(member, seen)
        if sum(dataclasses.is_dataclass(member) for member in typing.get_args(hint)) > 1:
            found.append(hint)
    return found


def _exact(kind: type) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {value!r}")
        return value

    return structure


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)


def _integer(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _messages(error: BaseException, where: str) -> list[str]:
    if isinstance(error, ClassValidationError | IterableValidationError):
        messages = []
        for inner in error.exceptions:
            note = next((n for n in getattr(inner, "__notes__", ()) if hasattr(n, "name") or hasattr(n, "index")), None)
            step = getattr(note, "name", None) if note is not None else None
            messages += _messages(inner, f"{where}.{step}".strip(".") if step else where)
        return messages
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in dataclasses.fields(cast(Any, error.cl))]
        return [f"unknown field '{where}{'.' if where else ''}{k}'" + closest(k, known) for k in error.extra_fields]
    if isinstance(error, KeyError):
        if error.args[0] == where.rpartition(".")[2] or not where:
            return [f"missing field '{where or error.args[0]}'"]
        return [f"{where}: missing or unknown kind {error.args[0]!r}"]
    return [f"{where or 'value'}: {error}"]
