import numpy as np

from eyesmith.data import near
from eyesmith.data.near import near_partners


def slow_partners(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for row in range(len(thumbnails)):
        for other in range(row):
            a, b = thumbnails[row].astype(float), thumbnails[other].astype(float)
            limit = min(6.0, max(1.0, 0.12 * min(a.std(), b.std())))
            if np.sqrt(((a - b) ** 2).mean()) <= limit:
                found.append((row, other))
                break
    return found


def test_pairs_equal_those_of_a_slow_loop(monkeypatch):
    monkeypatch.setattr(near, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    base = rng.integers(20, 236, (25, 48))
    noise = rng.integers(-3, 4, (60, 48)) * rng.integers(0, 4, (60, 1))
    thumbnails = (base[rng.integers(0, 25, 60)] + noise).astype(np.uint8)
    thumbnails[[50, 55]] = 255  # two flat ones
    pairs = list(near_partners(thumbnails))
    assert pairs == slow_partners(thumbnails)
    assert 10 < len(pairs) < 59


def test_nothing_to_compare():
    assert list(near_partners(np.empty((0, 48), dtype=np.uint8))) == []
    assert list(near_partners(np.zeros((1, 48), dtype=np.uint8))) == []
