"""Pictures of a source as batches of pixels, decoded ahead of the tower by threads that share all its shards."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels

_AHEAD = 2  # batches that are decoded while the tower works


@dataclass(frozen=True, slots=True)
class BrokenImage:
    """An image that was left out: its key, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PixelBatch:
    """rows: the part of the source this batch covers; indices: those that can be read; pixels: [B, 3, H, W] uint8.

    The rest is in `broken`. A batch without one readable image has no rows in `pixels`.
    """

    rows: range
    indices: tuple[int, ...]
    pixels: Tensor
    broken: tuple[BrokenImage, ...]


def pixel_batches(
    source: Source, preprocess: PreprocessConfig, rows: range, *, batch_size: int, num_workers: int
) -> Iterator[PixelBatch]:
    """The images `rows` of a source in order, exactly as open_clip would prepare them, `batch_size` at a time.

    num_workers: decoding threads. Pillow decodes and resizes without holding the interpreter, so threads scale as
    processes do, need no copies of the pixels between processes, and any of them can read any place of any shard.
    Leaving the loop early (an error, Ctrl-C) drops what was not decoded yet.
    """
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
    waiting: deque[tuple[range, list[Future[Tensor | BrokenImage]]]] = deque()
    try:
        for start in range(rows.start, rows.stop, batch_size):
            part = range(start, min(start + batch_size, rows.stop))
            waiting.append((part, [pool.submit(read_pixels, source, index, preprocess) for index in part]))
            if len(waiting) > _AHEAD:
                yield _gathered(*waiting.popleft())
        while waiting:
            yield _gathered(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_pixels(source: Source, index: int, preprocess: PreprocessConfig) -> Tensor | BrokenImage:
    """One image as [3, H, W] uint8, or why it cannot be read."""
    try:
        return evaluation_pixels(source.image_bytes(index), preprocess)
    except DataError as error:
        return BrokenImage(source.keys[index], str(error))


def _gathered(rows: range, futures: list[Future[Tensor | BrokenImage]]) -> PixelBatch:
    results = [future.result() for future in futures]
    good = [(index, one) for index, one in zip(rows, results, strict=True) if isinstance(one, Tensor)]
    return PixelBatch(
        rows=rows,
        indices=tuple(index for index, _ in good),
        pixels=torch.stack([one for _, one in good]) if good else torch.zeros(0, 3, 1, 1, dtype=torch.uint8),
        broken=tuple(one for one in results if isinstance(one, BrokenImage)),
    )
