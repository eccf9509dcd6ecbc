"""Training batches out of tar shards: ours against open_clip's own loader, two decoding processes each; their order.

Both read the same shards, shuffle, cut a random resized crop of 0.9 to 1 of the picture to 224 px and batch 64. Theirs
gives normalised floats, ours the uint8 pixels that our towers normalise themselves.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.pairs import Row, speed
from bench.pictures import jpegs, write_shards
from eyesmith.data.stream import ShardStream, StreamPlan
from eyesmith.data.stream.order import Rows
from eyesmith.images import TrainTransformConfig, open_image, sample_rng, training_pixels
from eyesmith.images.crop import Box, random_resized_box
from eyesmith.images.decode import decode
from eyesmith.images.transforms import fast_decode_px
from eyesmith.models.foreign.torchvision import ensure_torchvision

BATCH = 64
SIZE_PX = 224
NUM_WORKERS = 2
NUM_PAIRS = 7
NUM_BATCHES = 8  # timed at a time
_DRAINED = 4  # batches either side may have ready when its turn comes
_QUIET_S = 0.3  # without processor time in any child: a loader whose turn is over has filled its queue
_MIN_PSNR = 34.0  # of fast against exact pixels, docs/images.md
_TRANSFORM = TrainTransformConfig(image_size=(SIZE_PX, SIZE_PX))


def rows() -> list[Row]:
    """ImageNet's usual size, a larger one at which a scaled decode pays, and our own rate with two workers over one."""
    with tempfile.TemporaryDirectory(prefix="eyesmith-bench-") as folder:
        small = _shards(Path(folder) / "small", 375, 500, num_bytes=83_000)
        large = _shards(Path(folder) / "large", 768, 1024, num_bytes=339_000)
        return [
            _against_open_clip("loader_375x500", *small),
            _against_open_clip("loader_768x1024", *large),
            _scaling("loader_scaling", *small),
            _order("loader_order", sizes=(100_000,)),
            _order("loader_order_sources", sizes=(60_000, 30_000, 10_000), weights=(3.0, 2.0, 1.0)),
        ]


def _shards(folder: Path, height: int, width: int, *, num_bytes: int) -> tuple[Path, list[bytes], list[str]]:
    pictures = jpegs(height, width, num_bytes=num_bytes, count=32)
    return folder, pictures, write_shards(folder, pictures, num_shards=8, per_shard=128)


def _against_open_clip(name: str, folder: Path, pictures: list[bytes], keys: list[str]) -> Row:
    ensure_torchvision()
    import open_clip
    import webdataset

    is_equal = _is_same_law(pictures) and _reads_all(folder, keys)
    theirs = _open_clip_batches(folder, len(keys))
    with _stream(folder, NUM_WORKERS) as stream:
        ours = _our_batches(stream)
        pairs = _in_turns(lambda: next(ours), lambda: next(theirs))
    note = (
        f"batch {BATCH}, {NUM_WORKERS} workers, JPEGs of {statistics.mean(map(len, pictures)) / 1e3:.0f} kB; compared: "
        f"their transform with our exact mode on the same boxes (equal) and our fast mode (over {_MIN_PSNR:.0f} dB, "
        "edges of the box on whole pixels of the scaled picture); an epoch of ours holds every sample once"
    )
    peer = f"open_clip {open_clip.__version__} get_wds_dataset, webdataset {webdataset.__version__}"
    return _row(name, pairs, is_equal, peer=peer, note=note)


def _scaling(name: str, folder: Path, pictures: list[bytes], keys: list[str]) -> Row:
    with _stream(folder, 2) as two, _stream(folder, 1) as one:
        is_equal = all(torch.equal(two.batch(step).pixels, one.batch(step).pixels) for step in range(3))
        with_two, with_one = _our_batches(two), _our_batches(one)
        pairs = _in_turns(lambda: next(with_two), lambda: next(with_one))
    note = f"ours is two workers, theirs our own loader with one; {len(keys)} samples; equal: the same pixels from both"
    return _row(name, pairs, is_equal, peer="eyesmith, 1 worker", note=note)


def _order(name: str, *, sizes: tuple[int, ...], weights: tuple[float, ...] = ()) -> Row:
    """Which samples one of 512 processes reads, of 1.28 billion: its own rows against the whole batch, then cut."""
    batch_size, world_size, rank, num_steps = 90_112, 512, 5, 10
    local_batch = batch_size // world_size
    own_rows = (rank * local_batch, (rank + 1) * local_batch)
    one, other = (StreamPlan([[12_800] * n for n in sizes], batch_size, seed=0, weights=weights) for _ in range(2))
    row = speed(
        name,
        lambda turn: range(turn * num_steps, (turn + 1) * num_steps),
        lambda steps: [(one.windows(step, 0, *own_rows), one.rows(step, 0, *own_rows))[1] for step in steps],
        lambda steps: [
            (other.windows(step, 0, 0, batch_size), other.batch(step).take(slice(*own_rows)))[1] for step in steps
        ],
        equal=lambda a, b: all(_is_equal(x, y) for x, y in zip(a, b, strict=True)),
        count=num_steps,
        unit="steps/s",
        peer="the whole batch in every process",
    )
    note = (
        f"{1000 / row.ours:.2f} ms a step for {local_batch} of {batch_size:,} rows, the whole batch "
        f"{1000 / row.theirs:.1f}; 100,000 shards of 12,800 samples, {len(sizes)} source(s), one lane"
    )
    return dataclasses.replace(row, note=note)


def _is_equal(a: Rows, b: Rows) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("shard", "sample", "epoch"))


def _in_turns(ours: Callable[[], Any], theirs: Callable[[], Any]) -> list[tuple[float, float]]:
    """Seconds for NUM_BATCHES batches of each side, in turns, after one turn each that does not count."""
    seconds = [(_turn(ours), _turn(theirs)) for _ in range(NUM_PAIRS + 1)]
    return seconds[1:]


def _turn(take: Callable[[], Any]) -> float:
    for _ in range(_DRAINED):
        take()
    start = time.perf_counter()
    for _ in range(NUM_BATCHES):
        take()
    seconds = time.perf_counter() - start
    _wait_until_quiet()
    return seconds


def _wait_until_quiet() -> None:
    before = -1
    while (now := _ticks_of_children()) != before:
        before = now
        time.sleep(_QUIET_S)


def _ticks_of_children() -> int:
    """Processor time of all processes this one has started, and of theirs; Linux."""
    parents: dict[int, tuple[int, int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(file.parent.name)] = (int(fields[1]), int(fields[11]) + int(fields[12]))
    family = {os.getpid()}
    for _ in range(3):
        family |= {process for process, (parent, _) in parents.items() if parent in family}
    return sum(ticks for process, (_, ticks) in parents.items() if process in family and process != os.getpid())


def _row(name: str, pairs: list[tuple[float, float]], is_equal: bool, *, peer: str, note: str) -> Row:
    low, middle, high = statistics.quantiles([theirs / ours for ours, theirs in pairs], n=4, method="inclusive")
    count = NUM_BATCHES * BATCH
    return Row(
        row=name,
        ours=statistics.median(count / ours for ours, _ in pairs),
        theirs=statistics.median(count / theirs for _, theirs in pairs),
        unit="images/s",
        ratio=middle,
        low=low,
        high=high,
        equal=is_equal,
        peer=peer,
        note=note,
    )


def _stream(folder: Path, num_workers: int) -> ShardStream:
    return ShardStream(folder, BATCH, transform=_TRANSFORM, num_workers=num_workers)


def _our_batches(stream: ShardStream) -> Iterator[Any]:
    step = 0
    while True:
        pairs = stream.batch(step)
        assert pairs.pixels.shape == (BATCH, 3, SIZE_PX, SIZE_PX)
        yield pairs
        step += 1


def _open_clip_batches(folder: Path, num_samples: int) -> Iterator[Any]:
    ensure_torchvision()
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from open_clip_train.data import get_wds_dataset

    shards = sorted(folder.glob("*.tar"))
    arguments = Namespace(
        train_data=str(folder / f"{{{shards[0].stem}..{shards[-1].stem}}}.tar"),
        train_num_samples=num_samples * 1000,  # one long epoch: no pause of theirs is timed
        dataset_resampled=False,
        train_data_upsampling_factors=None,
        batch_size=BATCH,
        workers=NUM_WORKERS,
        world_size=1,
        seed=0,
    )
    transform = image_transform_v2(PreprocessCfg(size=(SIZE_PX, SIZE_PX)), is_train=True)
    # no tokenizer on either side: it has a group of its own
    data = get_wds_dataset(arguments, transform, True, tokenizer=lambda text: [text])
    for pixels, texts in data.dataloader:
        assert pixels.shape == (BATCH, 3, SIZE_PX, SIZE_PX)
        yield pixels, texts


def _is_same_law(pictures: list[bytes]) -> bool:
    """Whether exact pixels equal theirs on the same boxes, and fast ones are near them."""
    ensure_torchvision()
    for number, data in enumerate(pictures[:8]):
        exact, fast = (training_pixels(data, _TRANSFORM, sample_rng(0, 0, number), mode=m) for m in ("exact", "fast"))
        picture = open_image(data)
        size = (picture.height, picture.width)
        box = random_resized_box(size, _TRANSFORM.scale, _TRANSFORM.ratio, sample_rng(0, 0, number))
        if not np.array_equal(_their_view(picture, box), _last(exact)):
            return False
        # fast moves the edges of the box to whole pixels of the scaled picture: no farther than half of one
        scaled = decode(data, at_least_px=fast_decode_px(size, (box.height, box.width), _TRANSFORM.image_size))
        grid = round(size[0] / scaled.shape[0])
        snapped = Box(*(grid * side for side in box.scaled(1 / grid, 1 / grid)))
        error = np.square(_their_view(picture, snapped).astype(float) - _last(fast)).mean()
        if 10 * np.log10(255**2 / max(error, 1e-9)) < _MIN_PSNR:
            return False
    return True


def _their_view(picture: Image.Image, box: Box) -> np.ndarray:
    """torchvision's resized crop of a box: [H, W, 3] uint8."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resized_crop

    return np.asarray(resized_crop(picture, *box, [SIZE_PX, SIZE_PX], InterpolationMode.BICUBIC))


def _last(pixels: torch.Tensor) -> np.ndarray:
    return pixels.permute(1, 2, 0).numpy()


def _reads_all(folder: Path, keys: list[str]) -> bool:
    with _stream(folder, NUM_WORKERS) as stream:
        read = [key for step in range(stream.plan.steps_per_epoch) for key in stream.batch(step).keys]
    return sorted(read) == sorted(keys)
