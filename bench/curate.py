"""Substring matching and balancing of captions: ours against the loop of the published code and against pyahocorasick.

The list has about 350,000 entries: the words of the bench's own vocabulary, and pairs and triples of words that stood
together in other captions. The loop is timed on few captions, because it needs a tenth of a second for each; both sides
always get the same captions, and ours pays its fixed cost of a call there.
"""

import random
import tempfile
from pathlib import Path

import numpy as np

from bench.captions import captions, vocabulary_words
from bench.pairs import Row, speed
from eyesmith.data.curate.balance import draws, keep_probabilities
from eyesmith.data.curate.substrings import Matches, SubstringMatcher, spaced
from eyesmith.data.curate.uids import parse_uids

NUM_NAIVE = 20
NUM_BATCH = 20_000
THRESHOLD = 200.0
_PHRASES_OF = 60_000  # captions


def rows() -> list[Row]:
    """Matching against the loop and the automaton, and matching with balancing against the same by the automaton."""
    entries = _entries()
    matcher = SubstringMatcher(entries)
    made = [_against_loop(entries, matcher)]
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


if __name__ == "__main__":
    print(measure_pool())
