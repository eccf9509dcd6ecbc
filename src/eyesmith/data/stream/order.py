"""The order of samples in shards: a pure function of (seed, shards, lanes), looked up window by window.

Nothing of the order is kept but the windows in use, so a billion samples need no permutation of a billion numbers, and
a step number is the whole position. Only the rows that are asked for are computed, so a process pays for its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eyesmith.data.stream.shuffle import Recent, Shuffle
from eyesmith.errors import ConfigError, DataError

DEFAULT_WINDOW = 1 << 17  # samples shuffled together; open_clip's sample buffer holds 5,000
_BLOCK = 1 << 13  # rows in which a weighted source has its share, rounded to whole rows
_Run = tuple[np.ndarray, int, int, int, int]  # places among the rows asked for, group, pass, first row of it, end
_SHARDS, _WINDOW, _MIXTURE = 1, 2, 3  # which order a stream of random words is for; 0 is data/order.py's


class Window(NamedTuple):
    """A run of one pass over one group of shards whose samples are shuffled together."""

    group: int
    lane: int
    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Which samples some rows of a batch are. All int64 [n]: the shard's number, the sample's number in it, the pass.

    shard counts over all groups; epoch is the pass over the row's own group, counted from 0.
    """

    shard: np.ndarray
    sample: np.ndarray
    epoch: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, rows: np.ndarray | slice) -> "Rows":
        """Some of the rows."""
        return Rows(self.shard[rows], self.sample[rows], self.epoch[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a global step starts: `row` rows of each lane's `epoch` have been given out before it."""

    step: int = 0
    epoch: int = 0
    row: int = 0


class GroupOrder:
    """Endless passes over one group of shards, cut into lanes that read different shards.

    Each pass puts the shards in a random order, joins them to one line of samples, and cuts the line into `lanes` equal
    parts (a shard may lie in two; the last num_samples % lanes samples wait for a later pass). In a lane, each run of
    `window` samples is shuffled as a whole.
    """

    def __init__(self, counts: Sequence[int], *, group: int, seed: int, lanes: int, window: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)  # [shards]
        self.num_samples = int(self.counts.sum())
        self.lane_len = self.num_samples // lanes
        self._group, self._seed, self._window = group, seed, window
        self._passes: Recent[int, tuple[np.ndarray, np.ndarray]] = Recent()
        self._windows: Recent[Window, Shuffle] = Recent()

    def next_round(self) -> None:
        """Let go of what neither this round nor the one before it asked for; a round is a step's rows."""
        self._passes.next_round()
        self._windows.next_round()

    def rows(self, lane: int, epoch: int, start: int, stop: int) -> Rows:
        """Rows start .. stop - 1 of a lane in one pass, 0 <= start <= stop <= lane_len."""
        parts = []
        while start < stop:
            number, offset = divmod(start, self._window)
            end = min(stop, (number + 1) * self._window)
            shuffle = self._shuffle(Window(self._group, lane, epoch, number))
            line = shuffle.part(offset, offset + end - start) + (lane * self.lane_len + number * self._window)
            parts.append(self._find(epoch, line))
            start = end
        return join(parts)

    def windows(self, lane: int, epoch: int, start: int, stop: int) -> list[Window]:
        """The windows that rows start .. stop - 1 lie in."""
        numbers = range(start // self._window, (stop - 1) // self._window + 1) if stop > start else range(0)
        return [Window(self._group, lane, epoch, number) for number in numbers]

    def shards(self, window: Window) -> np.ndarray:
        """Numbers of the shards that a window reads, in the order of the pass; empty past the end of the lane."""
        start = window.number * self._window
        stop = min(start + self._window, self.lane_len)
        if start >= stop:
            return np.empty(0, dtype=np.int64)
        order, ends = self._pass(window.epoch)
        base = window.lane * self.lane_len
        first, last = np.searchsorted(ends, [base + start, base + stop - 1], side="right")
        touched = order[first : last + 1]
        return touched[self.counts[touched] > 0]

    def _find(self, epoch: int, line: np.ndarray) -> Rows:
        order, ends = self._pass(epoch)
        place = np.searchsorted(ends, line, side="right")
        shard = order[place]
        return Rows(shard, line - (ends[place] - self.counts[shard]), np.full(len(line), epoch, dtype=np.int64))

    def _pass(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards in the order of a pass, and where each ends on the line of samples: int64 [shards] both."""

        def make() -> tuple[np.ndarray, np.ndarray]:
            shuffle = Shuffle(len(self.counts), seed=self._seed, epoch=epoch, stream=(_SHARDS, self._group, 0))
            order = shuffle.all()
            return order, np.cumsum(self.counts[order])

        return self._passes.get(epoch, make)

    def _shuffle(self, window: Window) -> Shuffle:
        """The order of a window's samples, counted from its first."""

        def make() -> Shuffle:
            size = min(self._window, self.lane_len - window.number * self._window)
            stream = (_WINDOW, (self._group << 32) | window.lane, window.number)
            return Shuffle(size, seed=self._seed, epoch=window.epoch, stream=stream)

        return self._windows.get(window, make)


class StreamPlan:
    """Which samples each global step trains on, when they lie in shards.

    Without weights there is one group of shards and every epoch is one pass over it: no sample twice, and only the last
    samples that fill no batch are left out (others each epoch). With weights each source is a group of its own that
    begins its next pass whenever one ends, and each 8,192 rows of a lane hold every source's share of them.

    A global batch is the batches of the lanes joined, each batch_size / lanes rows. The plan does not depend on the
    number of processes: process r of w takes rows r * b .. (r + 1) * b - 1, b = batch_size / w. With `lanes` a multiple
    or a divisor of w, a process reads only the shards of its own lanes.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        *,
        seed: int,
        weights: Sequence[float] = (),
        lanes: int = 1,
        window: int = DEFAULT_WINDOW,
        origin: Position | None = None,
    ) -> None:
        """groups: samples of each shard, group by group. weights: one a group, or none for one group.

        origin: a step whose place is known from an earlier run, possibly with another batch size; steps count on from
        it. Raises ConfigError for numbers that make no sense, DataError when there is less than one batch.
        """
        if batch_size < 1 or lanes < 1 or batch_size % lanes:
            raise ConfigError(f"lanes: expected a divisor of the batch size, got {lanes} for a batch of {batch_size}")
        if window < 1:
            raise ConfigError(f"window: expected 1 or more samples, got {window}")
        if len(weights) != len(groups) and (weights or len(groups) != 1):
            raise ConfigError(f"weights: expected one for each of {len(groups)} sources, got {len(weights)}")
        if any(not 0 < weight < float("inf") for weight in weights):
            raise ConfigError(f"weights: expected positive numbers, got {tuple(weights)}")
        self.batch_size, self.seed, self.lanes, self.window = batch_size, seed, lanes, window
        self.origin = Position() if origin is None else origin
        self.lane_batch = batch_size // lanes
        self._groups = [
            GroupOrder(counts, group=number, seed=seed, lanes=lanes, window=window)
            for number, counts in enumerate(groups)
        ]
        self._first_shard = np.cumsum([0, *(len(counts) for counts in groups)])
        self.num_samples = sum(group.num_samples for group in self._groups)
        self.steps_per_epoch = self.num_samples // batch_size
        if len(groups) == 1:
            self.steps_per_epoch = self._groups[0].lane_len // self.lane_batch
        empty = any(group.lane_len < 1 for group in self._groups)
        if self.steps_per_epoch < 1 or empty:
            raise DataError(
                f"the shards hold {self.num_samples:,} usable samples, less than one batch of {batch_size:,} "
                f"in {lanes} lane(s); lower the batch size"
            )
        self._mixture = _Mixture(weights, seed) if len(groups) > 1 else None
        self._mixed: Recent[tuple[int, int, int], list[_Run]] = Recent()
        self._step = -1  # the one whose rows were asked for last

    def epoch(self, step: int) -> int:
        """Epoch that a global step belongs to, counted from 0; of weighted sources, batches the size of one."""
        return self.position(step).epoch

    def position(self, step: int) -> Position:
        """Where a global step starts. Raises ConfigError for a step before the origin."""
        done = step - self.origin.step
        if done < 0:
            raise ConfigError(f"step: this plan starts at step {self.origin.step}, got {step}")
        if self._mixture is not None:
            row = self.origin.row + done * self.lane_batch
            return Position(step=step, epoch=row // (self.steps_per_epoch * self.lane_batch), row=row)
        left = (self._groups[0].lane_len - self.origin.row) // self.lane_batch  # of the epoch the origin lies in
        if done < left:
            return Position(step=step, epoch=self.origin.epoch, row=self.origin.row + done * self.lane_batch)
        epochs, place = divmod(done - left, self.steps_per_epoch)
        return Position(step=step, epoch=self.origin.epoch + 1 + epochs, row=place * self.lane_batch)

    def batch(self, step: int) -> Rows:
        """The samples of a global step, lane after lane."""
        return join([self.lane(step, lane) for lane in range(self.lanes)])

    def lane(self, step: int, lane: int) -> Rows:
        """The samples of one lane in a global step."""
        return self.rows(step, lane, 0, self.lane_batch)

    def rows(self, step: int, lane: int, first: int, last: int) -> Rows:
        """Rows first .. last - 1 of one lane's batch in a global step, 0 <= first < last <= lane_batch."""
        if step != self._step:
            self._step = step
            for kept in (*self._groups, self._mixture, self._mixed):
                if kept is not None:
                    kept.next_round()
        parts = [
            (places, group, self._groups[group].rows(lane, epoch, start, stop))
            for places, group, epoch, start, stop in self._runs(step, lane, first, last)
        ]
        joined = join(
            [Rows(rows.shard + self._first_shard[group], rows.sample, rows.epoch) for _, group, rows in parts]
        )
        order = np.argsort(np.concatenate([places for places, _, _ in parts]), kind="stable")
        return joined.take(order)

    def windows(self, step: int, lane: int, first: int, last: int) -> list[Window]:
        """The windows that rows first .. last - 1 of a lane's batch read in a global step."""
        runs = self._runs(step, lane, first, last)
        found = (self._groups[group].windows(lane, epoch, start, stop) for _, group, epoch, start, stop in runs)
        return list(dict.fromkeys(window for windows in found for window in windows))

    def shards(self, window: Window) -> np.ndarray:
        """Numbers, over all groups, of the shards that a window reads; empty past the end of its lane."""
        return self._groups[window.group].shards(window) + self._first_shard[window.group]

    def _runs(self, step: int, lane: int, first: int, last: int) -> list[_Run]:
        """Rows of a lane's batch as consecutive rows of passes."""
        at = self.position(step)
        start, stop = at.row + first, at.row + last
        if self._mixture is None:
            return [(np.arange(last - first), 0, at.epoch, start, stop)]
        return self._mixed.get((lane, start, stop), lambda: self._mix(lane, start, stop))

    def _mix(self, lane: int, first: int, last: int) -> list[_Run]:
        """The same of rows counted from the lane's first, where sources are weighted."""
        assert self._mixture is not None
        runs = []
        drawn = self._mixture.groups(lane, first, last)
        given_out = self._mixture.given_out(lane, first).tolist()
        for number, group in enumerate(self._groups):
            places = np.flatnonzero(drawn == number)
            start, stop = given_out[number], given_out[number] + len(places)
            while start < stop:
                epoch, row = divmod(start, group.lane_len)
                size = min(stop - start, group.lane_len - row)
                runs.append((places[:size], number, epoch, row, row + size))
                places, start = places[size:], start + size
        return runs


class _Mixture:
    """Which group each row of a lane comes from: in every block of rows each has its share, in random places."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        share = np.asarray(weights, dtype=np.float64) / sum(weights) * _BLOCK
        quota = np.maximum(np.floor(share), 1).astype(np.int64)  # [groups]
        # largest remainder; a group held up to one row takes it from the one with the largest share
        for number in np.argsort(quota - share, kind="stable")[: max(_BLOCK - int(quota.sum()), 0)]:
            quota[number] += 1
        quota[np.argmax(quota)] += _BLOCK - int(quota.sum())
        if quota.min() < 1:
            raise ConfigError(f"weights: too many sources for blocks of {_BLOCK} rows: {len(quota)}")
        self._quota, self._seed = quota, seed
        self._ends = np.cumsum(quota)  # of each group's numbers in a block, before they are shuffled
        self._blocks: Recent[tuple[int, int], Shuffle] = Recent()

    def next_round(self) -> None:
        """Let go of what neither this round nor the one before it asked for; a round is a step's rows."""
        self._blocks.next_round()

    def groups(self, lane: int, start: int, stop: int) -> np.ndarray:
        """Group of rows start .. stop - 1: int64 [stop - start]."""
        parts = []
        while start < stop:
            block, place = divmod(start, _BLOCK)
            size = min(stop - start, _BLOCK - place)
            parts.append(self._block(lane, block).part(place, place + size))
            start += size
        return np.searchsorted(self._ends, np.concatenate(parts), side="right")

    def given_out(self, lane: int, row: int) -> np.ndarray:
        """How many of the lane's rows before `row` come from each group: int64 [groups]."""
        block, place = divmod(row, _BLOCK)
        return block * self._quota + self._block(lane, block).counts_before(place, self._ends - self._quota)

    def _block(self, lane: int, block: int) -> Shuffle:
        return self._blocks.get(
            (lane, block), lambda: Shuffle(_BLOCK, seed=self._seed, epoch=0, stream=(_MIXTURE, lane, block))
        )


def join(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("shard", "sample", "epoch")]
    return Rows(*columns)
