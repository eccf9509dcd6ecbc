"""Shards of a subset out of the shards of a pool, in DataComp's layout.

Every sample whose json says a uid of the subset is written as often as the uid stands there, as `<uid>-<copy>`, into
`00000000.tar` ... with `00000000_stats.json` beside each, `sample_ids.npy` and at last `meta.json`, which the track's
trainer reads. What goes into which shard is laid out before anything is written, so it does not depend on the number of
workers, and a run that was stopped goes on with the shards that are missing.

The process that lays out holds 24 bytes for every sample found and one for every row of the subset, and no names: a
sample is a shard, its place there, and its place in the subset, which is its uid. The layout is a file beside the
shards, of which every writer maps its own rows.
"""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.curate.layout import BLOCK, ROW, lay_out
from eyesmith.data.curate.places import Executor, Progress, open_mapper
from eyesmith.data.curate.samples import ShardSamples
from eyesmith.data.curate.uids import find_uids, format_uids, read_subset, try_uids, write_subset
from eyesmith.data.stream.fetch import ShardCache
from eyesmith.data.stream.places import list_shards
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import atomic_path, cache_folder, load_json, sha256_file, write_json
from eyesmith.writer import content, one_writer

SHARD_FORMAT = "{:08d}.tar"
META_FILE, IDS_FILE, UNFINISHED_FILE, LAYOUT_FILE = "meta.json", "sample_ids.npy", "reshard.json", "reshard.rows"


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
        for name, least in (
            ("shard_samples", 1),
            ("shard_bytes", 1),
            ("shuffle_window", 0),
            ("seed", 0),
            ("cache_bytes", 1),
        ):
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
    """Samples of one shard that the subset has: rows of ROW."""

    rows: NDArray[np.void]
    num_samples: int
    broken: Counter[str]


@dataclass(frozen=True, slots=True)
class _OutShard:
    """One shard to write: rows start to stop of the layout in `folder`."""

    folder: Path
    number: int
    start: int
    stop: int
    cache: tuple[str, int]


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

    Samples without a uid or a picture, and later ones of a uid that was found before, are counted and left out. Raises
    DataError when nothing is found, ConfigError when `out` holds something else, or another process is writing to it.
    """
    config = config or ReshardConfig()
    with nullcontext() if config.dry_run else one_writer(out):
        return _reshard(shards, subset, out, config, workers=workers, executor=executor, on_progress=on_progress)


def _reshard(
    shards: str | os.PathLike[str],
    subset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: ReshardConfig,
    *,
    workers: int,
    executor: Executor,
    on_progress: Progress | None,
) -> ReshardReport:
    listed = list_shards(shards)
    ids = read_subset(subset)
    folder = Path(out).absolute()
    cache = (str(cache_folder() / "shards"), config.cache_bytes)
    held = bytearray()  # of ROW: grows in place
    is_seen = np.zeros(len(ids), dtype=bool)
    broken: Counter[str] = Counter()
    parts: list[tuple[str, int, int]] = []  # of each shard: name, samples, bytes
    num_samples = 0
    with open_mapper(executor, workers, on_progress) as mapper:
        steps = [(number, shard, os.path.abspath(subset), cache) for number, shard in enumerate(listed)]
        for shard, found in zip(listed, mapper("read", _find, steps), strict=True):
            _, first = np.unique(found.rows["place"], return_index=True)
            first.sort()
            first = first[~is_seen[found.rows["place"][first]]]
            rows = found.rows[first]
            is_seen[rows["place"]] = True
            held += rows.tobytes()
            broken.update(found.broken)
            broken.update({"repeated_uid": len(found.rows) - len(rows)} if len(rows) < len(found.rows) else {})
            num_samples += found.num_samples
            parts.append((shard.rpartition("/")[2], len(rows), int(rows["blocks"].sum(dtype=np.int64)) * BLOCK))
        samples = np.frombuffer(held, dtype=ROW)
        num_out = int(samples["copies"].sum(dtype=np.int64))
        if not num_out:
            raise DataError(
                f"{shards}: none of its {num_samples:,} samples is in {subset} ({len(ids):,} rows); "
                "is it the subset of another pool?"
            )
        limits = {
            "shard_samples": config.shard_samples,
            "shard_bytes": config.shard_bytes,
            "shuffle_window": config.shuffle_window,
            "seed": config.seed,
        }
        if config.dry_run:
            starts = lay_out(samples, None, **limits)
        else:
            _claim(folder, listed, parts, subset, config)
            with atomic_path(folder / LAYOUT_FILE) as part, part.open("wb") as stream:
                starts = lay_out(samples, stream, **limits)
        report = ReshardReport(
            shards_in=len(listed),
            samples_in=num_samples,
            samples_found=len(samples),
            samples_out=num_out,
            shards_out=len(starts),
            subset_rows=len(ids),
            subset_missing=len(ids) - num_out,
            broken=dict(broken),
        )
        if config.dry_run:
            return report
        ends = [*starts[1:], num_out]
        planned = [_OutShard(folder, *row, cache) for row in zip(range(len(starts)), starts, ends, strict=True)]
        for _ in mapper("write", _write, planned):
            pass
    write_subset(folder / IDS_FILE, ids)
    write_json(
        folder / META_FILE,
        {
            **report.as_dict(),
            "output_shard_count": len(planned),
            "output_shard_format": SHARD_FORMAT,
            "input": os.fspath(shards),
            **limits,
        },
    )
    (folder / LAYOUT_FILE).unlink(missing_ok=True)
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)
    return report


def _find(item: tuple[int, str, str, tuple[str, int]]) -> _Found:
    number, shard, subset, (cache_place, cache_bytes) = item
    cache = ShardCache(cache_place, limit_bytes=cache_bytes)
    broken: Counter[str] = Counter()
    uids: list[str] = []
    facts: list[tuple[int, int]] = []  # place in the shard, blocks
    try:
        local = cache.hold(shard)
    except DataError:
        return _Found(np.empty(0, ROW), 0, Counter(unreadable_shard=1))
    try:
        with ShardSamples(local) as samples:
            broken.update({"damaged_shard": 1} if samples.tar.damage else {})
            broken.update({"repeated_member": samples.num_repeated} if samples.num_repeated else {})
            num_samples = len(samples)
            for row, sample in enumerate(samples):
                if sample.has_image:
                    uids.append(sample.uid)
                    facts.append((row, sum(1 + -(-member.size // BLOCK) for member in sample.members.values())))
                else:
                    broken["missing_image"] += 1
    except DataError:
        return _Found(np.empty(0, ROW), 0, Counter(unreadable_shard=1))
    finally:
        cache.release(shard)
    ids, is_uid = try_uids(uids)
    broken.update({} if is_uid.all() else {"missing_uid": int((~is_uid).sum())})
    place, copies = find_uids(read_subset(subset, is_checked=True), ids)
    copies[~is_uid] = 0
    kept = np.flatnonzero(copies)
    rows = np.empty(len(kept), dtype=ROW)
    rows["shard"], rows["copies"], rows["place"] = number, copies[kept], place[kept]
    rows["row"], rows["blocks"] = np.array(facts, dtype=np.int64).reshape(-1, 2)[kept].T
    return _Found(rows, num_samples, broken)


def _write(shard: _OutShard) -> None:
    path = shard.folder / SHARD_FORMAT.format(shard.number)
    stats = path.with_name(f"{path.stem}_stats.json")
    if path.is_file() and stats.is_file():  # written before the run was stopped: the numbers follow the shard
        return
    work = load_json((shard.folder / UNFINISHED_FILE).read_text("utf-8"))
    layout = np.memmap(shard.folder / LAYOUT_FILE, dtype=ROW, mode="r")
    rows = np.array(layout[shard.start : shard.stop])
    names = format_uids(np.array(read_subset(work["subset"], is_checked=True)[rows["place"]]))
    cache = ShardCache(shard.cache[0], limit_bytes=shard.cache[1])
    open_shards: dict[int, ShardSamples] = {}
    try:
        with atomic_path(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, (number, row, _, copy, _) in zip(names, rows.tolist(), strict=True):
                source = work["shards"][number]
                if number not in open_shards:
                    open_shards[number] = ShardSamples(cache.hold(source))
                samples = open_shards[number]
                sample = samples.sample(row) if row < len(samples) else None
                if sample is None or sample.uid.lower() != name:
                    raise DataError(f"{source}: sample {row} is not {name} any more; the shard changed while in use")
                for extension in sample.members:
                    content = sample.content(extension)
                    info = tarfile.TarInfo(f"{name}-{copy}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    finally:
        for number, samples in open_shards.items():
            samples.close()
            cache.release(work["shards"][number])
    write_json(stats, {"successes": len(rows)})


def _claim(
    folder: Path,
    shards: Sequence[str],
    parts: Sequence[tuple[str, int, int]],
    subset: str | os.PathLike[str],
    config: ReshardConfig,
) -> None:
    limits = {name: value for name, value in asdict(config).items() if name != "cache_bytes"}
    facts = json.dumps([parts, sha256_file(subset), limits])
    digest = hashlib.sha256(facts.encode()).hexdigest()
    file = folder / UNFINISHED_FILE
    is_ours = file.is_file() and load_json(file.read_text("utf-8")).get("digest") == digest
    if not is_ours and content(folder):
        raise ConfigError(f"{folder}: expected an empty folder, or one where the same resharding was stopped")
    write_json(file, {"digest": digest, "subset": os.path.abspath(subset), "shards": list(shards)})
