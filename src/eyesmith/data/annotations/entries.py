"""Large JSON files entry by entry, so that only what is kept of each stays in memory, and what is wrong has a place."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from eyesmith.errors import DataError

_SPACES = " \t\r\n"


def read_entries(path: Path, lists: Mapping[str, Callable[["Entry"], None]]) -> dict[str, Any]:
    """Read a JSON object; entries of the named lists go one by one to their function, other fields are returned.

    Raises DataError naming the file and the entry that is cut off, of a wrong type, or that a function refuses.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return _Reader(path, text, lists).read()


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a list. where: file and place, for messages."""

    where: str
    fields: Mapping[str, Any]

    def error(self, detail: str) -> DataError:
        """What is wrong with this entry."""
        return DataError(f"{self.where}: {detail}")

    def get(self, name: str, *kinds: type) -> Any:
        """A field that must be there and be of one of these types; a bool is no number."""
        if name not in self.fields:
            raise self.error(f"no {name!r}; it has {', '.join(self.fields) or 'no fields'}")
        value = self.fields[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise self.error(f"{name}: expected {wanted}, got {_short(value)}")
        return value

    def optional(self, name: str, default: Any, *kinds: type) -> Any:
        """A field that may be absent or null, then `default`."""
        return default if self.fields.get(name) is None else self.get(name, *kinds)

    def numbers(self, name: str, length: int | None = None) -> list[float]:
        """A list of finite numbers."""
        value = self.get(name, list)
        return self.finite(value, name, length)

    def finite(self, value: object, name: str, length: int | None = None) -> list[float]:
        """A list of finite numbers somewhere in the field `name`."""
        if not isinstance(value, list) or (length is not None and len(value) != length):
            raise self.error(
                f"{name}: expected {length if length is not None else 'a list of'} numbers, got {_short(value)}"
            )
        for one in value:
            if not isinstance(one, int | float) or isinstance(one, bool) or not math.isfinite(one):
                raise self.error(f"{name}: expected finite numbers, got {_short(one)}")
        return value


class _Reader:
    def __init__(self, path: Path, text: str, lists: Mapping[str, Callable[[Entry], None]]) -> None:
        self.path, self.text, self.lists = path, text.removeprefix("\ufeff"), lists
        self.place = 0
        self.where = "the file"
        self.decoder = json.JSONDecoder()

    def read(self) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        if self._next() != "{":
            raise DataError(f"{self.path}: expected a JSON object ({{...}}) of lists, it begins {self.text[:20]!r}")
        self.place += 1
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise DataError(f"{self.path}: expected a field's name, got {_short(key)}")
            self.where = key
            self._skip(":")
            if key in self.lists:
                self._list(key)
            else:
                kept[key] = self._value()
            if self._next() == ",":
                self.place += 1
            elif self._next() != "}":
                self._refuse()
        return kept

    def _list(self, key: str) -> None:
        if self._next() != "[":
            raise DataError(f"{self.path}: {key}: expected a list, got {_short(self._value())}")
        self.place += 1
        take, number = self.lists[key], 0
        while self._next() != "]":
            self.where = f"{key}[{number}]"
            value = self._value()
            where = f"{self.path}: {self.where}"
            if not isinstance(value, dict):
                raise DataError(f"{where}: expected an object, got {_short(value)}")
            take(Entry(where, value))
            number += 1
            if self._next() == ",":
                self.place += 1
            elif self._next() != "]":
                self._refuse()
        self.place += 1

    def _next(self) -> str:
        text, place = self.text, self.place
        while place < len(text) and text[place] in _SPACES:
            place += 1
        self.place = place
        if place == len(text):
            self._refuse()
        return text[place]

    def _skip(self, wanted: str) -> None:
        if self._next() != wanted:
            self._refuse()
        self.place += 1

    def _value(self) -> Any:
        self._next()
        try:
            value, self.place = self.decoder.raw_decode(self.text, self.place)
        except json.JSONDecodeError as error:
            # an open string is reported where it begins, all else where the text stops making sense
            self.place = len(self.text) if error.msg.startswith("Unterminated") else error.pos
            self._refuse()
        except RecursionError:
            raise DataError(f"{self.path}: {self.where}: nested too deeply") from None
        return value

    def _refuse(self) -> NoReturn:
        place = self.place
        if place >= len(self.text) - 1 or not self.text[place:].strip():
            end = f"character {len(self.text):,}"
            raise DataError(f"{self.path}: the file ends in {self.where} ({end}); it is cut off, fetch it anew")
        line = self.text.count("\n", 0, place) + 1
        raise DataError(f"{self.path}: {self.where}: no JSON at line {line}: {self.text[place : place + 20]!r}")


def as_entries(where: str, name: str, value: object) -> Iterator[Entry]:
    """A list of objects that was read whole, as entries. where: what `name` is a field of."""
    if not isinstance(value, list):
        raise DataError(f"{where}: {name}: expected a list, got {_short(value)}")
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise DataError(f"{where}: {name}[{number}]: expected an object, got {_short(one)}")
        yield Entry(f"{where}: {name}[{number}]", one)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
