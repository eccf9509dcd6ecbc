"""Random orders of which one part is looked up at a time: the draws behind the order of a stream."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from eyesmith.errors import ConfigError

Key = TypeVar("Key")
Value = TypeVar("Value")
_WORD_BITS = 64
_DEVIATIONS = 4.0  # of an order statistic, sqrt(size) / 2 places each: how far around the wanted places one looks first


class Shuffle:
    """A random order of 0 .. size - 1: the ranks of `size` words of Philox4x64, equal words in order of their number.

    Nothing is sorted but what is asked for: drawing the words takes a twentieth of the time that sorting them does.
    """

    def __init__(self, size: int, *, seed: int, epoch: int, stream: tuple[int, int, int]) -> None:
        """Key (seed, epoch), the counter's upper words `stream`. Raises ConfigError for a negative seed or epoch."""
        if seed < 0 or epoch < 0:
            raise ConfigError(f"seed and epoch: expected 0 or more, got {seed} and {epoch}")
        tag, high, low = stream
        generator = np.random.Philox(
            key=np.array([seed, epoch], dtype=np.uint64), counter=np.array([0, low, high, tag], dtype=np.uint64)
        )
        self._words = generator.random_raw(size)  # uint64 [size]

    def all(self) -> np.ndarray:
        """The whole order: int64 [size]."""
        return np.argsort(self._words, kind="stable")

    def part(self, start: int, stop: int) -> np.ndarray:
        """Places start .. stop - 1 of the order, 0 <= start <= stop <= size: int64 [stop - start]."""
        words, size = self._words, len(self._words)
        reach = _DEVIATIONS / 2 * size**0.5
        while True:
            low, high = _word_at((start - reach) / size), _word_at((stop + reach) / size)
            is_near = np.ones(size, dtype=bool) if low is None else words >= low
            num_below = size - int(np.count_nonzero(is_near))
            if high is not None:
                is_near &= words < high
            near = np.flatnonzero(is_near)
            if num_below <= start and stop <= num_below + len(near):
                return near[np.argsort(words[near], kind="stable")[start - num_below : stop - num_below]]
            reach *= 2

    def counts_before(self, place: int, firsts: np.ndarray) -> np.ndarray:
        """How many numbers of each run stand before `place`, 0 <= place < size: int64 [runs].

        firsts: the first number of each run, rising from 0; a run ends where the next begins.
        """
        number = int(self.part(place, place + 1)[0])
        words, word = self._words, self._words[number]
        is_before = words < word
        is_before[:number] |= words[:number] == word
        return np.add.reduceat(is_before, firsts, dtype=np.int64)


class Recent(Generic[Key, Value]):
    """What was asked for in this round and in the one before; anything older is let go."""

    def __init__(self) -> None:
        self._now: dict[Key, Value] = {}
        self._before: dict[Key, Value] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value kept for a key, made if there is none."""
        value = self._now.get(key)
        if value is None:
            value = self._before.get(key)
            self._now[key] = value = make() if value is None else value
        return value

    def next_round(self) -> None:
        """Begin a round."""
        self._before, self._now = self._now, {}


def _word_at(frac: float) -> np.uint64 | None:
    """The word that `frac` of all words lie below; None outside 0 .. 1, where nothing or everything does."""
    return np.uint64(int(frac * 2.0**_WORD_BITS)) if 0 < frac < 1 else None
