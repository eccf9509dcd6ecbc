"""Image features of whole data sets: every image once, decoded ahead, shared between processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.agreement import agreed
from eyesmith.eval.features.batches import BrokenImage, PixelBatch, pixel_batches
from eyesmith.eval.features.precision import TowerPrecision
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import World


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What a tower says of the images of a source.

    features: [N, D] fp32 unit rows, on the CPU; indices: the position of each row in the source; keys: its names;
    labels: [N] int64 into `source.classes`, or None; broken: the images that could not be read.
    """

    features: Tensor
    indices: tuple[int, ...]
    keys: tuple[str, ...]
    labels: Tensor | None
    broken: tuple[BrokenImage, ...]


class Answers(NamedTuple):
    """What a model says of a source, equal in all processes.

    rows: [N, ...] on the CPU, one for each image that can be read; indices: the place of each in the source; broken:
    the other images.
    """

    rows: Tensor
    indices: tuple[int, ...]
    broken: tuple[BrokenImage, ...]


def answers(
    source: Source,
    batches: Iterable[PixelBatch],
    answer: Callable[[Tensor], Tensor],
    *,
    world: World | None = None,
    max_broken_frac: float = 0.01,
    advance: Callable[[int], None] | None = None,
) -> Answers:
    """What `answer` makes of every readable image: of pixels [b, 3, H, W] uint8 rows [b, ...].

    batches: the images of this process's `own_rows`. Every process of `world` calls it, and gets the rows of all, bit
    for bit those of one process; an error in one is an error in all. advance: told the images of each batch. Raises
    DataError when more than max_broken_frac of the images (but at least one) cannot be read, or when none can.
    """
    world = world or World()
    parts: list[Tensor] = []
    indices: list[int] = []
    broken: list[BrokenImage] = []
    with agreed(world, (Exception,)):
        for batch in batches:
            if batch.indices:
                parts.append(answer(batch.pixels).cpu())
                indices += batch.indices
            broken += batch.broken
            check_broken(source, broken, batch.rows.stop, max_broken_frac)
            if advance is not None:
                advance(len(batch.rows))
    rows = torch.cat(parts) if parts else torch.zeros(0, 1)
    if world.size > 1:
        shares = world.gather((indices, broken, (rows.dtype, rows.shape[1:]) if parts else None))
        first = sum(len(share[0]) for share in shares[: world.rank])
        indices, broken = [one for share in shares for one in share[0]], [one for share in shares for one in share[1]]
        check_broken(source, broken, len(source), max_broken_frac)
        dtype, size = next((share[2] for share in shares if share[2]), (rows.dtype, rows.shape[1:]))
        whole = torch.zeros(len(indices), *size, dtype=dtype)
        if parts:
            whole[first : first + len(rows)] = rows
        rows = sum_over_processes(whole, world)
    if not indices:
        raise _all_broken(source, broken)
    return Answers(rows, tuple(indices), tuple(broken))


def encode_source(
    clip: Clip,
    source: Source,
    *,
    batch_size: int = 64,
    max_broken_frac: float = 0.01,
    num_workers: int = 4,
    advance: Callable[[int], None] | None = None,
) -> ImageFeatures:
    """Encode every image of `source`, exactly as open_clip would prepare it.

    An image that cannot be read is left out and listed. Raises DataError when more than max_broken_frac of them (but
    at least one) cannot, or when nothing is left. num_workers: decoding threads. advance: told the images of each
    batch when it is done.
    """
    _check_counts(batch_size, num_workers)
    batches = pixel_batches(source, clip.preprocess, range(len(source)), batch_size=batch_size, num_workers=num_workers)
    found = answers(
        source,
        batches,
        lambda pixels: clip.encode_image(pixels, batch_size=batch_size).float(),
        max_broken_frac=max_broken_frac,
        advance=advance,
    )
    return gathered_features(source, *found)


def encoded_batches(
    clip: Clip,
    source: Source,
    rows: range,
    *,
    batch_size: int,
    num_workers: int,
    precision: TowerPrecision | None = None,
) -> Iterator[tuple[PixelBatch, Tensor]]:
    """The images `rows` of a source batch by batch, with their features [B, D] fp32 on the CPU."""
    _check_counts(batch_size, num_workers)
    in_format = precision or TowerPrecision()
    for batch in pixel_batches(source, clip.preprocess, rows, batch_size=batch_size, num_workers=num_workers):
        features = torch.zeros(0, 1)
        if batch.indices:
            with in_format(clip.logit_scale.device):
                features = clip.encode_image(batch.pixels, batch_size=batch_size)
        yield batch, features.float().cpu()


def _check_counts(batch_size: int, num_workers: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
    if num_workers < 1:
        raise ConfigError(f"num_workers: expected at least 1, got {num_workers}")


def check_broken(source: Source, broken: Sequence[BrokenImage], num_read: int, max_broken_frac: float) -> None:
    """Raise DataError when more of the first `num_read` images are broken than the whole source is allowed."""
    allowed = max(1, int(max_broken_frac * len(source)))
    if len(broken) > allowed:
        raise DataError(
            f"{source.name}: {len(broken)} of the first {num_read} images cannot be read, {allowed} of "
            f"{len(source)} are allowed; first: {broken[0].key}: {broken[0].reason}; "
            "`eyesmith data check` lists them all"
        )


def gathered_features(
    source: Source, features: Tensor, indices: Sequence[int], broken: Sequence[BrokenImage]
) -> ImageFeatures:
    """Features with the names and labels of their images. Raises DataError when there are none."""
    if not indices:
        raise _all_broken(source, broken)
    labels, keys = source.labels, source.keys
    return ImageFeatures(
        features=features,
        indices=tuple(indices),
        keys=tuple(keys[index] for index in indices),
        labels=None if labels is None else torch.tensor([labels[index] for index in indices], dtype=torch.int64),
        broken=tuple(broken),
    )


def _all_broken(source: Source, broken: Sequence[BrokenImage]) -> DataError:
    first = f"; first: {broken[0].key}: {broken[0].reason}" if broken else ""
    return DataError(f"{source.name}: not one of its {len(source)} images can be read{first}")


def own_rows(total: int, batch_size: int, world: World) -> range:
    """The images one process encodes: whole batches of the same cut that a single process makes, so equal bits."""
    batches = -(-total // batch_size)
    share = -(-batches // world.size) * batch_size
    return range(min(total, world.rank * share), min(total, (world.rank + 1) * share))


def sum_over_processes(rows: Tensor, world: World) -> Tensor:
    """[N, ...] on the CPU: the rows each process filled, in all of them. Rows of other processes must be zero."""
    if world.size == 1:
        return rows
    dist.all_reduce(rows, group=world.patient)  # one may take long for its share
    return rows
