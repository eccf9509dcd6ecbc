"""A config from the command line: `dotted.field=value` and `--dotted.field value`, checked against its fields."""

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from eyesmith.cli.dispatch import parsed, suggestion
from eyesmith.cli.numbers import check_field
from eyesmith.errors import ConfigError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# of a list typed as one word: in quotes, or up to the next comma or blank
_ITEM = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^,\s]+)")


def parse_config(config: Any, words: Sequence[str], *, prog: str) -> Any:
    """`config`, a dataclass instance, with the fields of `words` replaced. --help shows every field and ends.

    Raises ConfigError for an unknown field, naming the closest, for a value of the wrong type, and for one that makes
    no sense.
    """
    import tyro

    return parsed(
        type(config),
        as_options(words, config, prog=prog),
        default=config,
        prog=prog,
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )


def as_options(words: Sequence[str], config: Any, *, prog: str) -> list[str]:
    """`words` with every override in the one form that the parser reads, `--dotted.field value ...`.

    A value of several items is `a,b` after an equals sign; a switch alone is True, with `no_` before its name False.
    """
    kinds = dict(_fields(config))
    options: list[str] = []
    field = ""  # the one whose values come next
    is_full = False  # whether it is a single value, and that has come
    for place, word in enumerate(words):
        if word in ("-h", "--help"):
            options.append(word)
            continue
        found = re.fullmatch(r"(--)?([A-Za-z_][\w.-]*)(?:=(.*))?", word, re.DOTALL)
        is_option, name, value = (bool(found[1]), found[2].replace("-", "_"), found[3]) if found else (False, "", None)
        if not is_option and (value is None or (field and not is_full and name not in kinds)):
            if not field or is_full:
                raise ConfigError(
                    f"expected field=value or --field value, got {word!r}; `{prog} --help` shows the fields"
                )
            check_field(field, word, kinds[field])
            options.append(_plain(word, kinds[field]))
            is_full = not _is_sequence(kinds[field])
            continue
        positive = re.sub(r"(^|\.)no_(\w+)$", r"\1\2", name)
        if name not in kinds and kinds.get(positive) is bool and value is None:
            options += [f"--{positive}", "False"]
            field = ""
            continue
        if name not in kinds:
            raise ConfigError(f"unknown field {name!r}{suggestion(name, kinds)}; `{prog} --help` shows them all")
        options.append(f"--{name}")
        field, is_full = name, value is not None
        if value is not None:
            values = _values(value, kinds[name])
            for one in values:
                check_field(name, one, kinds[name])
            options += values
        elif kinds[name] is bool and (place + 1 == len(words) or words[place + 1].lower() not in (*_TRUE, *_FALSE)):
            options.append("True")
            is_full = True
    return options


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every field below `config` that holds a plain value."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name]


def _values(text: str, kind: Any) -> list[str]:
    if _is_sequence(kind):
        return ["".join(found) for found in _ITEM.findall(text.strip("()[] "))]
    return [_plain(text, kind)]


def _is_sequence(kind: Any) -> bool:
    return any(typing.get_origin(one) in (tuple, list) for one in (kind, *typing.get_args(kind)))


def _plain(word: str, kind: Any) -> str:
    if kind is not bool:
        return word
    return "True" if word.lower() in _TRUE else "False" if word.lower() in _FALSE else word
