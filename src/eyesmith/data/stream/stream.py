"""Batches of image-text pairs out of shards, decoded by processes beside the trainer, resumable at every step."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from eyesmith.data.sample import Finding
from eyesmith.data.stream.feed import Feed
from eyesmith.data.stream.fetch import ShardCache
from eyesmith.data.stream.identity import described, fingerprint
from eyesmith.data.stream.index import JSON, TXT, shard_index
from eyesmith.data.stream.line import Line
from eyesmith.data.stream.opening import Counts, Exchange, open_shards, worst
from eyesmith.data.stream.order import DEFAULT_WINDOW, Position, StreamPlan
from eyesmith.data.stream.places import ShardSource
from eyesmith.data.stream.read import BrokenError, Chunk, ChunkRead, Reader, stored_captions
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import cache_folder
from eyesmith.images.transforms import Mode, PreprocessConfig, TrainTransformConfig

DEFAULT_CACHE_GIB = 50.0
_CHUNK_ROWS = 16
_MAX_EXAMPLES = 1000
_JUDGED_FROM = 1000  # samples: a handful of broken ones at the start is no rate yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The rows of one step for one process. Row i of every field is one sample.

    pixels: [b, 3, H, W] uint8 RGB, channels-last memory; texts: one caption each; labels: int64 [b], -1 for a
    row without one, or None where no row has one; keys: of the samples that are shown.
    """

    pixels: Tensor
    texts: list[str]
    labels: Tensor | None
    keys: tuple[str, ...]


class ShardStream:
    """Image-text pairs of tar shards, local or remote. `batch(step)` depends on nothing but its arguments here.

    plan: the order, see StreamPlan; sources: what the shards are. broken: how many samples could not be used, by kind
    and shard; skipped: up to 1,000 of them as findings. The row of a broken sample shows the next usable one of the
    same lane's batch (its caption too, so that a loss which masks equal captions does not take the two for a negative
    pair): shapes stay fixed, and all of this is the same for any number of processes and workers.
    """

    def __init__(
        self,
        sources: str | os.PathLike[str] | Sequence[ShardSource],
        batch_size: int,
        *,
        transform: TrainTransformConfig | PreprocessConfig,
        mode: Mode = "fast",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 2,
        prefetch_batches: int = 2,
        lanes: int = 1,
        window: int = DEFAULT_WINDOW,
        counts: Counts = "index",
        max_skipped_frac: float = 0.01,
        require_text: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_gib: float = DEFAULT_CACHE_GIB,
        exchange: Exchange | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """batch_size: rows of a step over all processes; rank, world_size: which of them this process gets.

        transform: a training or an evaluation transform; mode: "fast" or "exact", see docs/images.md. num_workers:
        decoding processes; 0 decodes in the caller. prefetch_batches: decoded ahead. lanes: parts of the batch that
        read shards of their own; set it to the number of machines where shards are remote. window: samples shuffled
        together. counts: "index" reads every shard's headers once (and keeps what it found), "stated" trusts the
        numbers beside the shards, see `stated_counts`. require_text: false passes captions over, texts are then "".
        cache_dir, cache_gib: of remote shards, eyesmith's cache by default. exchange: how the processes share what one
        of them read of the shards; without it each reads all of it. on_progress: called with the shards this process
        has counted and will count.

        Raises ConfigError for numbers that make no sense; DataError when a source is not there, holds less than a
        batch, or more than max_skipped_frac of its samples (or shards) cannot be used.
        """
        if num_workers < 0 or prefetch_batches < 1 or cache_gib < 0 or not 0 <= max_skipped_frac <= 1:
            raise ConfigError(
                "expected num_workers and cache_gib of 0 or more, prefetch_batches of 1 or more, max_skipped_frac in "
                f"0..1, got {num_workers}, {cache_gib}, {prefetch_batches}, {max_skipped_frac}"
            )
        given = [ShardSource(path=os.fspath(sources))] if isinstance(sources, (str, os.PathLike)) else list(sources)
        self._frac, self._rank, self._world_size = max_skipped_frac, rank, world_size
        self._seen = self._num_broken_rows = 0
        self._cache = ShardCache(cache_dir or cache_folder() / "shards", limit_bytes=int(cache_gib * 2**30))
        opened = open_shards(
            given,
            self._cache,
            counts=counts,
            max_skipped_frac=max_skipped_frac,
            exchange=exchange,
            rank=rank,
            world_size=world_size,
            on_progress=on_progress,
        )
        self.shards, self.sources, self._sizes = opened.shards, opened.sources, opened.groups
        self.broken, self.skipped = opened.broken, opened.skipped
        self._plan_settings: dict[str, Any] = {
            "seed": seed,
            "lanes": lanes,
            "window": window,
            "weights": opened.weights,
        }
        self.plan = StreamPlan(self._sizes, batch_size, **self._plan_settings)
        self._reader = Reader(transform, mode=mode, seed=seed, require_text=require_text)
        self._num_workers, self._prefetch = num_workers, prefetch_batches
        self._next_step = 0
        self._feed = self._new_feed()
        self._line: Line | None = None

    def batch(self, step: int) -> Pairs:
        """The rows of a global step for this process. The next step is fastest; any other starts reading anew.

        Raises DataError above the allowed rate of broken samples, and what reading a shard raises.
        """
        if self._num_workers == 0:
            pixels, parts = self._read_here(step)
        else:
            if self._line is None:
                self._line = Line(self._reader, self.local_batch, self._num_workers, self._prefetch)
            pixels, parts = self._line.get(step, self._new_feed)
        self._next_step = step + 1
        self._judge(parts)
        labels = [label for part in parts for label in part.labels]
        is_labelled = any(label is not None for label in labels)
        return Pairs(
            pixels=pixels,
            texts=[text for part in parts for text in part.texts],
            labels=torch.tensor([-1 if label is None else label for label in labels]) if is_labelled else None,
            keys=tuple(key for part in parts for key in part.keys),
        )

    def chunks(self, step: int) -> list[Chunk]:
        """What `batch(step)` reads, for who wants to read it otherwise."""
        return self._feed.step(step).chunks

    @property
    def first_row(self) -> int:
        """Place of this process's first row in the batch of all processes."""
        return self._rank * self.local_batch

    @property
    def local_batch(self) -> int:
        """Rows a step of this process."""
        return self.plan.batch_size // self._world_size

    def describe(self) -> dict[str, Any]:
        """The order and every shard by what it holds, as JSON values; see `identity.described` and `differences`."""
        return described(self.sources, {**self._plan_settings, "weights": list(self._plan_settings["weights"])})

    def fingerprint(self) -> str:
        """SHA-256 of the data and their order (lanes, window, weights): another one is another run's.

        Where the shards lie and when they were written does not count.
        """
        return fingerprint(self.describe())

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included; reads the text members of all shards."""
        texts: list[str] = []
        for shard in self.shards:
            path = self._cache.hold(shard)
            index = shard_index(path)
            with open(path, "rb") as stream:
                for members in index.places.tolist():
                    raw = []
                    for offset, size in (members[TXT], members[JSON]):
                        stream.seek(offset)
                        raw.append(stream.read(size) if size >= 0 else None)
                    with suppress(BrokenError):  # counted where it would be shown, and never is
                        texts.extend(stored_captions(*raw))
            self._cache.release(shard)
        return texts

    def state_dict(self) -> dict[str, Any]:
        """What a later stream of the same shards needs to go on after the last batch given out, as JSON values."""
        at = self.plan.position(self._next_step)
        return {
            "version": 1,
            "step": at.step,
            "epoch": at.epoch,
            "row": at.row,
            "shards": self._digest,
            "content": self._content,
            **self._plan_settings,
            "seen": self._seen,
            "broken_rows": self._num_broken_rows,
            "broken": [[kind, shard, count] for (kind, shard), count in sorted(self.broken.items())],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` stops: its step comes next, after the rows given out before it.

        The world size, the number of workers and the batch size may differ from those of the run that wrote it: no
        sample of the epoch that is given out already comes again, and none of those left is lost. Raises ConfigError
        when the seed, lanes, window or weights differ, DataError when the shards or their content do (a state written
        before content was noted is not asked for it, nor is one whose shards lay where content is noted otherwise).
        """
        if state.get("version") != 1:
            raise DataError(f"state of the data: expected version 1, got {state.get('version')!r}")
        for name, value in self._plan_settings.items():
            stored = list(state[name]) if name == "weights" else state[name]
            if stored != (list(value) if name == "weights" else value):
                raise ConfigError(
                    f"{name}: the run was started with {stored}, now it is {value}; the order would differ"
                )
        if state["shards"] != self._digest:
            raise DataError(
                "the shards are not those the run was started with (their names, order or numbers of samples differ); "
                "give the same shards, or start a new run from the weights"
            )
        content = self._content
        if state.get("content", content)[0] == content[0] and state.get("content", content) != content:
            raise DataError(
                "the shards have the names and numbers of samples of those the run was started with, but other "
                "content; give the same shards, or start a new run from the weights"
            )
        origin = Position(step=state["step"], epoch=state["epoch"], row=state["row"])
        self._close_line()
        self.plan = StreamPlan(self._sizes, self.plan.batch_size, **self._plan_settings, origin=origin)
        self._feed.close()
        self._feed = self._new_feed()
        self._next_step = origin.step
        self._seen, self._num_broken_rows = state["seen"], state["broken_rows"]
        self.broken = Counter({(kind, shard): count for kind, shard, count in state["broken"]})

    def close(self) -> None:
        """End the decoding processes and let go of the shards. A later `batch` starts them again."""
        self._close_line()
        self._feed.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _new_feed(self) -> Feed:
        return Feed(
            self.plan,
            self.shards,
            self._cache,
            rank=self._rank,
            world_size=self._world_size,
            chunk_rows=min(_CHUNK_ROWS, max(1, self.plan.batch_size // self._world_size // max(self._num_workers, 1))),
        )

    def _read_here(self, step: int) -> tuple[Tensor, list[ChunkRead]]:
        feed = self._feed.step(step)
        pixels = torch.empty((self.local_batch, *self._reader.image_size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        parts, row = [], 0
        for chunk in feed.chunks:
            parts.append(self._reader.read(chunk, pixels[row : row + chunk.num_rows]))
            row += chunk.num_rows
        self._feed.done(feed)
        return pixels, parts

    def _judge(self, parts: list[ChunkRead]) -> None:
        self._seen += sum(len(part.keys) for part in parts)
        for part in parts:
            for one in part.broken:
                self._num_broken_rows += 1
                self.broken[one.kind, one.shard] += 1
                self._example(one.kind, one.key, one.shard, one.detail)
        judged = max(self._seen, min(_JUDGED_FROM, self.plan.num_samples))
        if self._num_broken_rows > self._frac * judged:
            raise DataError(
                f"{self._num_broken_rows:,} of {self._seen:,} samples read cannot be used, {self._frac:.1%} are "
                f"allowed: {worst(self.broken, self.skipped)}; `eyesmith data check` lists them all"
            )

    def _example(self, kind: str, key: str, shard: str, detail: str) -> None:
        if len(self.skipped) < _MAX_EXAMPLES:
            finding = Finding(kind, "error", key, shard, detail)
            if finding not in self.skipped:
                self.skipped.append(finding)

    @cached_property
    def _digest(self) -> str:
        """Of the shards' names and numbers of samples: what the order depends on."""
        names = [[shard.rpartition("/")[2] for shard in self.shards], self._sizes]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()

    @cached_property
    def _content(self) -> list[str]:
        """The kinds of the shards' marks, and a digest of the marks and sizes."""
        facts = [one for source in self.sources for one in source.shards]
        kinds = sorted({one.mark.partition(":")[0] for one in facts})
        marks = [[one.num_bytes, one.mark] for one in facts]
        return ["+".join(kinds), hashlib.sha256(json.dumps(marks).encode()).hexdigest()]
