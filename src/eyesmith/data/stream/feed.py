"""What the next step reads: its windows' shards fetched, indexed and held, its rows as chunks for the readers."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from eyesmith.data.stream.fetch import ShardCache
from eyesmith.data.stream.index import ShardIndex, prepare_index, shard_index
from eyesmith.data.stream.order import StreamPlan, Window, join
from eyesmith.data.stream.read import NUM_STAND_INS, Chunk
from eyesmith.errors import ConfigError, DataError

_FETCHES = 4  # shards fetched at once
_ABSENT = np.array([[0, -1]] * 4, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class StepFeed:
    """One step of one process: chunks in the order of its rows, and the shards that nobody needs once it is read."""

    step: int
    chunks: list[Chunk]
    done_with: list[str]


class Feed:
    """Turns steps, in rising order, into chunks. One thread asks for steps, another may say which are `done`."""

    def __init__(
        self, plan: StreamPlan, shards: Sequence[str], cache: ShardCache, *, rank: int, world_size: int, chunk_rows: int
    ) -> None:
        """Raises ConfigError unless the batch divides by world_size."""
        if not 0 <= rank < world_size or plan.batch_size % world_size:
            raise ConfigError(
                f"cannot cut a batch of {plan.batch_size} for process {rank} of {world_size}: "
                "expected a world size that divides the batch"
            )
        self.local_batch = plan.batch_size // world_size
        self._plan, self._shards, self._cache, self._chunk_rows = plan, shards, cache, chunk_rows
        self._first_row = rank * self.local_batch
        self._held: dict[int, tuple[str, ShardIndex]] = {}  # by number, of the windows in use
        self._windows: list[Window] = []
        self._leaving: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._fetcher: ThreadPoolExecutor | None = None

    def step(self, step: int) -> StepFeed:
        """The chunks of a step. Raises DataError when a shard cannot be had or the cache is too small."""
        done_with = self._use(self._windows_of(step), step)
        chunks = [chunk for lane in self._lanes() for chunk in self._lane(step, lane)]
        return StepFeed(step, chunks, done_with)

    def done(self, feed: StepFeed) -> None:
        """Say that a step has been read: its last shards may be deleted from the cache."""
        for shard in feed.done_with:
            self._cache.release(shard)
            with self._lock:
                self._leaving[shard] -= 1

    def close(self) -> None:
        """Release everything; nothing asked for may still be being read."""
        if self._fetcher is not None:
            self._fetcher.shutdown(wait=True, cancel_futures=True)
            self._fetcher = None
        for number in self._held:
            self._cache.release(self._shards[number])
        for shard in self._leaving.elements():
            self._cache.release(shard)
        self._held, self._windows, self._leaving = {}, [], Counter()

    def _lanes(self) -> range:
        size = self._plan.lane_batch
        return range(self._first_row // size, (self._first_row + self.local_batch - 1) // size + 1)

    def _windows_of(self, step: int) -> list[Window]:
        parts = [(lane, first, last) for lane in self._lanes() for first, last in self._pieces(lane)]
        return list(dict.fromkeys(window for part in parts for window in self._plan.windows(step, *part)))

    def _coming(self, step: int, windows: list[Window]) -> list[Window]:
        """Those read next: of the next step if it reads others, else those that follow, perhaps a pass later."""
        coming = self._windows_of(step + 1)
        if coming != windows:
            return coming
        following = [window._replace(number=window.number + 1) for window in windows]
        return [
            new if len(self._plan.shards(new)) else new._replace(epoch=new.epoch + 1, number=0) for new in following
        ]

    def _use(self, windows: list[Window], step: int) -> list[str]:
        """Hold the shards of the windows in use, and name those that are no longer needed."""
        if windows == self._windows:
            return []
        wanted = {int(number): None for window in windows for number in self._plan.shards(window)}
        coming = [
            int(number)
            for window in self._coming(step, windows)
            for number in self._plan.shards(window)
            if int(number) not in wanted
        ]
        room = self._cache.limit_bytes - sum(self._cache.size(self._shards[number]) for number in wanted)
        if room < 0:
            raise DataError(
                f"the {len(wanted)} shards that are shuffled together need "
                f"{(self._cache.limit_bytes - room) / 2**30:.1f} GiB, the cache of remote shards may hold "
                f"{self._cache.limit_bytes / 2**30:.1f}; raise cache_gib or lower window"
            )
        new = [number for number in wanted if number not in self._held]
        self._held.update(zip(new, self._pool().map(self._hold, new), strict=True))
        for number in coming:
            room -= self._cache.size(self._shards[number])
            if room < 0:
                break
            self._pool().submit(self._prepare, number)
        self._windows = windows
        left = [number for number in self._held if number not in wanted]
        for number in left:
            del self._held[number]
        done_with = [self._shards[number] for number in left]
        with self._lock:
            self._leaving.update(done_with)
        return done_with

    def _hold(self, number: int) -> tuple[str, ShardIndex]:
        path = self._cache.hold(self._shards[number])
        return path, shard_index(path)

    def _prepare(self, number: int) -> None:
        """Fetch and index what a later step will hold."""
        path = self._cache.hold(self._shards[number])
        try:
            prepare_index(path)
        finally:
            self._cache.release(self._shards[number])

    def _pool(self) -> ThreadPoolExecutor:
        if self._fetcher is None:
            self._fetcher = ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch")
        return self._fetcher

    def _own(self, lane: int) -> tuple[int, int]:
        """The first and the end of this process's rows in a lane's batch."""
        start = lane * self._plan.lane_batch
        return max(self._first_row - start, 0), min(self._first_row + self.local_batch - start, self._plan.lane_batch)

    def _pieces(self, lane: int) -> list[tuple[int, int]]:
        """First and end of what is read of a lane's batch: own rows and those that may stand in for the last of them.

        Past the end of the lane's batch its first rows stand in.
        """
        (first, last), size = self._own(lane), self._plan.lane_batch
        over = min(last + NUM_STAND_INS - size, first)
        return [(first, min(last + NUM_STAND_INS, size)), *([(0, over)] if over > 0 else [])]

    def _lane(self, step: int, lane: int) -> list[Chunk]:
        (first, last), size = self._own(lane), self._plan.lane_batch
        rows = join([self._plan.rows(step, lane, *piece) for piece in self._pieces(lane)])
        chunks = []
        for begin in range(first, last, self._chunk_rows):
            end = min(begin + self._chunk_rows, last)
            places = np.arange(begin, end + NUM_STAND_INS) % size
            part = rows.take((places - first) % size)  # rows begins with row `first` and wraps where the batch does
            chunks.append(self._chunk(end - begin, part.shard.tolist(), part.sample.tolist(), part.epoch))
        return chunks

    def _chunk(self, num_rows: int, shards: list[int], samples: list[int], epochs: np.ndarray) -> Chunk:
        numbers = {number: place for place, number in enumerate(dict.fromkeys(shards))}
        keys, places = [], np.empty((len(shards), 4, 2), dtype=np.int64)
        for row, (shard, sample) in enumerate(zip(shards, samples, strict=True)):
            index = self._held[shard][1]
            if sample < len(index):
                keys.append(index.keys[sample])
                places[row] = index.places[sample]
            else:  # a stated count was too high
                keys.append(f"#{sample}")
                places[row] = _ABSENT
        return Chunk(
            num_rows=num_rows,
            paths=tuple(self._held[number][0] for number in numbers),
            path_of=np.array([numbers[shard] for shard in shards], dtype=np.int64),
            keys=keys,
            epochs=epochs,
            places=places,
        )
