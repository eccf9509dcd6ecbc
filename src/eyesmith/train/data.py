"""The samples of a run's config, opened for a loader."""

from collections.abc import Sequence

import torch.distributed as dist

from eyesmith.data.buckets import MULTIPLE, Bucket, BucketConfig, BucketPlan, BucketViews, picture_ratios
from eyesmith.data.indexed import IndexedRows, Squares, usable
from eyesmith.data.loader import Rows, StreamedRows
from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source
from eyesmith.data.stream import ShardSource, ShardStream
from eyesmith.errors import ConfigError
from eyesmith.images.transforms import TrainTransformConfig
from eyesmith.train.config import DataConfig, RunConfig
from eyesmith.train.distributed import World


def open_rows(config: RunConfig, world: World | None = None) -> Rows:
    """The rows of a run: streamed from shards where it has a `transform`, else squares by index, augmented.

    Raises ConfigError when the processes of `world` cannot share a batch evenly, and DataError for unusable data.
    """
    world, data = world or World(), config.data
    own = world.share(config.batch_size)
    if config.transform is not None:
        return _open_stream(config, config.transform, world)
    return IndexedRows(
        open_training_source(data, require_text=config.reads_texts),
        Squares(
            config.augment,
            config.image_size,
            decode_px=data.decode_px,
            batch_size=config.batch_size,
            seed=config.seed,
        ),
        config.batch_size,
        own=own,
        seed=config.seed,
        require_text=config.reads_texts,
        num_workers=data.num_workers,
        keep_mib=data.memory_mib,
        max_skipped_frac=data.max_skipped_frac,
        epoch_steps=data.epoch_steps(config.batch_size),
    )


def open_buckets(
    config: RunConfig, buckets: BucketConfig, sizes: Sequence[Sequence[Bucket]], world: World
) -> IndexedRows:
    """The rows of a run by index, each step of one of `sizes`, see `buckets_of`.

    Raises ConfigError where processes and parts cannot share a batch evenly, and DataError for unusable data.
    """
    data = config.data
    if MULTIPLE % (world.size * config.accumulate):
        raise ConfigError(
            f"buckets: batches are multiples of {MULTIPLE} pictures, which {world.size} processes with accumulate="
            f"{config.accumulate} cannot share; take divisors"
        )
    source = open_training_source(data)
    ratios = picture_ratios(source, usable(source, require_text=True), num_workers=data.num_workers)
    plan = BucketPlan(ratios, buckets, sizes, seed=config.seed)
    views = BucketViews(
        plan,
        config.augment,
        config.image_size[0] // config.encoder.grid[0],
        room=max(1.0, data.decode_px / min(config.image_size)),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return IndexedRows(
        source,
        views,
        config.batch_size,
        own=world.share(config.batch_size),
        seed=config.seed,
        require_text=True,
        num_workers=data.num_workers,
        max_skipped_frac=data.max_skipped_frac,
        order=plan,
    )


def _open_stream(config: RunConfig, transform: TrainTransformConfig, world: World) -> StreamedRows:
    data = config.data
    stream = ShardStream(
        shard_sources(data),
        config.batch_size,
        transform=transform,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        num_workers=data.num_workers,
        max_skipped_frac=data.max_skipped_frac,
        lanes=data.lanes or 1,
        window=data.window,
        cache_gib=data.cache_gib,
        exchange=world if dist.is_initialized() else None,
        counts="stated" if data.epoch_samples else "index",
        require_text=config.reads_texts,
    )
    return StreamedRows(stream, epoch_steps=data.epoch_steps(config.batch_size))


def open_training_source(data: DataConfig, *, require_text: bool = True) -> Source:
    """The samples that a run trains on."""
    return open_source(
        data.path,
        split=data.split,
        image_column=data.image_column,
        text_column=data.text_column,
        require_text=require_text,
    )


def shard_sources(data: DataConfig) -> list[ShardSource]:
    """`path` and `more_paths` with their weights. Raises ConfigError for another number of weights than of paths."""
    paths = (data.path, *data.more_paths)
    if data.weights and len(data.weights) != len(paths):
        raise ConfigError(
            f"data.weights: expected {len(paths)}, one for path and each of more_paths, got {data.weights}"
        )
    weights = data.weights or (0.0,) * len(paths)
    return [ShardSource(path=path, weight=weight) for path, weight in zip(paths, weights, strict=True)]
