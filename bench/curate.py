"""Substring matching and balancing of captions: ours against the loop of the published code and against pyahocorasick;
near pictures by buckets of their hashes against all with all. `python -m bench.curate scale` measures what the process
that holds a large curation together needs for each row.

The list has about 350,000 entries: the words of the bench's own vocabulary, and pairs and triples of words that stood
together in other captions. The loop is timed on few captions, because it needs a tenth of a second for each; both sides
always get the same captions, and ours pays its fixed cost of a call there.
"""

import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.captions import captions, vocabulary_words
from bench.pairs import Row, speed
from eyesmith.data.curate.balance import draws, keep_probabilities
from eyesmith.data.curate.groups import groups_of, kept_of_groups
from eyesmith.data.curate.layout import ROW
from eyesmith.data.curate.near_embeddings import near_embedding_pairs
from eyesmith.data.curate.near_images import near_hash_pairs
from eyesmith.data.curate.reshard import reshard
from eyesmith.data.curate.substrings import Matches, SubstringMatcher, spaced
from eyesmith.data.curate.uids import UID, find_uids, parse_uids, read_subset, write_subset

NUM_NAIVE = 20
NUM_BATCH = 20_000
THRESHOLD = 200.0
NUM_HASHES = 20_000
MAX_BITS = 4
SHARD_ROWS = 10_000
_PHRASES_OF = 60_000  # captions


def rows() -> list[Row]:
    """Matching against the loop and the automaton, and matching with balancing against the same by the automaton."""
    entries = _entries()
    matcher = SubstringMatcher(entries)
    made = [_near_hashes(), _against_loop(entries, matcher)]
    try:
        import ahocorasick
    except ImportError:
        return made
    automaton = ahocorasick.Automaton()
    for number, entry in enumerate(entries):
        automaton.add_word(f" {entry} ", number)
    automaton.make_automaton()

    def theirs(texts: list[str]) -> list[list[int]]:
        return [sorted({entry for _, entry in automaton.iter(spaced(text))}) for text in texts]

    peer = "pyahocorasick"
    note = f"{len(entries):,} entries, {NUM_BATCH:,} new captions in every pair"
    made.append(
        speed(
            "curate_match_automaton",
            lambda i: captions(NUM_BATCH, 500 + i, web=True),
            matcher.match,
            theirs,
            equal=lambda ours, other: ours.sets() == other,
            count=NUM_BATCH,
            unit="texts/s",
            peer=peer,
            note=note,
            num_pairs=5,
            num_warmups=1,
        )
    )
    made.append(_balancing(entries, matcher, theirs, peer=f"{peer} and a loop of draws", note=note))
    return made


def _near_hashes() -> Row:
    def all_with_all(hashes: np.ndarray) -> list[int]:
        pairs = []
        for start in range(0, len(hashes), 256):
            is_near = np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None, start:]) <= MAX_BITS
            pairs.append(start + np.argwhere(is_near))
        return groups_of(len(hashes), pairs).tolist()

    return speed(
        "curate_near_hashes",
        lambda i: _hashes(NUM_HASHES, i),
        lambda hashes: groups_of(len(hashes), near_hash_pairs(hashes, MAX_BITS)).tolist(),
        all_with_all,
        equal=lambda ours, theirs: ours == theirs,
        count=NUM_HASHES,
        unit="hashes/s",
        peer="all with all",
        note=f"{NUM_HASHES:,} hashes of 64 bits, a tenth near another, at most {MAX_BITS} bits apart",
        num_pairs=5,
        num_warmups=1,
    )


def _hashes(count: int, seed: int) -> np.ndarray:
    """Random hashes, of which the last tenth differ in up to three bits from others."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    num_near = count // 10
    flips = np.uint64(1) << rng.integers(0, 64, (3, num_near), dtype=np.uint64)
    hashes[-num_near:] = rng.choice(hashes[:-num_near], num_near) ^ np.bitwise_or.reduce(flips)
    return hashes


def _against_loop(entries: list[str], matcher: SubstringMatcher) -> Row:
    wanted = [f" {entry} " for entry in entries]

    def loop(texts: list[str]) -> list[list[int]]:
        return [[i for i, entry in enumerate(wanted) if entry in text] for text in map(spaced, texts)]

    return speed(
        "curate_match_loop",
        lambda i: captions(NUM_NAIVE, 900 + i, web=True),
        matcher.match,
        loop,
        equal=lambda ours, theirs: ours.sets() == theirs,
        count=NUM_NAIVE,
        unit="texts/s",
        peer="a loop of `in` over all entries, as published",
        note=f"{len(entries):,} entries, {NUM_NAIVE} captions",
        num_pairs=5,
        num_warmups=1,
    )


def _balancing(entries: list[str], matcher: SubstringMatcher, find, *, peer: str, note: str) -> Row:  # noqa: ANN001
    uids = parse_uids([f"{random.Random(i).getrandbits(128):032x}" for i in range(NUM_BATCH)])

    def accepted(found: Matches) -> list[int]:
        counts = np.bincount(found.entries, minlength=len(entries))
        chances = keep_probabilities(counts, THRESHOLD)
        drawn = _draws(found.texts, found.entries)
        return np.unique(found.texts[drawn < chances[found.entries]]).tolist()

    def _draws(texts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        zeros = np.zeros(len(texts), dtype=np.int64)
        return draws(0, uids["f0"][texts], uids["f1"][texts], zeros, matcher.hashes[numbers])

    def theirs(texts: list[str]) -> list[int]:
        found = find(texts)
        counts = np.zeros(len(entries), dtype=np.int64)
        for numbers in found:
            for number in numbers:
                counts[number] += 1
        kept = []
        for row, numbers in enumerate(found):
            if numbers:
                drawn = _draws(np.full(len(numbers), row), np.array(numbers))
                chances = [THRESHOLD / max(int(counts[number]), THRESHOLD) for number in numbers]
                if any(value < chance for value, chance in zip(drawn, chances, strict=True)):
                    kept.append(row)
        return kept

    return speed(
        "curate_balance",
        lambda i: captions(NUM_BATCH, 500 + i, web=True),
        lambda texts: accepted(matcher.match(texts)),
        theirs,
        equal=lambda ours, other: ours == other,
        count=NUM_BATCH,
        unit="texts/s",
        peer=peer,
        note=f"{note}; matched, counted and drawn with t = {THRESHOLD:g}",
        num_pairs=3,
        num_warmups=1,
    )


def _entries() -> list[str]:
    rng = random.Random(0)
    found = dict.fromkeys(vocabulary_words())
    for caption in captions(_PHRASES_OF, 99):
        words = caption.split()
        for start in range(0, len(words) - 1, 3):
            found[" ".join(words[start : start + rng.choice((2, 2, 3))])] = None
    return [entry for entry in found if entry.strip()]


def measure_pool(num_captions: int = 1_000_000, *, workers: int = 2) -> dict[str, float]:
    """Seconds of a whole balancing of a pool of captions in 4 files, from parquet to the subset file, and its rate."""
    import json

    import polars

    from eyesmith.data.curate import curate, named_plan
    from eyesmith.data.curate.plan import BalanceRule

    with tempfile.TemporaryDirectory(prefix="eyesmith-bench-") as name:
        folder = Path(name)
        (folder / "pool").mkdir()
        (folder / "entries.json").write_text(json.dumps(_entries()))
        step = num_captions // 4
        for part in range(4):
            rng = random.Random(part)
            uids = [f"{rng.getrandbits(128):032x}" for _ in range(step)]
            frame = polars.DataFrame({"uid": uids, "text": captions(step, 7000 + part, web=True)})
            frame.write_parquet(folder / "pool" / f"{part}.parquet")
        rule = BalanceRule(entries=str(folder / "entries.json"), threshold=THRESHOLD)
        report = curate(named_plan("metaclip", balance=rule), folder / "pool", folder / "out", workers=workers)
    seconds = sum(report.seconds.values())
    return {**report.seconds, "captions": report.samples, "kept": report.kept, "captions_per_s": num_captions / seconds}


def measure_scale(num_rows: int = 10_000_000, num_embeddings: int = 1_000_000) -> dict[str, dict[str, float]]:
    """Seconds, and bytes a row at the highest point, of resharding and of looking for near pictures.

    Made rows stand in for the shards: what reads and writes tars is left out, the subset is looked up and the samples
    are laid out as always.
    """
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="eyesmith-bench-") as name:
        folder = Path(name)
        num_shards = num_rows // SHARD_ROWS
        write_subset(folder / "subset.npy", np.concatenate([_made_uids(shard) for shard in range(num_shards)]))
        with (
            patch("eyesmith.data.curate.reshard.list_shards", lambda _: [f"{i:08d}.tar" for i in range(num_shards)]),
            patch("eyesmith.data.curate.reshard._find", _made_samples),
            patch("eyesmith.data.curate.reshard._write", lambda _: None),
        ):
            found["reshard"] = _cost(num_rows, lambda: reshard("made", folder / "subset.npy", folder / "out"))
    hashes = _hashes(num_rows, 0)
    scores, uids = np.zeros(num_rows), np.zeros(num_rows, dtype=UID)
    found["hashes"] = _cost(
        num_rows, lambda: kept_of_groups(groups_of(num_rows, near_hash_pairs(hashes, MAX_BITS)), scores, uids)
    )
    rng = np.random.default_rng(0)
    features = rng.normal(size=(num_embeddings, 64)).astype(np.float16)
    copies = num_embeddings // 10
    features[-copies:] = features[:copies] + (0.1 * rng.normal(size=(copies, 64))).astype(np.float16)
    groups: list[np.ndarray] = []
    pairs = lambda: near_embedding_pairs(features, 0.95, max_exact=0)  # noqa: E731
    found["embeddings"] = _cost(num_embeddings, lambda: groups.append(groups_of(num_embeddings, pairs())))
    found["embeddings"]["recall"] = float((groups[0][-copies:] == np.arange(copies)).mean())
    return found


def _cost(num_rows: int, work: Callable[[], Any]) -> dict[str, float]:
    tracemalloc.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"rows": num_rows, "seconds": round(seconds, 1), "bytes_per_row": round(peak / num_rows, 1)}


def _made_uids(shard: int) -> np.ndarray:
    return np.random.default_rng(shard).integers(0, 2**64, (SHARD_ROWS, 2), dtype=np.uint64).view(UID).ravel()


def _made_samples(item: tuple[int, str, str, tuple[str, int]]) -> Any:
    from eyesmith.data.curate.reshard import _Found

    number, _, subset, _ = item
    place, copies = find_uids(read_subset(subset, is_checked=True), _made_uids(number))
    rows = np.empty(SHARD_ROWS, dtype=ROW)
    rows["shard"], rows["row"], rows["blocks"] = number, np.arange(SHARD_ROWS), 40
    rows["copies"], rows["place"] = copies, place
    return _Found(rows, SHARD_ROWS, Counter())


if __name__ == "__main__":
    print(measure_scale() if sys.argv[1:] == ["scale"] else measure_pool())
