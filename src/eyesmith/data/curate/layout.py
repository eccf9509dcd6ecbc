"""What goes into which shard of a subset: rows of fixed size, so that hundreds of millions of samples fit in memory."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

BLOCK = 512  # of a tar: one for a member's header, and the content in whole ones
# A sample found or, in the layout, one of its copies. shard: number of the input shard; row: its place there; blocks:
# of the tar, all members; copies: how many, in the layout which one; place: of its uid in the subset
ROW = np.dtype([("shard", "u4"), ("row", "u4"), ("blocks", "u4"), ("copies", "u4"), ("place", "u8")])
_CHUNK_ROWS = 1 << 20


def lay_out(
    samples: NDArray[np.void],
    stream: BinaryIO | None,
    *,
    shard_samples: int,
    shard_bytes: int,
    shuffle_window: int,
    seed: int,
) -> list[int]:
    """Write every copy of every sample in its new order, raw rows of ROW; returns the first row of each shard.

    A shard is full when it has shard_samples, or when the next sample would take it past shard_bytes, tar headers
    included; a sample larger than that has a shard of its own. Beside `samples`, memory for about a million rows, or
    for two windows.
    """
    limit = shard_bytes // BLOCK - 2  # two are the end mark
    starts: list[int] = []
    num_rows = num_held = num_blocks = 0  # all, and of the shard that is being filled
    for rows in _copies(samples, shuffle_window, seed):
        if stream is not None:
            rows.tofile(stream)
        ends = np.cumsum(rows["blocks"], dtype=np.int64)
        row = 0
        while row < len(rows):
            before = int(ends[row - 1]) if row else 0
            fitting = int(np.searchsorted(ends, before + limit - num_blocks, side="right"))
            stop = min(fitting, row + shard_samples - num_held)
            if stop <= row:
                if num_held:  # full
                    num_held = num_blocks = 0
                    continue
                stop = row + 1  # too large for any shard: one of its own
            if not num_held:
                starts.append(num_rows + row)
            num_held += stop - row
            num_blocks += int(ends[stop - 1]) - before
            row = stop
        num_rows += len(rows)
    return starts


def _copies(samples: NDArray[np.void], window: int, seed: int) -> Iterator[NDArray[np.void]]:
    """Every copy of every sample, shuffled within windows; a window, or about a million rows, at a time."""
    rng = np.random.default_rng(seed)
    held = np.empty(0, dtype=ROW)
    step = max(_CHUNK_ROWS, window)
    for start in range(0, len(samples), step):
        chunk = samples[start : start + step]
        copies = chunk["copies"].astype(np.int64)
        rows = chunk.repeat(copies)
        rows["copies"] = np.arange(len(rows)) - (np.cumsum(copies) - copies).repeat(copies)
        if not window:
            yield rows
            continue
        held = np.concatenate([held, rows])
        num_whole = len(held) // window * window
        for first in range(0, num_whole, window):
            yield held[first : first + window][rng.permutation(window)]
        held = held[num_whole:]
    if len(held):
        yield held[rng.permutation(len(held))]
