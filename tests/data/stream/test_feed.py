"""What 64 machines of 8 processes fetch in an epoch, and which rows their processes read: simulated in this one."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from eyesmith.data.stream import StreamPlan, feed
from eyesmith.data.stream.feed import Feed
from eyesmith.data.stream.index import ShardIndex
from eyesmith.data.stream.read import Chunk

NODES, PER_NODE = 64, 8
PER_SHARD, NUM_SHARDS = 100, 1280  # 20 shards for each machine
SHARD_BYTES = 1000


class NodeCache:
    """The cache of a machine: knows what it had to fetch."""

    limit_bytes = 10**9

    def __init__(self) -> None:
        self.fetched: set[str] = set()
        self.held: Counter[str] = Counter()

    def size(self, shard: str) -> int:
        return SHARD_BYTES

    def hold(self, shard: str) -> str:
        self.fetched.add(shard)
        self.held[shard] += 1
        return shard

    def release(self, shard: str) -> None:
        self.held[shard] -= 1


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def shard_index(path: str) -> ShardIndex:
        keys = [f"{path}/{sample}" for sample in range(PER_SHARD)]
        return ShardIndex(keys, np.zeros((PER_SHARD, 4, 2), dtype=np.int64), {}, {}, "")

    class Now:
        """Threads that do at once what they are given, so that the counts do not depend on their pace."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def map(self, action: Any, values: Any) -> Any:
            return [action(value) for value in values]

        def submit(self, action: Any, *values: Any) -> None:
            action(*values)

        def shutdown(self, **_: Any) -> None:
            pass

    monkeypatch.setattr(feed, "shard_index", shard_index)
    monkeypatch.setattr(feed, "prepare_index", lambda path: None)
    monkeypatch.setattr(feed, "ThreadPoolExecutor", Now)


def own_keys(chunks: list[Chunk]) -> list[str]:
    return [key for chunk in chunks for key in chunk.keys[: chunk.num_rows]]


def epoch(
    lanes: int, num_nodes: int, batch_size: int = 8192, window: int = 500
) -> tuple[list[NodeCache], list[list[str]]]:
    """The caches of all machines after one epoch, and the keys of every step, process after process."""
    plan = StreamPlan([[PER_SHARD] * NUM_SHARDS], batch_size, seed=1, lanes=lanes, window=window)
    shards = [f"memory://{number:04d}.tar" for number in range(NUM_SHARDS)]
    nodes = [NodeCache() for _ in range(num_nodes)]
    world_size = num_nodes * PER_NODE
    steps: list[list[str]] = [[] for _ in range(plan.steps_per_epoch)]
    for node, cache in enumerate(nodes):
        ranks = range(node * PER_NODE, (node + 1) * PER_NODE)
        feeds = [
            Feed(plan, shards, cache, rank=rank, world_size=world_size, chunk_rows=16)  # type: ignore[arg-type]
            for rank in ranks
        ]
        for step in range(plan.steps_per_epoch):
            got = [one.step(step) for one in feeds]
            for one, mine in zip(feeds, got, strict=True):
                steps[step].extend(own_keys(mine.chunks))
                one.done(mine)
        for one in feeds:
            one.close()
        assert not any(cache.held.values())
    return nodes, steps


def test_each_of_64_machines_fetches_its_own_share_and_no_sample_is_lost_or_doubled() -> None:
    nodes, steps = epoch(lanes=NODES, num_nodes=NODES)
    share = NUM_SHARDS // NODES
    fetched = [len(node.fetched) for node in nodes]
    # a lane is one run of the pass: its share, a shard cut at either end, and ahead the next pass's first window
    assert max(fetched) <= share + 2 + 500 // PER_SHARD + 1
    assert min(fetched) >= share * 0.9  # an epoch leaves out what fills no batch
    read = [key for step in steps for key in step]
    assert len(read) == len(set(read)) == 15 * 8192
    assert NUM_SHARDS * PER_SHARD - len(read) < 8192


def test_with_one_lane_every_machine_fetches_nearly_everything() -> None:
    nodes, _ = epoch(lanes=1, num_nodes=4, batch_size=2048, window=3000)
    assert min(len(node.fetched) for node in nodes) > 0.95 * NUM_SHARDS


@pytest.mark.parametrize("num_nodes", [1, 16, 32])
def test_with_the_lanes_of_64_machines_fewer_read_the_same_batches(num_nodes) -> None:
    plan = StreamPlan([[PER_SHARD] * NUM_SHARDS], 8192, seed=1, lanes=NODES, window=500)
    nodes, steps = epoch(lanes=NODES, num_nodes=num_nodes)
    for step in (0, 7, 14):
        rows = plan.batch(step)
        expected = [f"memory://{shard:04d}.tar/{sample}" for shard, sample in zip(rows.shard, rows.sample, strict=True)]
        assert steps[step] == expected
    lanes_each = NODES // num_nodes
    assert max(len(node.fetched) for node in nodes) <= lanes_each * (NUM_SHARDS // NODES + 2 + 6)


def test_stand_ins_are_the_next_rows_of_the_lane_and_wrap_where_its_batch_does() -> None:
    plan = StreamPlan([[PER_SHARD] * 6], 48, seed=2, lanes=2, window=30)
    shards = [f"{number}.tar" for number in range(6)]
    for world_size in (1, 2, 8, 16, 48):
        for rank in range(world_size):
            one = Feed(plan, shards, NodeCache(), rank=rank, world_size=world_size, chunk_rows=5)  # type: ignore[arg-type]
            row = rank * (48 // world_size)
            for chunk in one.step(3).chunks:
                lane, first = divmod(row, 24)
                rows = plan.lane(3, lane)
                wanted = [(first + number) % 24 for number in range(chunk.num_rows + 8)]
                assert chunk.keys == [f"{rows.shard[number]}.tar/{rows.sample[number]}" for number in wanted]
                row += chunk.num_rows
            assert row == (rank + 1) * (48 // world_size)


def test_only_the_windows_of_own_rows_are_held_and_the_next_ones_fetched_ahead() -> None:
    plan = StreamPlan([[PER_SHARD] * NUM_SHARDS], 1000, seed=0, window=500)
    shards = [f"{number}.tar" for number in range(NUM_SHARDS)]
    cache = NodeCache()
    one = Feed(plan, shards, cache, rank=0, world_size=10, chunk_rows=16)  # type: ignore[arg-type]
    for step in range(3):
        one.done(one.step(step))
        (now,), (coming,) = (plan.windows(at, 0, 0, 108) for at in (step, step + 1))
        assert {shard for shard, times in cache.held.items() if times} == {shards[i] for i in plan.shards(now)}
        assert {shards[i] for i in plan.shards(coming)} <= cache.fetched
    assert len(cache.fetched) <= 4 * 6
    longer = StreamPlan([[PER_SHARD] * 12], 100, seed=0, window=600)
    cache = NodeCache()
    one = Feed(longer, shards, cache, rank=0, world_size=10, chunk_rows=16)  # type: ignore[arg-type]
    one.step(0)
    assert cache.fetched == set(shards[:12])  # both windows of the pass
    cache.fetched.clear()
    one.step(6)
    first = longer.windows(12, 0, 0, 100)[0]
    assert {shards[i] for i in longer.shards(first)} <= cache.fetched  # of the next pass
