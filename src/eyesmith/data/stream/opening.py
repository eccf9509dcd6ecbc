"""Opening shards: listed once, counted once over all processes, judged, and described."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from eyesmith.data.sample import Finding
from eyesmith.data.stream.fetch import ShardCache
from eyesmith.data.stream.identity import ShardFacts, SourceFacts, members_mark, remote_sample_mark, sample_mark
from eyesmith.data.stream.index import prune_indices, shard_index
from eyesmith.data.stream.places import RemoteFacts, ShardSource, is_remote, list_shards, remote_facts, stated_counts
from eyesmith.errors import ConfigError, DataError

Result = TypeVar("Result")
Counts = Literal["index", "stated"]
_SHARD_FAULTS = ("unreadable_shard", "truncated_tar", "damaged_tar")  # counted once a shard
_FEW = 256  # remote shards without a checksum that are looked into
_MAX_EXAMPLES = 1000  # findings of one process


class Exchange(Protocol):
    """How the processes of a run share what one of them found; each of them calls it at the same point."""

    def once(self, action: Callable[[], Result]) -> Result:
        """Run `action` in one process and give its result, or its error, to all."""
        ...

    def gather(self, value: Result) -> list[Result]:
        """Every process's value, in order of their ranks."""
        ...


class Alone:
    """The exchange of a process that shares with nobody."""

    def once(self, action: Callable[[], Result]) -> Result:
        """Run `action`."""
        return action()

    def gather(self, value: Result) -> list[Result]:
        """The value."""
        return [value]


@dataclass(frozen=True, kw_only=True)
class OpenedShards:
    """What is known of the shards before the first step, the same in every process.

    shards: addresses, source after source; sources: their facts; groups: numbers of samples of the shards, group by
    group; weights: one a group, or none; sizes: bytes of remote shards; broken, skipped: what counting left out.
    """

    shards: list[str]
    sources: list[SourceFacts]
    groups: list[list[int]]
    weights: tuple[float, ...]
    sizes: dict[str, int]
    broken: "Counter[tuple[str, str]]"
    skipped: list[Finding]


@dataclass(slots=True)
class _Seen:
    """What one process found of its part of the shards. facts: by the shard's number."""

    facts: dict[int, ShardFacts] = field(default_factory=dict)
    broken: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    skipped: list[Finding] = field(default_factory=list)


def open_shards(
    sources: Sequence[ShardSource],
    cache: ShardCache,
    *,
    counts: Counts,
    max_skipped_frac: float,
    exchange: Exchange | None,
    rank: int,
    world_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> OpenedShards:
    """List and count the shards of some sources.

    One process lists, and reads the stated counts; the shards that must be looked into are divided among all. Without
    an exchange this process does all of it. Raises what listing, fetching and counting raise, in every process;
    DataError when more than max_skipped_frac of the samples, or of the shards, cannot be used.
    """
    weights = _weights(sources)
    if counts not in ("index", "stated"):
        raise ConfigError(f"counts: expected 'index' or 'stated', got {counts!r}")
    shared = exchange or Alone()
    listed, stated, remote = shared.once(lambda: _listed(sources, counts))
    if stated is None:
        prune_indices()
    shards = [shard for some in listed for shard in some]
    cache.know({shard: facts.num_bytes for shard, facts in remote.items() if facts.num_bytes >= 0})
    part = range(rank, len(shards), world_size)
    if exchange is None:  # processes of one machine find each other's indices: each begins at another place
        begin = rank * len(shards) // world_size
        part = (*range(begin, len(shards)), *range(begin))
    seen = _all(shared.gather(_tried(lambda: _look(shards, part, stated, remote, cache, on_progress))))
    facts = [seen.facts[number] for number in range(len(shards))]
    _judge(seen, facts, max_skipped_frac)
    left = iter(facts)
    found = [
        SourceFacts(path=source.path, weight=source.weight, shards=[next(left) for _ in some])
        for source, some in zip(sources, listed, strict=True)
    ]
    sizes = [[one.num_samples for one in source.shards] for source in found]
    return OpenedShards(
        shards=shards,
        sources=found,
        groups=sizes if weights else [[size for some in sizes for size in some]],
        weights=weights,
        sizes={shard: one.num_bytes for shard, one in zip(shards, facts, strict=True) if is_remote(shard)},
        broken=seen.broken,
        skipped=seen.skipped[:_MAX_EXAMPLES],
    )


def worst(broken: "Counter[tuple[str, str]]", skipped: Sequence[Finding]) -> str:
    """The most frequent faults for an error's message, with an example of the first."""
    shown = [f"{count:,} {kind} in {shard}" for (kind, shard), count in broken.most_common(3)]
    first = next((one for one in skipped if one.kind == broken.most_common(1)[0][0][0]), None)
    return "; ".join(shown) + (f" (first: {first.key or first.where}: {first.detail})" if first else "")


def _weights(sources: Sequence[ShardSource]) -> tuple[float, ...]:
    """One weight a source; none where all shards are one group."""
    if not sources:
        raise ConfigError("sources: expected one or more")
    weights = tuple(source.weight for source in sources)
    if any(weights) and not all(weights):
        raise ConfigError(f"weights: expected one above 0 for every source or for none, got {weights}")
    return weights if len(sources) > 1 and any(weights) else ()


def _listed(
    sources: Sequence[ShardSource], counts: Counts
) -> tuple[list[list[str]], list[int] | None, dict[str, RemoteFacts]]:
    listed = [list_shards(source.path) for source in sources]
    shards = [shard for some in listed for shard in some]
    shard, times = Counter(shards).most_common(1)[0]
    if times > 1:
        raise DataError(f"{shard}: given {times} times; give a weight instead")
    stated = stated_counts(shards) if counts == "stated" else None
    return listed, stated, _remote(list(filter(is_remote, shards)), is_counted=stated is None)


def _remote(shards: list[str], *, is_counted: bool) -> dict[str, RemoteFacts]:
    """What is known of remote shards without fetching them; where they will be counted, their bytes are enough."""
    found = remote_facts(shards)
    unmarked = [shard for shard in shards if shard in found and not found[shard].checksum]
    if is_counted or len(unmarked) > _FEW:
        return found

    def look(shard: str) -> RemoteFacts:
        num_bytes = found[shard].num_bytes
        try:
            return RemoteFacts(num_bytes, remote_sample_mark(shard, num_bytes) if num_bytes >= 0 else "")
        except OSError:
            return found[shard]

    with ThreadPoolExecutor(16) as threads:
        return found | dict(zip(unmarked, threads.map(look, unmarked), strict=True))


def _look(
    shards: Sequence[str],
    part: Sequence[int],
    stated: Sequence[int] | None,
    remote: dict[str, RemoteFacts],
    cache: ShardCache,
    on_progress: Callable[[int, int], None] | None,
) -> _Seen:
    seen = _Seen()
    for done, number in enumerate(part, start=1):
        shard = shards[number]
        name = shard.rpartition("/")[2]
        if stated is None:
            seen.facts[number] = _counted(shard, name, cache, seen)
        elif is_remote(shard):
            facts = remote.get(shard, RemoteFacts(-1, ""))
            seen.facts[number] = ShardFacts(name, stated[number], facts.num_bytes, facts.checksum)
        else:
            seen.facts[number] = ShardFacts(name, stated[number], *_sampled(shard))
        if on_progress is not None:
            on_progress(done, len(part))
    return seen


def _counted(shard: str, name: str, cache: ShardCache, seen: _Seen) -> ShardFacts:
    path = cache.hold(shard)
    try:
        index = shard_index(path)
        num_bytes, sample = _sampled(path)
    finally:
        cache.release(shard)
    for kind, count in index.broken.items():
        seen.broken[kind, name] += count
    for kind, (key, detail) in index.first.items():
        if len(seen.skipped) < _MAX_EXAMPLES:
            seen.skipped.append(Finding(kind, "error", key, name, detail))
    return ShardFacts(name, len(index), num_bytes, members_mark(index.digest, sample))


def _sampled(path: str) -> tuple[int, str]:
    """Bytes and mark of a local file; -1 and none when it cannot be read, which reading it will tell."""
    try:
        num_bytes = os.stat(path).st_size
        return num_bytes, sample_mark(path, num_bytes)
    except OSError:
        return -1, ""


def _tried(action: Callable[[], Result]) -> Result | Exception:
    """The result or the error: a process that fails must not leave the others waiting for its part."""
    try:
        return action()
    except Exception as error:
        return error


def _all(parts: "Sequence[_Seen | Exception]") -> _Seen:
    seen = _Seen()
    for part in parts:
        if isinstance(part, Exception):
            raise part
        seen.facts |= part.facts
        seen.broken.update(part.broken)
        seen.skipped.extend(part.skipped)
    return seen


def _judge(seen: _Seen, facts: Sequence[ShardFacts], max_frac: float) -> None:
    num_samples = sum(one.num_samples for one in facts)
    lost = sum(count for (kind, _), count in seen.broken.items() if kind not in _SHARD_FAULTS)
    bad_shards = len({shard for kind, shard in seen.broken if kind in _SHARD_FAULTS})
    is_nothing_left = num_samples == 0 and bool(seen.broken)
    if is_nothing_left or lost > max_frac * (num_samples + lost) or bad_shards > max_frac * len(facts):
        raise DataError(
            f"{lost:,} of {num_samples + lost:,} samples and {bad_shards:,} of {len(facts):,} shards cannot be "
            f"used, {max_frac:.1%} are allowed: {worst(seen.broken, seen.skipped)}; "
            "`eyesmith data check` lists them all"
        )
