"""The order of samples: a pure function of seed and epoch, so that a step number is the whole position in the data.

Built on the raw 64-bit stream of the Philox generator, which NumPy keeps unchanged between versions (unlike the methods
of its Generator), so the same seed gives the same order on every machine and in every later version.
"""

import numpy as np

from eyesmith.errors import ConfigError, DataError

_WORD = 1 << 64


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Permutation of 0 .. num_samples - 1 for one epoch: int64 [num_samples].

    The ranks of Philox4x64's first num_samples words with key (seed, epoch), ties (about n^2 / 2^65) in index order.
    Raises ConfigError when a number is negative or does not fit 64 bits.
    """
    _check_word("num_samples", num_samples)
    stream = np.random.Philox(key=_key(seed, epoch))
    return np.argsort(stream.random_raw(num_samples), kind="stable")


def batch_order(num_batches: int, *, seed: int, epoch: int) -> np.ndarray:
    """Permutation of an epoch's batches where these are made before they are ordered: int64 [num_batches].

    Another stream than that of the samples: the epochs of the negated seed.
    """
    return epoch_order(num_batches, seed=(_WORD - 1) - seed, epoch=epoch)


def step_seed(seed: int, step: int) -> int:
    """A seed for torch's generators, different for every run seed and step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


class BatchPlan:
    """Which samples each global step trains on.

    Every epoch is its own permutation, cut into whole batches: the last num_samples % batch_size samples of an epoch's
    order are dropped in that epoch (others in the next one), so every batch is full and an epoch has
    num_samples // batch_size steps. The plan has no state: `batch(step)` may be asked for in any order, and a run that
    resumes at step n needs n alone. It does not depend on the number of processes; `local_batch` cuts it for them.
    """

    def __init__(self, num_samples: int, batch_size: int, *, seed: int) -> None:
        """batch_size: samples of a step over all processes. Raises DataError when there is less than one batch."""
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected 1 or more, got {batch_size}")
        if num_samples < batch_size:
            raise DataError(
                f"the data set has {num_samples:,} usable samples, less than one batch of {batch_size:,}; "
                "lower the batch size"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = num_samples // batch_size
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had."""
        return step * self.batch_size

    def epoch(self, step: int) -> int:
        """Epoch that a global step belongs to, counted from 0."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Sample ids of a global step (counted from 0): int64 [batch_size]."""
        if step < 0:
            raise ConfigError(f"step: expected 0 or more, got {step}")
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = epoch_order(self.num_samples, seed=self.seed, epoch=epoch)
            self._epoch = epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size].copy()

    def local_batch(self, step: int, *, rank: int, world_size: int) -> np.ndarray:
        """The part of a step for one of `world_size` processes: int64 [batch_size // world_size], consecutive ids.

        Joined in the order of the ranks, the parts are `batch(step)`. Raises ConfigError unless the batch divides so.
        """
        if not 0 <= rank < world_size or self.batch_size % world_size:
            raise ConfigError(
                f"cannot cut a batch of {self.batch_size} for process {rank} of {world_size}: "
                "expected a world size that divides the batch"
            )
        size = self.batch_size // world_size
        return self.batch(step)[rank * size : (rank + 1) * size]


def _key(seed: int, epoch: int) -> np.ndarray:
    _check_word("seed", seed)
    _check_word("epoch", epoch)
    return np.array([seed, epoch], dtype=np.uint64)


def _check_word(name: str, value: int) -> None:
    if not 0 <= value < _WORD:
        raise ConfigError(f"{name}: expected 0 to 2^64 - 1, got {value}")


class GroupedPlan(BatchPlan):
    """Batches of rows that are alike, in an order as random as that of `BatchPlan`.

    Each epoch's permutation is cut into groups of `group` batches; the rows of a group are sorted, cut into batches,
    and all batches of the epoch are put in a random order. So little is padded, and no row has a fixed neighbour.
    Source: the grouping by length and modality of LLaVA's trainer, as a pure function of seed and step.
    """

    def __init__(self, keys: np.ndarray, batch_size: int, *, seed: int, group: int = 8) -> None:
        """keys: [num_samples, K] int64 of each row, the first the most important."""
        super().__init__(len(keys), batch_size, seed=seed)
        self._keys, self._group = keys, group

    def batch(self, step: int) -> np.ndarray:
        is_new = self.epoch(step) != self._epoch
        super().batch(step)
        if is_new:
            self._order = self._grouped(self._order[: self.steps_per_epoch * self.batch_size])
        return super().batch(step)

    def _grouped(self, order: np.ndarray) -> np.ndarray:
        height = self._group * self.batch_size
        parts = [order[start : start + height] for start in range(0, len(order), height)]
        alike = [part[np.lexsort(self._keys[part].T[::-1])] for part in parts]
        batches = np.concatenate(alike).reshape(self.steps_per_epoch, self.batch_size)
        shuffled = batch_order(self.steps_per_epoch, seed=self.seed, epoch=self._epoch)
        return batches[shuffled].reshape(-1)
