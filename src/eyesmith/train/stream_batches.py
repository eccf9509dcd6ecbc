"""Batches straight out of tar shards, for sets that are too large to hold or to index by sample."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from eyesmith.data.sample import Finding
from eyesmith.data.stream import ShardSource, ShardStream
from eyesmith.errors import ConfigError
from eyesmith.train.batches import Batch
from eyesmith.train.config import DataConfig, RunConfig
from eyesmith.train.distributed import World


@dataclass(frozen=True)
class StreamedPlan:
    """How long an epoch is, and how many samples there are."""

    steps_per_epoch: int
    num_samples: int


class StreamBatches:
    """The batches of a run whose config has a `transform`: decoded by processes, views cut while they are decoded.

    `batch(step)` depends on nothing but the shards, the config and the step, so a resumed run needs the step alone; the
    rows of all processes together are those that one process would have. Broken samples are counted by kind and shard
    in `stream.broken`; above the config's share of them DataError stops the run.
    """

    def __init__(self, config: RunConfig, *, world: World | None = None) -> None:
        """Raises ConfigError without a transform, or for processes that cannot share a batch evenly."""
        if config.transform is None:
            raise ConfigError("transform: streaming from shards cuts views while it decodes; set transform's fields")
        world, data = world or World(), config.data
        self._own = world.share(config.batch_size)
        self.stream = ShardStream(
            shard_sources(data),
            config.batch_size,
            transform=config.transform,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
            num_workers=data.num_workers,
            max_skipped_frac=data.max_skipped_frac,
            lanes=data.lanes or 1,
            window=data.window,
            cache_gib=data.cache_gib,
            counts="stated" if data.epoch_samples else "index",
            exchange=world if dist.is_initialized() else None,
            require_text=config.reads_texts,
        )
        samples = data.epoch_samples or self.stream.plan.steps_per_epoch * config.batch_size
        self.plan = StreamedPlan(max(1, samples // config.batch_size), self.stream.plan.num_samples)

    @property
    def skipped(self) -> list[Finding]:
        """Samples left out so far, the first 1,000 of them."""
        return self.stream.skipped

    @property
    def problems(self) -> list[Finding]:
        """What opening found unusable: nothing, a stream finds it on the way."""
        return []

    def fingerprint(self) -> str:
        """SHA-256 over the shards' names and content, and their order."""
        return self.stream.fingerprint()

    def describe(self) -> dict[str, Any]:
        """The order and every shard by what it holds; what differs, `data.stream.differences` says."""
        return self.stream.describe()

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included; reads the texts of all shards."""
        return self.stream.captions()

    def batch(self, step: int) -> Batch:
        """This process's rows of a global step, counted from 0."""
        pairs = self.stream.batch(step)
        return Batch(
            pixels=pairs.pixels,
            texts=pairs.texts,
            labels=pairs.labels,
            keys=pairs.keys,
            rows=torch.arange(self._own.start, self._own.stop),
        )

    def close(self) -> None:
        """End the decoding processes."""
        self.stream.close()


def shard_sources(data: DataConfig) -> list[ShardSource]:
    """`path` and `more_paths` with their weights. Raises ConfigError for another number of weights than of paths."""
    paths = (data.path, *data.more_paths)
    if data.weights and len(data.weights) != len(paths):
        raise ConfigError(
            f"data.weights: expected {len(paths)}, one for path and each of more_paths, got {data.weights}"
        )
    weights = data.weights or (0.0,) * len(paths)
    return [ShardSource(path=path, weight=weight) for path, weight in zip(paths, weights, strict=True)]
