"""Which shards a path, a pattern or an address stands for, and what is said of them beside them."""

import math
import os
import posixpath
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.data.sources import expand_names, expand_pattern, natural_key
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.files import load_json

_COUNT_FILE = "sizes.json"  # {"00000.tar": 8123, ...}: what open_clip reads beside its shards
_AT_ONCE = 4096  # small files asked of a server together
_FEW = 256  # shards that a server is asked about one by one where it cannot list them
_CHECKSUMS = ("md5Hash", "content_md5", "crc32c", "ETag", "etag")  # in fsspec's facts; times say nothing of the content


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


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a server says of a shard: its bytes, -1 where it does not say, and a checksum with its name, or ""."""

    num_bytes: int
    checksum: str


def default_lanes(paths: Sequence[str], *, num_machines: int, batch_size: int) -> int:
    """Lanes of a batch so that each machine fetches its own shards; 0, which leaves it at one, if all are local."""
    return math.gcd(num_machines, batch_size) if any(map(is_remote, paths)) else 0


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
    counts: list[object] = [None] * len(shards)
    for folder, numbers in _by_folder(shards).items():
        (sizes,) = _read_json([f"{folder}/{_COUNT_FILE}"])
        for number in numbers:
            counts[number] = sizes.get(shards[number].rpartition("/")[2])
        left = [number for number in numbers if counts[number] is None]
        for begin in range(0, len(left), _AT_ONCE):
            some = left[begin : begin + _AT_ONCE]
            stats = _read_json([f"{shards[number].removesuffix('.tar')}_stats.json" for number in some])
            for number, found in zip(some, stats, strict=True):
                counts[number] = _checked(shards[number], found.get("successes"))
    return [_checked(shard, count) for shard, count in zip(shards, counts, strict=True)]


def _checked(shard: str, count: object) -> int:
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return count
    folder, _, name = shard.rpartition("/")
    raise DataError(
        f"{shard}: no number of samples beside it; expected {folder}/{_COUNT_FILE} or "
        f"{name.removesuffix('.tar')}_stats.json (img2dataset); or let the shards' headers be read: "
        "data.epoch_samples=0, in Python ShardStream(counts='index')"
    )


def remote_facts(shards: Sequence[str]) -> dict[str, RemoteFacts]:
    """What servers say of remote shards: one listing of each folder, and no question about a shard.

    Where a server does not list (HTTP, a bucket that may only be read), up to 256 shards are asked for one by one; of
    more than that nothing is known. Raises DataError naming the first that a listed folder lacks.
    """
    found: dict[str, RemoteFacts] = {}
    for folder, numbers in _by_folder(shards).items():
        listing = _listing(folder)
        if listing:
            inside = [shards[number] for number in numbers]
            missing = [shard for shard in inside if shard.rpartition("/")[2] not in listing]
            if missing:
                raise DataError(f"{folder}: {len(missing):,} shards do not exist, the first is {missing[0]}")
            found.update({shard: _facts_of(listing[shard.rpartition("/")[2]]) for shard in inside})
    left = [shard for shard in shards if shard not in found]
    if len(left) <= _FEW:
        with ThreadPoolExecutor(16) as threads:
            found.update(zip(left, threads.map(_ask, left), strict=True))
    return found


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingDependencyError(f"{address}: this kind of address needs one more package: {error}") from error
    except ValueError as error:
        raise DataError(f"{address}: expected an address fsspec can open: {error}") from error


def _by_folder(shards: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, shard in enumerate(shards):
        found.setdefault(shard.rpartition("/")[0], []).append(number)
    return found


def _list_remote(address: str) -> list[str]:
    names = expand_names(address)
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


def _listing(folder: str) -> dict[str, dict[str, Any]]:
    """fsspec's facts of the files of a folder by their names, {} where it cannot be listed."""
    files, path = file_system(folder)
    if folder.startswith("http"):  # a page of links, without sizes
        return {}
    try:
        return {one["name"].rpartition("/")[2]: one for one in files.ls(path, detail=True)}
    except (OSError, NotImplementedError):
        return {}


def _ask(shard: str) -> RemoteFacts:
    files, path = file_system(shard)
    try:
        return _facts_of(files.info(path))
    except FileNotFoundError as error:
        raise DataError(f"{shard}: no such shard") from error
    except OSError:
        return RemoteFacts(-1, "")


def _facts_of(facts: dict[str, Any]) -> RemoteFacts:
    size = facts.get("size")
    name = next((name for name in _CHECKSUMS if facts.get(name)), "")
    return RemoteFacts(size if isinstance(size, int) else -1, f"{name.lower()}:{facts[name]}" if name else "")


def _read_json(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Contents of JSON objects of one folder, {} where there is no such file."""
    contents: list[Any] = []
    if is_remote(paths[0]):
        files, _ = file_system(paths[0])
        places = [files._strip_protocol(path) for path in paths]
        answers = files.cat(places, on_error="return")  # of a server, many at once
        contents = [answers[place] for place in places]
    else:
        for path in paths:
            try:
                contents.append(Path(path).read_bytes())
            except OSError as error:
                contents.append(error)
    found = []
    for path, content in zip(paths, contents, strict=True):
        if isinstance(content, (FileNotFoundError, IsADirectoryError)):
            found.append({})
            continue
        if isinstance(content, Exception):
            raise DataError(f"{path}: cannot be read: {content}") from content
        try:
            value = load_json(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as JSON ({error})") from error
        found.append(value if isinstance(value, dict) else {})
    return found
