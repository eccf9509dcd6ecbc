"""A whole curation: from a pool and a plan to a subset file, the record of every sample kept, and what was dropped."""

import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.config import to_dict
from eyesmith.data.curate.balance import keep_probabilities, tail_share, threshold_of_share
from eyesmith.data.curate.groups import groups_of, kept_of_groups
from eyesmith.data.curate.near_images import near_pairs
from eyesmith.data.curate.places import Executor, Mapper, Progress, open_mapper
from eyesmith.data.curate.plan import RULES, CurationPlan
from eyesmith.data.curate.pool import PoolFile, list_pool, polars_module
from eyesmith.data.curate.statistics import CaptionCounts
from eyesmith.data.curate.steps import (
    Work,
    bucket_step,
    count_step,
    draw_step,
    filter_step,
    keep_step,
    kept_of,
    near_step,
    scores_step,
)
from eyesmith.data.curate.threshold import place_of, value_at
from eyesmith.data.curate.uids import UID, join_uids, write_subset
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import atomic_path, load_json, write_json
from eyesmith.writer import content, one_writer

SUBSET_FILE, RECORD_FILE, REPORT_FILE, CONFIG_FILE = "subset.npy", "kept.parquet", "report.json", "curation.json"


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """What one rule did. rows_in, kept: samples before and after it."""

    rule: str
    rows_in: int
    kept: int

    @property
    def dropped(self) -> int:
        """Samples that it dropped."""
        return self.rows_in - self.kept


@dataclass(frozen=True, kw_only=True)
class CurationReport:
    """What a curation did. rows: of the subset file, where a sample stands as often as its multiplicity.

    repeated: samples kept whose uid another one kept has too; the subset shows that sample as often as both say.
    """

    plan: str
    pool: str
    out: str
    samples: int
    kept: int
    rows: int
    repeated: int
    funnel: list[FunnelRow]
    clip_threshold: float | None
    balance: dict[str, Any] | None
    captions: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content, what each rule dropped included."""
        funnel = [{**asdict(row), "dropped": row.dropped} for row in self.funnel]
        return {**asdict(self), "funnel": funnel}


def curate(
    plan: CurationPlan,
    pool: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    executor: Executor = "local",
    on_progress: Progress | None = None,
) -> CurationReport:
    """Apply a plan to a pool; leaves subset.npy, kept.parquet, report.json and curation.json in `out`.

    The result depends on the plan and the pool alone, not on workers, executor or the order of files. When a curation
    of the same plan and pool was stopped in `out`, it goes on. Raises ConfigError when `out` holds another one, or
    another process is writing to it, and DataError for a pool that cannot be used.
    """
    plan.check_files()
    files = list_pool(pool)
    with one_writer(out):
        return _curate(plan, pool, files, out, workers=workers, executor=executor, on_progress=on_progress)


def _curate(
    plan: CurationPlan,
    pool: str | os.PathLike[str],
    files: list[PoolFile],
    out: str | os.PathLike[str],
    *,
    workers: int,
    executor: Executor,
    on_progress: Progress | None,
) -> CurationReport:
    import pyarrow.parquet as pq

    folder = Path(out).absolute()
    columns = tuple(pq.read_schema(files[0].path).names)
    digest = _claim(folder, plan, pool, files)
    seconds: dict[str, float] = {}
    with open_mapper(executor, workers, on_progress) as mapper:
        clock = _Clock(seconds)
        threshold = _clip_threshold(plan, files, mapper)
        clock.lap("threshold")
        work = Work(plan, columns, folder, float("nan") if threshold is None else threshold, digest)
        num_rows, counts = 0, Counter()
        captions = {"before": CaptionCounts(), "after": CaptionCounts()}
        for facts in mapper("filter", filter_step, [(work, file) for file in files]):
            num_rows += facts["rows"]
            counts.update(facts["kept"])
            for name, held in captions.items():
                held.merge(CaptionCounts(facts[name]))
        clock.lap("filter")
        funnel = _funnel(plan, counts, num_rows)
        left = funnel[-1].kept if funnel else num_rows
        if "duplicates" in plan.rules:
            kept = _drop_duplicates(work, files, mapper)
            funnel.append(FunnelRow("duplicates", left, kept))
            left = kept
            clock.lap("duplicates")
        balance = None
        if "balance" in plan.rules:
            balance, matched, kept = _balance(work, files, mapper)
            funnel += [FunnelRow("match", left, matched), FunnelRow("balance", matched, kept)]
            clock.lap("balance")
    if not (funnel[-1].kept if funnel else num_rows):
        steps = ", ".join(f"{row.rule} {row.rows_in:,} -> {row.kept:,}" for row in funnel) or "the pool is empty"
        raise DataError(f"{pool}: the plan {plan.name!r} keeps no sample ({steps}); relax the rule that drops them")
    num_kept, subset, repeated = _write_record(work, files)
    write_subset(folder / SUBSET_FILE, subset)
    clock.lap("write")
    report = CurationReport(
        plan=plan.name,
        pool=os.fspath(pool),
        out=os.fspath(out),
        samples=num_rows,
        kept=num_kept,
        rows=len(subset),
        repeated=repeated,
        funnel=funnel,
        clip_threshold=threshold if threshold is not None and np.isfinite(threshold) else None,
        balance=balance,
        captions={"pool": captions["before"].summary(), "after the row rules": captions["after"].summary()},
        seconds=seconds,
    )
    write_json(folder / REPORT_FILE, report.as_dict())
    return report


def exact_threshold(files: Sequence[PoolFile], column: str, fraction: float, mapper: Mapper) -> float:
    """The score at place int(N * fraction) in falling order over all files. -inf when so much has no score."""
    counts = reduce(np.add, mapper("scores", bucket_step, [(file, column) for file in files]))
    bucket, place = place_of(counts, fraction)
    held = list(mapper("threshold", scores_step, [(file, column, bucket) for file in files]))
    return value_at(np.concatenate([part for part in held if len(part)]), place)


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = round(now - self._last, 3)
        self._last = now


def _claim(folder: Path, plan: CurationPlan, pool: str | os.PathLike[str], files: Sequence[PoolFile]) -> str:
    """Take `out` for this plan and pool; returns their digest."""
    facts: list[list[Any]] = [[file.name, file.num_rows, *_stamp(file.path)] for file in files]
    facts += [[file, *_stamp(Path(file))] for file in plan.files()]
    if plan.reads_features:
        facts += [[file.features.name, *_stamp(file.features)] for file in files]
    settings = to_dict(plan)
    settings = {name: value for name, value in settings.items() if name not in RULES or name in plan.rules}
    digest = hashlib.sha256(json.dumps([settings, facts]).encode()).hexdigest()
    file = folder / CONFIG_FILE
    if file.is_file():
        try:
            there = load_json(file.read_text("utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file}: cannot be read ({error}); choose another --out") from error
        if there.get("digest") != digest:
            raise ConfigError(
                f"{folder}: holds the curation {there.get('plan', {}).get('name')!r} of {there.get('pool')} with other "
                "settings, or its pool or a file of its rules has changed; choose another --out, nothing was changed"
            )
    elif content(folder):
        raise ConfigError(f"{folder}: expected an empty folder or one of this curation; choose another --out")
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    write_json(file, {"digest": digest, "pool": os.fspath(pool), "plan": settings})
    return digest


def _stamp(file: Path) -> list[int]:
    # a file that is missing is refused by the rule that reads it, or is not needed
    return [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else []


def _clip_threshold(plan: CurationPlan, files: Sequence[PoolFile], mapper: Mapper) -> float | None:
    if "clip" not in plan.rules:
        return None
    if plan.clip.by == "threshold":
        return plan.clip.threshold
    return exact_threshold(files, plan.clip.column, plan.clip.fraction, mapper)


def _funnel(plan: CurationPlan, counts: Mapping[str, int], num_rows: int) -> list[FunnelRow]:
    rows, left = [], num_rows
    for rule in plan.rules:
        if rule not in ("duplicates", "balance"):
            rows.append(FunnelRow(rule, left, counts[rule]))
            left = counts[rule]
    return rows


def _drop_duplicates(work: Work, files: Sequence[PoolFile], mapper: Mapper) -> int:
    uids, prefer, ends = bytearray(), bytearray(), [0]  # grow in place
    with tempfile.TemporaryFile(dir=work.out / "parts") as stream:
        dtype, shape = np.dtype(np.uint64), ()
        for file, found in zip(files, mapper("pictures", near_step, [(work, file) for file in files]), strict=True):
            uids += found[0].tobytes()
            prefer += found[2].tobytes()
            ends.append(ends[-1] + len(found[0]))
            if len(found[1]):
                if stream.tell() and (found[1].dtype, found[1].shape[1:]) != (dtype, shape):
                    raise DataError(f"{file.features}: features of another size or precision than in the files before")
                dtype, shape = found[1].dtype, found[1].shape[1:]
                stream.write(found[1].tobytes())
        stream.flush()
        values = np.memmap(stream, dtype=dtype, mode="r", shape=(ends[-1], *shape)) if ends[-1] else np.empty(0, dtype)
        groups = groups_of(ends[-1], near_pairs(work.plan.duplicates, values)) if ends[-1] else np.empty(0, np.int64)
        del values  # unmapped before the file goes
    keep = kept_of_groups(groups, np.frombuffer(prefer), np.frombuffer(uids, dtype=UID))
    items = [(work, file, part) for file, part in zip(files, np.split(keep, ends[1:-1]), strict=True)]
    return sum(mapper("duplicates", keep_step, items))


def _balance(work: Work, files: Sequence[PoolFile], mapper: Mapper) -> tuple[dict[str, Any], int, int]:
    rule = work.plan.balance
    parts = mapper("counts", count_step, [(work, file) for file in files])
    counts: NDArray[np.int64] = reduce(np.add, parts)
    threshold = threshold_of_share(counts, rule.tail_share) if rule.tail_share >= 0 else rule.threshold
    threshold = max(threshold, 1)  # a share so small that no entry lies below: every entry is kept once on average
    probabilities = keep_probabilities(counts, threshold)
    with atomic_path(work.out / "entry_counts.npy") as part, part.open("wb") as stream:
        np.save(stream, counts)
    drawn = list(mapper("balance", draw_step, [(work, file, probabilities) for file in files]))
    matched, kept, texts = (sum(part[place] for part in drawn) for place in range(3))
    facts = {
        "entries": len(counts),
        "entries_matched": int((counts > 0).sum()),
        "entries_above_threshold": int((counts > threshold).sum()),
        "matches": int(counts.sum()),
        "threshold": threshold if np.isfinite(threshold) else "inf",
        "tail_share": tail_share(counts, threshold),
        "texts_kept": texts,
    }
    return facts, matched, kept


def _write_record(work: Work, files: Sequence[PoolFile]) -> tuple[int, NDArray[np.void], int]:
    """Write kept.parquet, one row a sample kept; returns how many, their ids by multiplicity, and repeated ids."""
    import pyarrow.parquet as pq

    polars = polars_module()
    writer, held, copies = None, bytearray(), bytearray()  # grow in place
    with atomic_path(work.out / RECORD_FILE) as part:
        try:
            for file in files:
                frame = kept_of(work, file)
                held += join_uids(frame["high"].to_numpy(), frame["low"].to_numpy()).tobytes()
                copies += frame["multiplicity"].to_numpy().astype(np.int32).tobytes()
                rules = "+".join(work.plan.rules) or "all"
                frame = frame.drop("high", "low").with_columns(polars.lit(rules).alias("rule"))
                table = frame.to_arrow(compat_level=polars.CompatLevel.oldest())
                writer = writer or pq.ParquetWriter(part, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
    uids = np.frombuffer(held, dtype=UID)
    order = np.lexsort((uids["f1"], uids["f0"]))
    uids = uids[order]
    subset = uids.repeat(np.frombuffer(copies, dtype=np.int32)[order])
    return len(uids), subset, int((uids[1:] == uids[:-1]).sum())
