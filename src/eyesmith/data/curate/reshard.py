"""Shards of a subset out of the shards of a pool, in DataComp's layout.

Every sample whose json says a uid of the subset is written as often as the uid stands there, as `<uid>-<copy>`, into
`00000000.tar` ... with `00000000_stats.json` beside each, `sample_ids.npy` and at last `meta.json`, which the track's
trainer reads. What goes into which shard is laid out before anything is written, so it does not depend on the number of
workers, and a run that was stopped goes on with the shards that are missing.
"""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyesmith.data.curate.places import Executor, Progress, open_mapper
from eyesmith.data.curate.samples import ShardSamples
from eyesmith.data.curate.uids import multiplicities, parse_uids, read_subset, write_subset
from eyesmith.data.stream.fetch import ShardCache
from eyesmith.data.stream.places import list_shards
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import atomic_path, cache_folder, sha256_file, write_json

SHARD_FORMAT = "{:08d}.tar"
META_FILE, IDS_FILE, UNFINISHED_FILE = "meta.json", "sample_ids.npy", "reshard.json"
_BLOCK = 512  # of a tar: one for a member's header, and the content in whole ones


@dataclass(frozen=True, kw_only=True)
class ReshardConfig:
    """Limits of the output shards, and what to do."""

    shard_samples: int = 10_000
    """Most samples in a shard."""
    shard_bytes: int = 3_000_000_000
    """Most bytes in a shard, tar headers included; one larger sample has a shard of its own."""
    shuffle_window: int = 0
    """Shuffle within so many consecutive samples; 0 keeps the order of the input."""
    seed: int = 0
    """Of the shuffle."""
    dry_run: bool = False
    """Count only, write nothing."""
    cache_bytes: int = 100_000_000_000
    """Room for copies of remote shards."""

    def __post_init__(self) -> None:
        for name, least in (("shard_samples", 1), ("shard_bytes", 1), ("shuffle_window", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ReshardReport:
    """What was found and written. broken: samples and shards that could not be used, by kind."""

    shards_in: int
    samples_in: int
    samples_found: int
    samples_out: int
    shards_out: int
    subset_rows: int
    subset_missing: int
    broken: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Found:
    """Samples of one shard that the subset has. num_bytes: of all members in a tar; copies: at least 1 each."""

    keys: list[str]
    uids: list[str]
    num_bytes: np.ndarray
    copies: np.ndarray
    num_samples: int
    broken: dict[str, int]


@dataclass(frozen=True, slots=True)
class _OutShard:
    """One shard to write: rows of (input shard, key, name without extension)."""

    number: int
    rows: list[tuple[str, str, str]]


def reshard(
    shards: str | os.PathLike[str],
    subset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: ReshardConfig | None = None,
    workers: int = 1,
    executor: Executor = "local",
    on_progress: Progress | None = None,
) -> ReshardReport:
    """Write the shards of a subset file. shards: a folder, pattern or address of tars; out: a local folder.

    Samples without a uid or a picture are counted and left out. Raises DataError when nothing is found, ConfigError
    when `out` holds something else.
    """
    config = config or ReshardConfig()
    listed = list_shards(shards)
    ids = read_subset(subset)
    folder = Path(out).absolute()
    cache = (str(cache_folder() / "shards"), config.cache_bytes)
    with open_mapper(executor, workers, on_progress) as mapper:
        steps = [(shard, os.path.abspath(subset), cache) for shard in listed]
        found: list[_Found] = list(mapper("read", _find, steps))
        planned = _lay_out(listed, found, config)
        report = _report(listed, found, planned, ids)
        if not planned:
            raise DataError(
                f"{shards}: none of its {report.samples_in:,} samples is in {subset} ({len(ids):,} rows); "
                "is it the subset of another pool?"
            )
        if config.dry_run:
            return report
        _claim(folder, listed, found, subset, config)
        for _ in mapper("write", _write, [(folder, shard, cache) for shard in planned]):
            pass
    write_subset(folder / IDS_FILE, ids)
    write_json(
        folder / META_FILE,
        {
            **report.as_dict(),
            "output_shard_count": len(planned),
            "output_shard_format": SHARD_FORMAT,
            "input": os.fspath(shards),
            "shard_samples": config.shard_samples,
            "shard_bytes": config.shard_bytes,
            "shuffle_window": config.shuffle_window,
            "seed": config.seed,
        },
    )
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)
    return report


def _find(item: tuple[str, str, tuple[str, int]]) -> _Found:
    shard, subset, (cache_place, cache_bytes) = item
    cache = ShardCache(cache_place, limit_bytes=cache_bytes)
    broken: Counter[str] = Counter()
    keys, uids, sizes = [], [], []
    try:
        local = cache.hold(shard)
    except DataError:
        return _Found([], [], np.zeros(0, np.int64), np.zeros(0, np.int64), 0, {"unreadable_shard": 1})
    try:
        with ShardSamples(local) as samples:
            if samples.tar.damage:
                broken["damaged_shard"] += 1
            num_samples = len(samples)
            for sample in samples:
                if not sample.has_image:
                    broken["missing_image"] += 1
                elif not _is_uid(sample.uid):
                    broken["missing_uid"] += 1
                else:
                    keys.append(sample.key)
                    uids.append(sample.uid)
                    sizes.append(sum(_BLOCK + -(-member.size // _BLOCK) * _BLOCK for member in sample.members.values()))
    except DataError:
        return _Found([], [], np.zeros(0, np.int64), np.zeros(0, np.int64), 0, {"unreadable_shard": 1})
    finally:
        cache.release(shard)
    copies = multiplicities(read_subset(subset), parse_uids(uids))
    kept = np.flatnonzero(copies)
    return _Found(
        [keys[row] for row in kept],
        [uids[row].lower() for row in kept],
        np.array(sizes, dtype=np.int64)[kept],
        copies[kept],
        num_samples,
        dict(broken),
    )


def _lay_out(shards: Sequence[str], found: Sequence[_Found], config: ReshardConfig) -> list[_OutShard]:
    places = [(number, row) for number, part in enumerate(found) for row in range(len(part.keys))]
    rows = [(number, row, copy) for number, row in places for copy in range(int(found[number].copies[row]))]
    if config.shuffle_window:
        rng = np.random.default_rng(config.seed)
        for start in range(0, len(rows), config.shuffle_window):
            window = rows[start : start + config.shuffle_window]
            rows[start : start + len(window)] = [window[place] for place in rng.permutation(len(window))]
    planned: list[_OutShard] = []
    held: list[tuple[str, str, str]] = []
    num_bytes = 2 * _BLOCK  # the end mark
    for number, row, copy in rows:
        part = found[number]
        size = int(part.num_bytes[row])
        if held and (len(held) == config.shard_samples or num_bytes + size > config.shard_bytes):
            planned.append(_OutShard(len(planned), held))
            held, num_bytes = [], 2 * _BLOCK
        held.append((shards[number], part.keys[row], f"{part.uids[row]}-{copy}"))
        num_bytes += size
    return [*planned, _OutShard(len(planned), held)] if held else planned


def _write(item: tuple[Path, _OutShard, tuple[str, int]]) -> None:
    folder, shard, (cache_place, cache_bytes) = item
    path = folder / SHARD_FORMAT.format(shard.number)
    stats = path.with_name(f"{path.stem}_stats.json")
    if path.is_file() and stats.is_file():  # written before the run was stopped: the numbers follow the shard
        return
    cache = ShardCache(cache_place, limit_bytes=cache_bytes)
    open_shards: dict[str, ShardSamples] = {}
    try:
        with atomic_path(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for source, key, name in shard.rows:
                if source not in open_shards:
                    open_shards[source] = ShardSamples(cache.hold(source))
                sample = open_shards[source].sample(key)
                for extension in sample.members:
                    content = sample.content(extension)
                    info = tarfile.TarInfo(f"{name}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    finally:
        for source, samples in open_shards.items():
            samples.close()
            cache.release(source)
    write_json(stats, {"successes": len(shard.rows)})


def _report(shards: Sequence[str], found: Sequence[_Found], planned: Sequence[_OutShard], ids: Any) -> ReshardReport:
    broken: Counter[str] = Counter()
    for part in found:
        broken.update(part.broken)
    present = np.unique(parse_uids([uid for part in found for uid in part.uids]))
    covered = int(multiplicities(ids, present).sum()) if len(present) else 0
    return ReshardReport(
        shards_in=len(shards),
        samples_in=sum(part.num_samples for part in found),
        samples_found=sum(len(part.keys) for part in found),
        samples_out=sum(len(shard.rows) for shard in planned),
        shards_out=len(planned),
        subset_rows=len(ids),
        subset_missing=len(ids) - covered,
        broken=dict(broken),
    )


def _claim(
    folder: Path, shards: Sequence[str], found: Sequence[_Found], subset: str | os.PathLike[str], config: ReshardConfig
) -> None:
    parts = [[shard.rpartition("/")[2], len(part.keys), int(part.num_bytes.sum())]
             for shard, part in zip(shards, found, strict=True)]  # fmt: skip
    limits = {name: value for name, value in asdict(config).items() if name != "cache_bytes"}
    facts = json.dumps([parts, sha256_file(subset), limits])
    identity = {"digest": hashlib.sha256(facts.encode()).hexdigest()}
    file = folder / UNFINISHED_FILE
    if file.is_file() and json.loads(file.read_text("utf-8")) == identity:
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: expected an empty folder, or one where the same resharding was stopped")
    write_json(file, identity)


def _is_uid(uid: str) -> bool:
    return len(uid) == 32 and all(character in "0123456789abcdefABCDEF" for character in uid)
