"""The steps of a curation on one file of a pool. Each reads the pool or what the step before it left, and leaves files
of its own below OUT/parts, whole or not at all; so a curation that was stopped goes on with the files that are missing.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.curate.balance import chosen_texts, draws
from eyesmith.data.curate.near_images import NearFinder
from eyesmith.data.curate.plan import CurationPlan
from eyesmith.data.curate.pool import Batch, PoolFile, polars_module, read_batches
from eyesmith.data.curate.row_rules import RowRule, first_text, row_rules, scores_of
from eyesmith.data.curate.statistics import CaptionCounts
from eyesmith.data.curate.substrings import SubstringMatcher
from eyesmith.data.curate.threshold import NUM_BUCKETS, bucket_counts, bucket_of
from eyesmith.data.curate.uids import join_uids, parse_uids
from eyesmith.errors import DataError
from eyesmith.files import atomic_path, load_json, write_json

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, slots=True)
class Work:
    """What every step knows. columns: of the pool; threshold: of the CLIP score; digest: of the plan and the pool."""

    plan: CurationPlan
    columns: tuple[str, ...]
    out: Path
    threshold: float
    digest: str

    def part(self, file: PoolFile, ending: str) -> Path:
        """A file that a step leaves for a pool file."""
        return self.out / "parts" / f"{file.name}.{ending}"

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Columns of the pool that are kept with every sample."""
        wanted = [name for name in self.columns if name.endswith("_similarity_score")]
        if "duplicates" in self.plan.rules and self.plan.duplicates.prefer in self.columns:
            wanted.append(self.plan.duplicates.prefer)
        return tuple(dict.fromkeys(wanted))


def bucket_step(item: tuple[PoolFile, str]) -> NDArray[np.int64]:
    """How the scores of a file are spread."""
    file, column = item
    counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
    for batch in read_batches(file, [column]):
        counts += bucket_counts(scores_of(batch.frame, column))
    return counts


def scores_step(item: tuple[PoolFile, str, int]) -> NDArray[np.floating]:
    """The scores of a file that lie in one bucket."""
    file, column, bucket = item
    held = [scores_of(batch.frame, column) for batch in read_batches(file, [column])]
    return np.concatenate([scores[bucket_of(scores) == bucket] for scores in held]) if held else np.empty(0)


def filter_step(item: tuple[Work, PoolFile]) -> dict[str, Any]:
    """Apply the rules over single samples to one file and, for balancing, match what is left.

    Leaves <name>.parquet with the samples kept and <name>.json with the counts, which is returned; with balancing
    also <name>.matches.npz.
    """
    work, file = item
    done = work.part(file, "json")
    if done.is_file():
        facts = load_json(done.read_text("utf-8"))
        if facts.get("digest") == work.digest:
            return facts
    plan = work.plan
    rules = _rules(work)
    is_balanced = "balance" in plan.rules
    columns = {plan.uid, *work.score_columns, *(name for rule in rules for name in rule.columns)}
    columns |= {plan.text} if is_balanced else {plan.text} & {*work.columns}
    features = list(dict.fromkeys(name for rule in rules for name in rule.features))
    kept_counts = [0] * len(rules)
    before, after = CaptionCounts(), CaptionCounts()
    frames, matches, num_kept, num_rows = [], [], 0, 0
    for batch in read_batches(file, sorted(columns), features):
        num_rows += len(batch.frame)
        if plan.text in work.columns:
            before.add(first_text(batch.frame[plan.text]))
        rows = _kept_rows(batch, rules, kept_counts)
        frame = batch.frame[rows]
        if plan.text in work.columns:
            after.add(first_text(frame[plan.text]))
        frames.append(_record(work, file, batch.start + rows, frame))
        if is_balanced:
            matches.append(_matches(plan, frame[plan.text], num_kept))
        num_kept += len(rows)
    polars = polars_module()
    if is_balanced:
        found = np.concatenate(matches, axis=1) if matches else np.empty((3, 0), dtype=np.int64)
        with atomic_path(work.part(file, "matches.npz")) as part, part.open("wb") as stream:
            np.savez(
                stream, row=found[0].astype(np.int32), text=found[1].astype(np.int32), entry=found[2].astype(np.int32)
            )
    with atomic_path(work.part(file, "parquet")) as part:
        (polars.concat(frames) if frames else _record(work, file, np.empty(0, np.int64), None)).write_parquet(part)
    work.part(file, "keep.npy").unlink(missing_ok=True)
    facts = {
        "digest": work.digest,
        "rows": num_rows,
        "kept": dict(zip((rule.name for rule in rules), kept_counts, strict=True)),
        "before": before.as_dict(),
        "after": after.as_dict(),
    }
    write_json(done, facts)
    return facts


def near_step(item: tuple[Work, PoolFile]) -> tuple[NDArray[np.void], NDArray[np.generic], NDArray[np.floating]]:
    """Of the samples kept whose picture is known: ids, hash or embedding, and the preference among duplicates."""
    work, file = item
    rule = work.plan.duplicates
    finder = _finder(work)
    frame = polars_module().read_parquet(work.part(file, "parquet"))
    uids = _uids(frame)
    features = None
    if finder.features:
        rows = frame["row"].to_numpy()
        found = []
        for batch in read_batches(file, [work.plan.uid], finder.features):
            inside = rows[(rows >= batch.start) & (rows < batch.start + len(batch.frame))]
            found.append(batch.features[rule.features][inside - batch.start])
        features = np.concatenate(found) if found else np.empty((0, 1), dtype=np.float32)
    is_known, values = finder.known(uids, features)
    prefer = scores_of(frame, rule.prefer) if rule.prefer in frame.columns else np.full(len(frame), np.nan)
    return uids[is_known], values, prefer[is_known].astype(np.float64)


def keep_step(item: tuple[Work, PoolFile, NDArray[np.bool_]]) -> int:
    """Write down which of the samples with a known picture are no duplicates; returns how many samples are left."""
    work, file, is_kept = item
    frame = polars_module().read_parquet(work.part(file, "parquet"), columns=["high", "low"])
    uids = _uids(frame)
    finder = _finder(work)
    known = np.ones(len(uids), dtype=bool)
    if not finder.features:
        known, _ = finder.known(uids, None)
    keep = np.zeros(len(uids), dtype=bool)
    keep[known] = is_kept
    _save(work.part(file, "keep.npy"), keep)
    return int(keep.sum())


def count_step(item: tuple[Work, PoolFile]) -> NDArray[np.int64]:
    """How many texts of the samples left match each entry."""
    work, file = item
    _, _, entries = _left_matches(work, file)
    return np.bincount(entries, minlength=_matcher(work.plan).num_entries)


def draw_step(item: tuple[Work, PoolFile, NDArray[np.float64]]) -> tuple[int, int, int]:
    """Draw the texts of one file; leaves <name>.texts.npz (row, text).

    Returns how many samples matched, how many are kept, and how many texts of them.
    """
    work, file, probabilities = item
    rule = work.plan.balance
    frame = polars_module().read_parquet(work.part(file, "parquet"), columns=["high", "low"])
    high, low = frame["high"].to_numpy(), frame["low"].to_numpy()
    rows, texts, entries = _left_matches(work, file)
    num_matched = _num_runs(rows)
    if rule.draw == "image":
        is_first = (
            np.append(True, (rows[1:] != rows[:-1]) | (texts[1:] != texts[:-1])) if len(rows) else np.zeros(0, bool)
        )
        number = np.cumsum(is_first) - 1  # of the text
        is_chosen = chosen_texts(rule.seed, high, low, rows[is_first], texts[is_first])[number]
        rows, texts, entries = rows[is_chosen], texts[is_chosen], entries[is_chosen]
    drawn = draws(rule.seed, high[rows], low[rows], texts, _matcher(work.plan).hashes[entries])
    accepted = drawn < probabilities[entries]
    rows, texts = rows[accepted], texts[accepted]  # by row and text: equal pairs stand side by side
    if len(rows):
        is_new = np.append(True, (rows[1:] != rows[:-1]) | (texts[1:] != texts[:-1]))
        rows, texts = rows[is_new], texts[is_new]
    with atomic_path(work.part(file, "texts.npz")) as part, part.open("wb") as stream:
        np.savez(stream, row=rows, text=texts)
    return num_matched, _num_runs(rows), len(rows)


def kept_of(work: Work, file: PoolFile) -> "polars.DataFrame":
    """The samples of one file that the whole plan keeps, with their multiplicity and the texts drawn."""
    polars = polars_module()
    import pyarrow as pa

    frame = polars.read_parquet(work.part(file, "parquet"))
    if "balance" in work.plan.rules:
        with np.load(work.part(file, "texts.npz")) as stored:
            rows, texts = stored["row"], stored["text"]
        copies = np.bincount(rows, minlength=len(frame)).astype(np.int64)
        offsets = np.append(0, np.cumsum(copies))
        drawn = polars.from_arrow(pa.LargeListArray.from_arrays(offsets, texts.astype(np.int64)))
        frame = frame.with_columns(polars.Series("multiplicity", copies), polars.Series("texts", drawn))
        return frame.filter(polars.col("multiplicity") > 0)
    frame = frame.with_columns(polars.lit(1, dtype=polars.Int64).alias("multiplicity"))
    if "duplicates" in work.plan.rules:
        frame = frame.filter(polars.Series(np.load(work.part(file, "keep.npy"))))
    return frame


def _kept_rows(batch: Batch, rules: list[RowRule], kept_counts: list[int]) -> NDArray[np.int64]:
    polars = polars_module()
    rows, frame = np.arange(len(batch.frame)), batch.frame
    for number, rule in enumerate(rules):
        features = {name: batch.features[name][rows] for name in rule.features} if len(rows) else {}
        keep = rule.keep(frame, features) if len(rows) else np.zeros(0, dtype=bool)
        rows, frame = rows[keep], frame.filter(polars.Series(keep))
        kept_counts[number] += len(rows)
    return rows


def _record(
    work: Work, file: PoolFile, rows: NDArray[np.int64], frame: "polars.DataFrame | None"
) -> "polars.DataFrame":
    polars = polars_module()
    texts = frame[work.plan.uid].to_list() if frame is not None else []
    try:
        uids = parse_uids(texts)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from error
    data = {
        "high": uids["f0"].copy(),
        "low": uids["f1"].copy(),
        "uid": polars.Series(texts, dtype=polars.String),
        "source": polars.repeat(file.path.name, len(rows), dtype=polars.String, eager=True),
        "row": rows.astype(np.int64),
    }
    for column in work.score_columns:
        data[column] = (
            frame[column].cast(polars.Float64) if frame is not None else polars.Series([], dtype=polars.Float64)
        )
    return polars.DataFrame(data)


def _matches(plan: CurationPlan, column: "polars.Series", first_row: int) -> NDArray[np.int64]:
    """Rows of (sample, number of its text, entry): int64 [3, M], sorted."""
    polars = polars_module()
    if isinstance(column.dtype, polars.List):
        counts = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = column.explode(empty_as_null=False, keep_nulls=False).cast(polars.String)
    else:
        counts, flat = np.ones(len(column), dtype=np.int64), column.cast(polars.String)
    samples = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(samples)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = _matcher(plan).match(flat)
    return np.stack([first_row + samples[found.texts], numbers[found.texts], found.entries])


def _left_matches(work: Work, file: PoolFile) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    with np.load(work.part(file, "matches.npz")) as stored:
        rows, texts, entries = (stored[name].astype(np.int64) for name in ("row", "text", "entry"))
    if "duplicates" in work.plan.rules:
        left = np.load(work.part(file, "keep.npy"))[rows]
        rows, texts, entries = rows[left], texts[left], entries[left]
    return rows, texts, entries


def _num_runs(rows: NDArray[np.int64]) -> int:
    """How many different values a sorted array has."""
    return int((rows[1:] != rows[:-1]).sum()) + 1 if len(rows) else 0


def _uids(frame: "polars.DataFrame") -> NDArray[np.void]:
    return join_uids(frame["high"].to_numpy(), frame["low"].to_numpy())


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with atomic_path(path) as part, part.open("wb") as stream:
        np.save(stream, array)


@lru_cache(maxsize=1)
def _rules(work: Work) -> list[RowRule]:
    return row_rules(work.plan, work.columns, work.threshold)


@lru_cache(maxsize=1)
def _finder(work: Work) -> NearFinder:
    return NearFinder(work.plan.duplicates)


def _matcher(plan: CurationPlan) -> SubstringMatcher:
    path = plan.balance.entries
    try:
        return _read_matcher(path, os.stat(path).st_mtime_ns, plan.balance.boundaries)
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a list of entries: {error.strerror or error}") from error


@lru_cache(maxsize=1)
def _read_matcher(path: str, _: int, boundaries: Any) -> SubstringMatcher:
    return SubstringMatcher(list(_entries(path)), boundaries=boundaries)


def _entries(path: str) -> Iterator[str]:
    try:
        value = load_json(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, list) or not value:
        raise DataError(f"{path}: expected a JSON list of strings, such as MetaCLIP's metadata.json")
    yield from value
