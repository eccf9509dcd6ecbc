import itertools
import sys

import numpy as np
import pytest

from eyesmith.data.curate import near_embeddings
from eyesmith.data.curate.groups import groups_of
from eyesmith.data.curate.near_embeddings import is_near_embedding, near_embedding_pairs
from eyesmith.errors import MissingDependencyError, ShapeError


def _near(rows: np.ndarray, least: float) -> list[tuple[int, int]]:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return [(i, j) for i, j in itertools.combinations(range(len(rows)), 2) if float(unit[i] @ unit[j]) >= least]


@pytest.mark.parametrize("block", [7, 4096])
def test_near_embeddings_equal_a_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_embeddings, "_BLOCK", block)
    rows = np.random.default_rng(1).normal(size=(60, 4))
    near = _near(rows, 0.9)
    assert len(near) > 10
    found = [*near_embedding_pairs(rows, 0.9, max_exact=60)]
    assert {(min(pair), max(pair)) for part in found for pair in part.tolist()} <= set(near)
    assert groups_of(60, found).tolist() == groups_of(60, [np.array(near)]).tolist()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [max(float(unit[i] @ unit[j]) for j in range(20)) >= 0.9 for i in range(60)]
    assert is_near_embedding(rows, rows[:20], 0.9).tolist() == expected
    with pytest.raises(ShapeError, match="different encoders"):
        is_near_embedding(rows, rows[:, :3], 0.9)


def test_within_clusters_nearly_all_copies_are_found_and_no_others() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, 32))[rng.integers(0, 40, 4000)] + 0.7 * rng.normal(size=(4000, 32))
    rows[3000:] = rows[:1000] + 0.05 * rng.normal(size=(1000, 32))
    rows[17] = np.nan  # a picture without features is near none
    rows[3017] = 0
    exact, found = (groups_of(4000, near_embedding_pairs(rows, 0.97, max_exact=limit)) for limit in (4000, 3999))
    assert (found[3000:] == np.arange(1000)).mean() > 0.98
    assert (exact[3000:] == np.arange(1000)).mean() > 0.99
    assert (exact[found] == exact).all()  # no group that is not one exactly
    again = groups_of(4000, near_embedding_pairs(rows, 0.97, max_exact=3999))
    np.testing.assert_array_equal(again, found)


def test_clusters_without_faiss_say_what_is_missing_and_the_exact_search_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows = np.eye(4)
    assert not [*near_embedding_pairs(rows, 0.9, max_exact=4)]
    with pytest.raises(MissingDependencyError, match=r"eyesmith\[curate\].*max_exact"):
        next(near_embedding_pairs(rows, 0.9, max_exact=3))


def test_many_equal_pictures_are_few_pairs() -> None:
    rows = np.ones((3000, 8)) + 0.001 * np.random.default_rng(0).normal(size=(3000, 8))
    found = [*near_embedding_pairs(rows, 0.99, max_exact=3000)]
    assert sum(map(len, found)) <= 6000
    assert (groups_of(3000, found) == 0).all()
