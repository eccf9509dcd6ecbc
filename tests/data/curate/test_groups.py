import numpy as np
import pytest

from eyesmith.data.curate import groups
from eyesmith.data.curate.groups import groups_of, kept_of_groups, spanning_pairs
from eyesmith.data.curate.uids import join_uids


def loop_groups(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    label = list(range(count))
    for _ in range(count):
        for i, j in pairs:
            label[i] = label[j] = min(label[i], label[j])
    return label


def test_a_chain_is_one_group_and_the_best_of_it_stays() -> None:
    found = groups_of(7, [np.array([[5, 6], [2, 5]]), np.array([[1, 2], [0, 3]])])
    assert found.tolist() == [0, 1, 1, 0, 4, 1, 1]
    uids = join_uids(np.array([9, 8, 7, 6, 5, 4, 3]), np.zeros(7, int))
    prefer = np.array([1.0, 2.0, 3.0, 1.0, np.nan, 3.0, np.nan])
    # of 0 and 3 the smaller uid, of the others the highest score and then the smaller uid
    assert kept_of_groups(found, prefer, uids).tolist() == [False, False, False, True, True, True, False]


def test_long_chains_are_joined() -> None:
    order = np.random.default_rng(0).permutation(500)
    pairs = np.stack([order[:-1], order[1:]], axis=1)
    assert (groups_of(500, [pairs]) == 0).all()
    assert groups_of(3, []).tolist() == [0, 1, 2]


@pytest.mark.parametrize("merge_pairs", [0, 40, 10**6])
def test_groups_equal_a_loop_however_pairs_arrive(merge_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_MERGE_PAIRS", merge_pairs)
    pairs = np.random.default_rng(1).integers(0, 300, (220, 2))
    expected = loop_groups(300, [tuple(pair) for pair in pairs.tolist()])
    assert 50 < len(set(expected)) < 200
    assert groups_of(300, np.split(pairs, range(7, 220, 7))).tolist() == expected


@pytest.mark.parametrize("density", [0.002, 0.05, 0.9])
def test_spanning_pairs_are_few_and_join_what_all_do(density: float) -> None:
    for seed in range(10):
        is_near = np.random.default_rng(seed).random((40, 60)) < density
        is_near[0, seed] = True
        some, every = spanning_pairs(is_near), np.argwhere(is_near)
        assert is_near[some[:, 0], some[:, 1]].all()
        joined = [groups_of(100, [pairs + np.array([0, 40])]).tolist() for pairs in (some, every)]
        assert joined[0] == joined[1]
        assert density < 0.5 or len(some) <= 300 < len(every)
