import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyesmith.data.order import BatchPlan, GroupedPlan, epoch_order
from eyesmith.errors import ConfigError, DataError


def philox_words(number: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 in plain integers (Salmon et al. 2011), counting from 1 as NumPy does."""
    words: list[int] = []
    counter, mask = 1, (1 << 64) - 1
    while len(words) < number:
        x = [counter >> (64 * i) & mask for i in range(4)]
        k0, k1 = key
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
            x = [(b >> 64) ^ x[1] ^ k0, b & mask, (a >> 64) ^ x[3] ^ k1, a & mask]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += x
        counter += 1
    return words[:number]


def test_order_is_the_rank_of_the_published_generator():
    for seed, epoch in ((0, 0), (7, 3), ((1 << 64) - 1, 5)):
        words = philox_words(50, (seed, epoch))
        expected = sorted(range(50), key=words.__getitem__)
        assert epoch_order(50, seed=seed, epoch=epoch).tolist() == expected


def test_golden_orders():
    assert epoch_order(10, seed=0, epoch=0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert epoch_order(10, seed=0, epoch=1).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert epoch_order(10, seed=1, epoch=0).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]


@given(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(0, 2**32))
def test_every_order_is_a_permutation(num_samples, seed, epoch):
    order = epoch_order(num_samples, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num_samples))


def test_every_place_is_equally_likely():
    firsts = np.bincount([epoch_order(8, seed=5, epoch=epoch)[0] for epoch in range(4000)], minlength=8)
    assert ((firsts - 500) ** 2 / 500).sum() < 24.3  # chi-square, 7 degrees of freedom, one chance in a thousand


@pytest.mark.parametrize("wrong", [{"seed": -1, "epoch": 0}, {"seed": 0, "epoch": -1}, {"seed": 1 << 64, "epoch": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        epoch_order(4, **wrong)


def test_batches_cut_the_epochs_and_drop_the_rest():
    plan = BatchPlan(11, 4, seed=9)
    assert plan.steps_per_epoch == 2
    for step in range(6):
        order = epoch_order(11, seed=9, epoch=plan.epoch(step))
        first = step % 2 * 4
        assert plan.batch(step).tolist() == order[first : first + 4].tolist()
    assert [plan.epoch(step) for step in range(5)] == [0, 0, 1, 1, 2]


def test_step_is_the_whole_state():
    forward = BatchPlan(23, 5, seed=2)
    expected = [forward.batch(step).tolist() for step in range(20)]
    for step in (13, 2, 19, 0, 13):  # any order, a new plan or an old one
        assert BatchPlan(23, 5, seed=2).batch(step).tolist() == expected[step]
        assert forward.batch(step).tolist() == expected[step]


def test_a_changed_batch_does_not_change_the_plan():
    plan = BatchPlan(8, 4, seed=0)
    before = plan.batch(0).tolist()
    plan.batch(0)[:] = -1
    assert plan.batch(0).tolist() == before


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_local_batches_joined_are_the_batch(world_size):
    plan = BatchPlan(50, 8, seed=1)
    parts = [plan.local_batch(3, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == plan.batch(3).tolist()


def test_plans_that_cannot_be():
    with pytest.raises(DataError, match="3 usable samples, less than one batch of 4"):
        BatchPlan(3, 4, seed=0)
    with pytest.raises(ConfigError, match="batch_size"):
        BatchPlan(3, 0, seed=0)
    with pytest.raises(ConfigError, match="step"):
        BatchPlan(8, 4, seed=0).batch(-1)
    with pytest.raises(ConfigError, match="process 1 of 3"):
        BatchPlan(8, 4, seed=0).local_batch(0, rank=1, world_size=3)


def test_grouped_batches_are_alike_and_still_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(0, 1000, 200)
    keys = np.stack([np.arange(200) % 5 > 0, lengths], 1).astype(np.int64)
    plan = GroupedPlan(keys, 8, seed=3)
    orders = []
    for epoch in range(2):
        batches = [plan.batch(step) for step in range(epoch * 25, epoch * 25 + 25)]
        assert sorted(np.concatenate(batches)) == list(range(200))
        spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
        assert spread < 0.5 * np.mean([np.ptp(lengths[start : start + 8]) for start in range(0, 200, 8)])
        mixed = [batch for batch in batches if len(set(keys[batch, 0])) > 1]
        assert len(mixed) <= 4, "a batch holds one kind, but where a group of batches turns to the next"
        orders.append([tuple(batch) for batch in batches])
    assert set(orders[0]).isdisjoint(orders[1]), "no row has a fixed neighbour"


def test_a_grouped_step_depends_on_nothing_but_its_number() -> None:
    keys = np.random.default_rng(1).integers(0, 50, (37, 2))
    steps = [GroupedPlan(keys, 4, seed=1).batch(step).tolist() for step in range(20)]
    plan = GroupedPlan(keys, 4, seed=1)
    for step in (19, 3, 8, 9, 0, 18):
        assert plan.batch(step).tolist() == steps[step]
    assert steps != [GroupedPlan(keys, 4, seed=2).batch(step).tolist() for step in range(20)]
