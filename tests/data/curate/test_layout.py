from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.curate import layout
from eyesmith.data.curate.layout import BLOCK, ROW, lay_out


def _loop(samples: np.ndarray, max_samples: int, max_bytes: int, window: int, seed: int) -> list[list[tuple[int, ...]]]:
    rows = [(*row[:3], copy, row[4]) for row in samples.tolist() for copy in range(row[3])]
    if window:
        rng = np.random.default_rng(seed)
        parts = [rows[start : start + window] for start in range(0, len(rows), window)]
        rows = [part[place] for part in parts for place in rng.permutation(len(part))]
    shards: list[list[tuple[int, ...]]] = []
    num_bytes = 0
    for row in rows:
        size = row[2] * BLOCK
        if not shards or len(shards[-1]) == max_samples or num_bytes + size > max_bytes:
            shards.append([])
            num_bytes = 2 * BLOCK
        shards[-1].append(row)
        num_bytes += size
    return shards


@pytest.mark.parametrize("window", [0, 1, 13, 64, 100_000])
@pytest.mark.parametrize(("max_samples", "max_bytes"), [(7, 10**9), (10**6, 40_000), (5, 9_000), (1, 1), (90, 10**6)])
def test_the_layout_equals_a_loop(
    max_samples: int, max_bytes: int, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_CHUNK_ROWS", 17)  # shards and windows go over chunks
    rng = np.random.default_rng(max_samples + window)
    samples = np.empty(200, dtype=ROW)
    samples["shard"], samples["row"] = np.arange(200) // 50, np.arange(200) % 50
    samples["blocks"], samples["copies"] = rng.integers(2, 30, 200), rng.integers(1, 4, 200)
    samples["place"] = rng.permutation(200) + 2**33
    limits = {"shard_samples": max_samples, "shard_bytes": max_bytes, "shuffle_window": window, "seed": 3}
    with (tmp_path / "rows").open("wb") as stream:
        starts = lay_out(samples, stream, **limits)
    expected = _loop(samples, max_samples, max_bytes, window, 3)
    assert starts == np.cumsum([0, *map(len, expected[:-1])]).tolist()
    rows = np.fromfile(tmp_path / "rows", dtype=ROW).tolist()
    assert rows == [row for shard in expected for row in shard]
    assert lay_out(samples, None, **limits) == starts
