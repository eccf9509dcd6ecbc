import numpy as np
import pytest

from eyesmith.data.curate.balance import (
    chosen_texts,
    draws,
    keep_probabilities,
    tail_share,
    threshold_of_share,
)
from eyesmith.errors import ConfigError


def _ids(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 2**64, count, dtype=np.uint64) for _ in range(2))  # type: ignore[return-value]


def test_rare_entries_are_kept_and_frequent_ones_thinned() -> None:
    assert keep_probabilities(np.array([0, 5, 20, 80]), 20).tolist() == [1, 1, 1, 0.25]
    assert keep_probabilities(np.array([10**12]), float("inf")).tolist() == [1]
    with pytest.raises(ConfigError, match="more than 0"):
        keep_probabilities(np.array([1]), 0)


def test_tail_share_and_its_threshold_go_both_ways() -> None:
    counts = np.array([1, 2, 3, 4, 90])
    assert tail_share(counts, 5) == 0.1
    assert threshold_of_share(counts, 0.1) == 4  # the running share 0.1 is reached with the count 4
    assert threshold_of_share(counts, 1.0) == 90
    assert threshold_of_share(np.array([50, 50]), 0.4) == 50
    with pytest.raises(ConfigError, match="no entry matched"):
        threshold_of_share(np.zeros(3, np.int64), 0.1)


def test_threshold_of_share_equals_a_loop() -> None:
    counts = np.random.default_rng(1).zipf(1.5, 300).clip(max=10**6)
    for share in (0.01, 0.06, 0.5, 0.99):
        best, total = None, 0
        for count in sorted(counts.tolist()):
            total += count
            distance = abs(total / counts.sum() - share)
            if best is None or distance < best[0]:
                best = (distance, count)
        assert best is not None
        assert threshold_of_share(counts, share) == best[1]


def test_draws_are_even_and_independent() -> None:
    high, low = _ids(200_000)
    zeros = np.zeros(200_000, dtype=np.int64)
    entries = np.full(200_000, 7, dtype=np.uint64)
    first = draws(0, high, low, zeros, entries)
    assert 0 <= first.min() < 1e-4
    assert 0.9999 < first.max() < 1
    counts, _ = np.histogram(first, bins=50, range=(0, 1))
    assert ((counts - 4000) ** 2 / 4000).sum() < 100  # chi-square with 49 degrees of freedom: 1e-5 lie above 101
    for other in (
        draws(1, high, low, zeros, entries),
        draws(0, high, low, zeros + 1, entries),
        draws(0, high, low, zeros, entries + np.uint64(1)),
        draws(0, low, high, zeros, entries),
    ):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.012


def test_a_draw_does_not_depend_on_its_place() -> None:
    high, low = _ids(100)
    texts, entries = np.arange(100), np.arange(100).astype(np.uint64)
    order = np.random.default_rng(2).permutation(100)
    values = draws(5, high, low, texts, entries)
    assert (draws(5, high[order], low[order], texts[order], entries[order]) == values[order]).all()


def test_one_text_of_each_image_is_drawn_evenly() -> None:
    high, low = _ids(30_000)
    samples = np.repeat(np.arange(30_000), 3)
    chosen = chosen_texts(0, high, low, samples, np.tile([0, 4, 9], 30_000))
    assert (chosen.reshape(-1, 3).sum(axis=1) == 1).all()
    assert np.abs(chosen.reshape(-1, 3).mean(axis=0) - 1 / 3).max() < 0.011
