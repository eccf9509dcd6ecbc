"""How fast each part of loading is on this machine, part by part and all together."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.data.stream.read import Chunk, Reader
from eyesmith.data.stream.stream import ShardStream
from eyesmith.errors import ImageError
from eyesmith.images.crop import sample_rng
from eyesmith.images.decode import decode, image_size
from eyesmith.images.transforms import TrainTransformConfig, fast_decode_px, training_pixels

_MAX_SAMPLES = 256
_MIN_PASSES = 2  # the first fills caches and does not count


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of loading, in one process. images_per_s: alone; time_frac: its share of a sample's time."""

    name: str
    images_per_s: float
    mib_per_s: float
    """Of encoded bytes in; for collate, of pixels out."""
    time_frac: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured. images_per_s: of the whole stream with num_workers processes; num_samples: those timed."""

    num_samples: int
    mean_bytes: float
    mean_px: tuple[float, float]
    """Height and width before decoding."""
    stages: list[Stage]
    num_workers: int
    images_per_s: float

    @property
    def images_per_s_each(self) -> float:
        """Of one decoding process."""
        return self.images_per_s / self.num_workers


def probe_shards(
    path: str, *, size_px: int = 224, num_workers: int = 2, batch_size: int = 64, seconds: float = 5.0
) -> Probe:
    """Measure reading, decoding, transforming and collating of shards as training does it, then the whole.

    size_px: side of the pictures a model sees; seconds: for the whole, after it has warmed up; the parts take about as
    long together. Raises what ShardStream does, and DataError when no picture can be decoded.
    """
    transform = TrainTransformConfig(image_size=(size_px, size_px))
    with ShardStream(path, 1, transform=transform, num_workers=0, max_skipped_frac=1.0) as counted:
        batch_size = min(batch_size, counted.plan.num_samples)
    with ShardStream(
        path, batch_size, transform=transform, num_workers=num_workers, max_skipped_frac=1.0, prefetch_batches=3
    ) as stream:
        steps = range(min(stream.plan.steps_per_epoch, -(-_MAX_SAMPLES // batch_size)))
        chunks = [chunk for step in steps for chunk in stream.chunks(step)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a decoding process
        try:
            contents, sizes, stages = _stages(chunks, transform, seconds)
        finally:
            torch.set_num_threads(threads)
        rate = _whole(stream, seconds)
    return Probe(
        num_samples=len(contents),
        mean_bytes=sum(map(len, contents)) / len(contents),
        mean_px=(sum(h for h, _ in sizes) / len(sizes), sum(w for _, w in sizes) / len(sizes)),
        stages=stages,
        num_workers=num_workers,
        images_per_s=rate,
    )


def _stages(
    chunks: Sequence[Chunk], transform: TrainTransformConfig, seconds: float
) -> tuple[list[bytes], list[tuple[int, int]], list[Stage]]:
    samples = [(chunk, row) for chunk in chunks for row in range(chunk.num_rows)]
    reader = Reader(transform, mode="fast", seed=0)
    contents, sizes = [], []
    for chunk, row in samples:
        content = reader.image_bytes(chunk, row)
        try:
            sizes.append(image_size(content))
            training_pixels(content, transform, sample_rng(0, 0, row), mode="fast")
            contents.append(content)
        except ImageError:
            continue  # counted where the stream reads it
    if not contents:
        raise ImageError("none of the pictures tried can be decoded; `eyesmith data check` says why")
    size = transform.image_size
    views = [torch.zeros((*size, 3), dtype=torch.uint8).permute(2, 0, 1) for _ in range(min(len(contents), 64))]
    batch = torch.zeros((len(views), *size, 3), dtype=torch.uint8)

    def decode_all() -> None:
        for content, whole in zip(contents, sizes, strict=True):
            decode(content, at_least_px=fast_decode_px(whole, whole, size))

    def view_all() -> None:
        for number, content in enumerate(contents):
            training_pixels(content, transform, sample_rng(0, 0, number), mode="fast")

    read_s = _seconds(lambda: _read_all(reader, samples), seconds / 4) / len(samples)
    decode_s = _seconds(decode_all, seconds / 4) / len(contents)
    view_s = _seconds(view_all, seconds / 4) / len(contents)
    collate_s = _seconds(lambda: _collate(views, batch), seconds / 8) / len(views)
    parts = {"read": read_s, "decode": decode_s, "transform": max(view_s - decode_s, 1e-9), "collate": collate_s}
    mean_mib = sum(map(len, contents)) / len(contents) / 2**20
    out_mib = 3 * size[0] * size[1] / 2**20
    total = sum(parts.values())
    return (
        contents,
        sizes,
        [
            Stage(
                name=name,
                images_per_s=1 / part_s,
                mib_per_s=(out_mib if name == "collate" else mean_mib) / part_s,
                time_frac=part_s / total,
            )
            for name, part_s in parts.items()
        ],
    )


def _read_all(reader: Reader, samples: Sequence[tuple[Chunk, int]]) -> None:
    for chunk, row in samples:
        reader.image_bytes(chunk, row)
        reader.captions(chunk, row)


def _collate(views: Sequence[Tensor], batch: Tensor) -> None:
    for row, view in enumerate(views):
        batch[row] = view.permute(1, 2, 0)
    batch.numpy().copy()


def _seconds(work: Callable[[], None], at_least_s: float) -> float:
    """Seconds of the fastest of several calls: what the machine can do, not what else it did."""
    best, begin, calls = float("inf"), time.perf_counter(), 0
    while calls < _MIN_PASSES or time.perf_counter() - begin < at_least_s:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def _whole(stream: ShardStream, seconds: float) -> float:
    step = 0
    for _ in range(6):  # the processes have started, and nothing that was decoded ahead is left
        stream.batch(step)
        step += 1
    start, first = time.perf_counter(), step
    while step < first + 3 or time.perf_counter() - start < seconds:
        stream.batch(step)
        step += 1
    return (step - first) * stream.local_batch / (time.perf_counter() - start)


def default_num_workers() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
