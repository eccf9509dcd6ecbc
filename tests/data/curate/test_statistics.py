import random
import statistics

import polars as pl

from eyesmith.data.curate.statistics import CaptionCounts


def test_summary_equals_a_loop() -> None:
    rng = random.Random(0)
    texts = ["x" * rng.randint(0, 3) + " ab\x1fc\u3000\n" * rng.randint(0, 20) for _ in range(301)] + [""] * 3
    counts = CaptionCounts()
    counts.add(pl.Series(texts[:100]))
    other = CaptionCounts()
    other.add(pl.Series(texts[100:]))
    counts.merge(CaptionCounts(other.as_dict()))
    facts = counts.summary()
    words = sorted(len(text.split()) for text in texts)
    assert facts["captions"] == 304
    assert facts["empty_frac"] == sum(not text for text in texts) / 304
    assert facts["words"]["mean"] == statistics.fmean(words)
    assert facts["words"]["p50"] == words[151]
    assert facts["chars"]["p95"] == sorted(map(len, texts))[288]


def test_no_captions() -> None:
    assert CaptionCounts().summary()["words"]["mean"] == 0
