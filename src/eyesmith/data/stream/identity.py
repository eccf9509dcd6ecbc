"""Which data a stream reads: enough of every shard to notice another one in its place, and to say what differs."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eyesmith.data.stream.places import file_system
from eyesmith.files import open_binary, read_at

_WHOLE_BYTES = 1 << 20  # shards up to this size are read whole
_END_BYTES = 1 << 16  # of larger ones: of the start, and of the end
_BLOCK_BYTES, _NUM_BLOCKS = 1 << 12, 6  # and some between, as far apart as they can be


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """A shard by what it holds, wherever it lies.

    name: its file name; num_samples: those that are used, or the stated number; num_bytes: -1 where the server does not
    say; mark: of its content, as `kind:value`. Kinds: `members` (every member's name, place and size, every text, the
    end of every image, and `sample`), `sample` (the first and last 64 KiB and some between), else the server's checksum
    under its name; "" where there is none.
    """

    name: str
    num_samples: int
    num_bytes: int
    mark: str


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """The shards of one source, in order."""

    path: str
    weight: float
    shards: Sequence[ShardFacts]


def sample_mark(path: str, num_bytes: int) -> str:
    """The mark `sample` of a local shard. Raises OSError."""
    descriptor = open_binary(path)
    try:
        return _sample_mark(num_bytes, lambda start, size: read_at(descriptor, size, start))
    finally:
        os.close(descriptor)


def remote_sample_mark(address: str, num_bytes: int) -> str:
    """The mark `sample` of a remote shard, in a few small requests. Raises OSError."""
    files, place = file_system(address)
    return _sample_mark(num_bytes, lambda start, size: files.cat_file(place, start=start, end=start + size))


def members_mark(digest: str, sample: str) -> str:
    """The mark `members` from an index's digest and the mark `sample`, which is read anew each time."""
    return f"members:{hashlib.sha256(f'{digest} {sample}'.encode(errors='surrogatepass')).hexdigest()[:32]}"


def described(sources: Iterable[SourceFacts], order: dict[str, Any]) -> dict[str, Any]:
    """Data and order as JSON values: `order` as given, `sources`, each with `path`, `weight` and `shards` (name, number
    of samples, bytes, mark), about 80 bytes a shard."""
    return {
        "order": order,
        "sources": [
            {
                "path": source.path,
                "weight": source.weight,
                "shards": [[one.name, one.num_samples, one.num_bytes, one.mark] for one in source.shards],
            }
            for source in sources
        ],
    }


def fingerprint(description: dict[str, Any]) -> str:
    """SHA-256 of what `described` gave, but for where the sources lie and the seed."""
    order = {name: value for name, value in description["order"].items() if name != "seed"}
    sources = [[source["weight"], source["shards"]] for source in description["sources"]]
    return hashlib.sha256(json.dumps([order, sources], sort_keys=True).encode()).hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two values of `described`, a sentence each; none where a run can go on.

    Where a source lies is no difference. Marks are compared where both are of one kind: of a set that moved from a
    server to a disk, names, numbers of samples and sizes are.
    """
    found = [
        f"{name}: {before['order'].get(name)} before, now {now['order'].get(name)}"
        for name in dict.fromkeys((*before["order"], *now["order"]))
        if before["order"].get(name) != now["order"].get(name)
    ]
    if len(before["sources"]) != len(now["sources"]):
        return [*found, f"sources: {len(before['sources'])} before, now {len(now['sources'])}"]
    for one, other in zip(before["sources"], now["sources"], strict=True):
        if one["weight"] != other["weight"]:
            found.append(f"{other['path']}: its weight was {one['weight']:g}, now {other['weight']:g}")
        found.extend(f"{other['path']}: {what}" for what in _shard_differences(one["shards"], other["shards"]))
    return found


def _shard_differences(before: list[list[Any]], now: list[list[Any]]) -> list[str]:
    old, new = _by_name(before), _by_name(now)
    gone = [name for name, _ in old if (name, _) not in new]
    added = [name for name, _ in new if (name, _) not in old]
    changed = [(key[0], facts, new[key]) for key, facts in old.items() if key in new and _is_other(facts, new[key])]
    found = [
        f"{_count(names)} {word}, the first is {names[0]}"
        for names, word in ((added, "added"), (gone, "gone"))
        if names
    ]
    if changed:
        name, (_, samples, size, _), (_, samples_now, size_now, _) = changed[0]
        found.append(
            f"{_count(changed)} with other content, the first is {name} ({samples:,} samples in {size:,} bytes before, "
            f"now {samples_now:,} in {size_now:,})"
        )
    if not gone and not added and list(old) != list(new):
        found.append("the shards come in another order")
    return found


def _by_name(shards: list[list[Any]]) -> dict[tuple[str, int], list[Any]]:
    """Facts by file name and, of several folders' equal names, by which of them it is."""
    times: dict[str, int] = {}
    found = {}
    for facts in shards:
        times[facts[0]] = times.get(facts[0], 0) + 1
        found[facts[0], times[facts[0]]] = facts
    return found


def _is_other(before: Sequence[Any], now: Sequence[Any]) -> bool:
    (_, samples, size, mark), (_, samples_now, size_now, mark_now) = before, now
    is_comparable = mark.partition(":")[0] == mark_now.partition(":")[0]
    return (
        samples != samples_now
        or (min(size, size_now) >= 0 and size != size_now)
        or (is_comparable and mark != mark_now)
    )


def _count(found: Sequence[Any]) -> str:
    return f"{len(found):,} shard{'s' if len(found) > 1 else ''}"


def _sample_mark(num_bytes: int, read: Callable[[int, int], bytes]) -> str:
    if num_bytes <= _WHOLE_BYTES:
        pieces = [(0, num_bytes)]
    else:
        gap = (num_bytes - 2 * _END_BYTES - _BLOCK_BYTES) // (_NUM_BLOCKS + 1)
        blocks = [(_END_BYTES + gap * (number + 1), _BLOCK_BYTES) for number in range(_NUM_BLOCKS)]
        pieces = [(0, _END_BYTES), *blocks, (num_bytes - _END_BYTES, _END_BYTES)]
    digest = hashlib.sha256(str(num_bytes).encode())
    for start, size in pieces:
        digest.update(read(start, size))
    return f"sample:{digest.hexdigest()[:32]}"
