"""Which shards a path, a pattern or an address stands for, and how many samples they are said to hold."""

import json
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.data.sources import expand_braces, expand_pattern, natural_key
from eyesmith.errors import ConfigError, DataError, MissingDependencyError

_COUNT_FILES = ("sizes.json",)  # {"00000.tar": 8123, ...}: what open_clip reads beside its shards


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """Shards that belong together."""

    path: str
    """A folder of tars, one tar, or a pattern such as "pairs-{0000..0099}.tar", local or at an address (s3://...)."""
    weight: float = 0.0
    """Share of the rows, relative to the other sources. 0 for all of them: every sample once an epoch."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"weight of {self.path}: expected 0 or more, got {self.weight}")


def is_remote(path: str) -> bool:
    """Whether a path is an address that fsspec opens; file:// is local."""
    return "://" in path and not path.startswith("file://")


def list_shards(path: str | os.PathLike[str]) -> list[str]:
    """The shards of a source, in order: absolute local paths, or addresses.

    Braces count as the pattern says; matches of * and the tars of a folder are sorted, numbers by value. Raises
    DataError when there are none, MissingDependencyError when the address needs a package that is not installed.
    """
    text = os.fspath(path)
    if text.startswith("pipe:"):
        raise DataError(f"{text}: commands are not run as shards; give the address itself, such as s3://bucket/x.tar")
    if is_remote(text):
        return _list_remote(text)
    text = text.removeprefix("file://")
    place = Path(text)
    if place.is_dir():
        found = sorted((file for file in place.glob("*.tar") if file.name[0] != "."), key=lambda f: natural_key(f.name))
        if not found:
            raise DataError(f"{place}: expected a folder of shards (*.tar), found none")
    elif place.is_file():
        found = [place]
    else:
        found = expand_pattern(text)
    return [str(file.absolute()) for file in found]


def stated_counts(shards: Sequence[str]) -> list[int]:
    """Samples of each shard as written beside them: `sizes.json` of open_clip, else img2dataset's NNNNN_stats.json.

    Nothing of the shards themselves is read. Raises DataError naming the first shard without a number.
    """
    sizes: dict[str, dict[str, Any]] = {}
    counts = []
    for shard in shards:
        folder, _, name = shard.rpartition("/")
        if folder not in sizes:
            sizes[folder] = next(filter(None, (_read_json(f"{folder}/{file}") for file in _COUNT_FILES)), {})
        count = sizes[folder].get(name)
        if count is None:
            count = _read_json(f"{shard.removesuffix('.tar')}_stats.json").get("successes")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise DataError(
                f"{shard}: no number of samples beside it; expected {folder}/{_COUNT_FILES[0]} or "
                f"{name.removesuffix('.tar')}_stats.json (img2dataset), or counts='index' to read the shards' headers"
            )
        counts.append(count)
    return counts


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(f"{address}: reading remote shards needs fsspec: pip install fsspec") from error
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingDependencyError(f"{address}: this kind of address needs one more package: {error}") from error
    except ValueError as error:
        raise DataError(f"{address}: expected an address fsspec can open: {error}") from error


def _list_remote(address: str) -> list[str]:
    names = list(expand_braces(address))
    if len(names) == 1 and not re.search(r"[*?\[]", names[0]) and not posixpath.basename(names[0]).endswith(".tar"):
        names = [names[0].rstrip("/") + "/*.tar"]
    found: list[str] = []
    for name in names:
        if re.search(r"[*?\[]", name):
            files, path = file_system(name)
            try:
                matches = sorted(files.glob(path), key=natural_key)
            except OSError as error:
                raise DataError(f"{name}: cannot be listed: {error}") from error
            if not matches:
                raise DataError(f"{name}: no shard matches")
            found.extend(files.unstrip_protocol(match) for match in matches)
        else:
            found.append(name)
    return found


def _read_json(path: str) -> dict[str, Any]:
    """Content of a JSON object, {} when there is no such file."""
    try:
        if is_remote(path):
            files, place = file_system(path)
            content = files.cat_file(place)
        else:
            content = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    return value if isinstance(value, dict) else {}
