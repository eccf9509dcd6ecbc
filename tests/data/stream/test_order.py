from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eyesmith.data.stream import shuffle
from eyesmith.data.stream.order import Position, Rows, StreamPlan
from eyesmith.errors import ConfigError, DataError

COUNTS = [[7, 0, 13, 20, 4, 9, 11]]


def ids(rows: Rows) -> list[tuple[int, int]]:
    return list(zip(rows.shard.tolist(), rows.sample.tolist(), strict=True))


def read(plan: StreamPlan, first: int, last: int) -> list[tuple[int, int]]:
    return [one for step in range(first, last) for one in ids(plan.batch(step))]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=9),
    lanes=st.integers(1, 4),
    lane_batch=st.integers(1, 5),
    window=st.integers(1, 40),
    seed=st.integers(0, 2**63),
)
def test_an_epoch_holds_no_sample_twice_and_leaves_out_less_than_a_batch_and_lanes(
    counts, lanes, lane_batch, window, seed
) -> None:
    if sum(counts) // lanes < lane_batch:
        with pytest.raises(DataError, match="less than one batch"):
            StreamPlan([counts], lanes * lane_batch, seed=seed, lanes=lanes, window=window)
        return
    plan = StreamPlan([counts], lanes * lane_batch, seed=seed, lanes=lanes, window=window)
    for epoch in (0, 1):
        got = read(plan, epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        assert len(set(got)) == len(got)
        assert all(0 <= sample < counts[shard] for shard, sample in got)
        assert sum(counts) - len(got) < lanes * lane_batch + lanes
    assert plan.epoch(plan.steps_per_epoch) == 1


def test_the_order_depends_on_seed_and_epoch_and_nothing_read_before() -> None:
    plan, again = (StreamPlan(COUNTS, 8, seed=3, window=16) for _ in range(2))
    forwards = [ids(plan.batch(step)) for step in range(20)]
    backwards = [ids(again.batch(step)) for step in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards[:8] != forwards[8:16]
    assert forwards != [ids(StreamPlan(COUNTS, 8, seed=4, window=16).batch(step)) for step in range(20)]


def test_the_order_is_this_one_for_ever() -> None:
    # written down when the order was made: a run must resume under any later version
    plan = StreamPlan([[3, 2, 4]], 4, seed=1, window=6)
    assert [ids(plan.batch(step)) for step in range(3)] == [
        [(2, 2), (2, 1), (0, 0), (0, 2)],
        [(2, 0), (0, 1), (2, 3), (1, 0)],
        [(0, 2), (0, 1), (2, 1), (2, 2)],
    ]


def ranks(size: int, seed: int, epoch: int, *counter: int) -> np.ndarray:
    """A shuffle as it is defined: all words drawn, all of them sorted."""
    generator = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, *counter], np.uint64))
    return np.argsort(generator.random_raw(size), kind="stable")


def whole_pass(counts: list[int], seed: int, epoch: int, lanes: int, window: int) -> list[list[tuple[int, int]]]:
    """Every lane of a pass over one group: written out, sample by sample."""
    order = ranks(len(counts), seed, epoch, 0, 0, 1).tolist()
    line = [(shard, sample) for shard in order for sample in range(counts[shard])]
    size = len(line) // lanes
    found = []
    for lane in range(lanes):
        own = line[lane * size : (lane + 1) * size]
        runs = [own[begin : begin + window] for begin in range(0, size, window)]
        found.append([run[i] for n, run in enumerate(runs) for i in ranks(len(run), seed, epoch, n, lane, 2)])
    return found


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    lanes=st.integers(1, 4),
    lane_batch=st.integers(1, 9),
    window=st.integers(1, 300),
    data=st.data(),
)
def test_any_rows_are_those_of_the_pass_written_out(counts, lanes, lane_batch, window, data) -> None:
    assume(sum(counts) // lanes >= lane_batch)
    plan = StreamPlan([counts], lanes * lane_batch, seed=6, lanes=lanes, window=window)
    step = data.draw(st.integers(0, 2 * plan.steps_per_epoch - 1))
    lane = data.draw(st.integers(0, lanes - 1))
    first = data.draw(st.integers(0, lane_batch - 1))
    last = data.draw(st.integers(first + 1, lane_batch))
    epoch, place = divmod(step, plan.steps_per_epoch)
    rows = whole_pass(counts, 6, epoch, lanes, window)[lane][place * lane_batch + first : place * lane_batch + last]
    assert ids(plan.rows(step, lane, first, last)) == rows


@pytest.mark.parametrize("lanes", [1, 64])
@pytest.mark.parametrize("weights", [(), (3.0, 2.0, 1.0)])
def test_a_process_computes_its_own_rows_and_no_others(monkeypatch, lanes, weights) -> None:
    sorted_numbers: list[int] = []
    drawn: list[int] = []
    argsort, draw = np.argsort, shuffle.Shuffle.__init__

    def counted_argsort(values: np.ndarray, **options: str) -> np.ndarray:
        sorted_numbers.append(len(values))
        return argsort(values, **options)

    def counted_draw(self: shuffle.Shuffle, size: int, **options: Any) -> None:
        drawn.append(size)
        draw(self, size, **options)

    sizes = (60_000, 30_000, 10_000) if weights else (100_000,)
    plan = StreamPlan([[12_800] * size for size in sizes], 90_112, seed=0, weights=weights, lanes=lanes)
    plan.rows(0, 0, 0, 200)  # the order of the shards, once a pass
    monkeypatch.setattr(np, "argsort", counted_argsort)
    monkeypatch.setattr(shuffle.Shuffle, "__init__", counted_draw)
    for step in range(1, 21):
        drawn.clear()
        sorted_numbers.clear()
        windows = plan.windows(step, 0, 176, 352)
        rows = plan.rows(step, 0, 176, 352)
        assert len(rows) == 176
        # own rows, and twice two standard deviations of a place in a window: 4 * sqrt(131072), for each source; sorted
        # again where it asks for the places of the sources, and where the number of rows before is counted
        assert sum(sorted_numbers) < 12_000
        assert max(sorted_numbers) < 4_000
        assert sum(drawn) <= (len(windows) * plan.window) + 2 * 8_192
    assert sum(len(group._windows._now) for group in plan._groups) <= 2 * len(sizes)


def test_samples_move_within_a_window_and_windows_read_few_shards() -> None:
    plan = StreamPlan([[10] * 20], 10, seed=0, window=30)
    for step in range(plan.steps_per_epoch):
        (window,) = plan.windows(step, 0, 0, 10)
        assert set(plan.batch(step).shard.tolist()) <= set(plan.shards(window).tolist())
        assert len(plan.shards(window)) <= 4
    first = [shard for shard, _ in read(plan, 0, 3)]
    assert first != sorted(first)
    assert set(first[:10]) == set(first[10:20])
    assert len(plan.shards(plan.windows(0, 0, 0, 10)[0]._replace(number=7))) == 0


def test_lanes_read_shards_of_their_own() -> None:
    plan = StreamPlan([[10] * 12], 12, seed=5, lanes=4, window=15)
    shards = [
        {shard for step in range(plan.steps_per_epoch) for shard in plan.lane(step, lane).shard.tolist()}
        for lane in range(4)
    ]
    assert [len(one) for one in shards] == [3, 3, 3, 3]
    assert set.union(*shards) == set(range(12))
    joined = [one for lane in range(4) for one in ids(plan.lane(1, lane))]
    assert joined == ids(plan.batch(1))


def test_a_later_batch_size_goes_on_without_loss_or_repetition() -> None:
    before = StreamPlan(COUNTS, 6, seed=2, window=10)
    read_before = read(before, 0, 4)
    after = StreamPlan(COUNTS, 8, seed=2, window=10, origin=before.position(4))
    steps = (64 - 24) // 8
    read_after = read(after, 4, 4 + steps)
    assert len(set(read_before + read_after)) == 64
    assert [after.epoch(step) for step in (4, 8, 9)] == [0, 0, 1]
    assert len(set(read(after, 9, 17))) == 64
    with pytest.raises(ConfigError, match="starts at step 4"):
        after.batch(3)


@pytest.mark.parametrize("lanes", [1, 2])
def test_weighted_sources_have_their_share_and_each_pass_is_whole(lanes) -> None:
    groups, weights = [[30, 20], [15], [400, 300]], (1.0, 2.0, 5.0)
    plan = StreamPlan(groups, 64, seed=7, weights=weights, lanes=lanes, window=100)
    source = np.array([0, 0, 1, 2, 2])
    per_source: dict[int, list[tuple[int, int, int, int]]] = {0: [], 1: [], 2: []}
    for step in range(128):
        for lane in range(lanes):
            rows = plan.lane(step, lane)
            for shard, sample, epoch in zip(
                rows.shard.tolist(), rows.sample.tolist(), rows.epoch.tolist(), strict=True
            ):
                per_source[int(source[shard])].append((epoch, shard, sample, lane))
    total = 128 * 64
    assert [len(per_source[number]) / total for number in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)
    for number, size in enumerate((50, 15, 700)):
        assert len({one[:3] for one in per_source[number]}) == len(per_source[number])
        for lane in range(lanes):
            passes = Counter(epoch for epoch, _, _, of in per_source[number] if of == lane)
            assert [passes[epoch] for epoch in range(max(passes))] == [size // lanes] * max(passes)
    origin = plan.position(50)
    resumed = StreamPlan(groups, 64, seed=7, weights=weights, lanes=lanes, window=100, origin=origin)
    assert read(resumed, 50, 60) == read(plan, 50, 60)


def test_numbers_that_make_no_sense_are_refused() -> None:
    for match, options in (
        ("lanes", {"lanes": 3}),
        ("window", {"window": 0}),
        ("weights: expected one", {"weights": (1.0, 2.0)}),
        ("weights: expected positive", {"weights": (-1.0,)}),
        ("seed", {"seed": -1}),
    ):
        with pytest.raises(ConfigError, match=match):
            StreamPlan(COUNTS, 8, **{"seed": 0, **options}).batch(0)
    with pytest.raises(DataError, match="64 usable samples, less than one batch of 65"):
        StreamPlan(COUNTS, 65, seed=0)


def test_the_position_of_a_billion_samples_is_found_at_once() -> None:
    plan = StreamPlan([[10_000] * 100_000], 4096, seed=0)
    step = 200_000
    rows = plan.batch(step)
    assert len(set(ids(rows))) == 4096
    assert plan.position(step) == Position(step=step, epoch=0, row=step * 4096)
