"""Image features on disk: what one tower said of one data set, so that no picture is decoded or encoded twice.

A file is named by everything its numbers depend on (`cache_key`). It only saves time: a damaged or missing file is made
anew, and a few of its images are encoded again at each use to see that it still tells the truth.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.batches import BrokenImage, read_pixels
from eyesmith.eval.features.cache import prune, touch
from eyesmith.eval.features.fast_tower import with_fast_tower
from eyesmith.eval.features.identity import cache_key, content_hash, facts_hash, model_facts
from eyesmith.eval.features.images import (
    ImageFeatures,
    check_broken,
    encoded_batches,
    gathered_features,
    own_rows,
    sum_over_processes,
)
from eyesmith.eval.features.precision import TowerPrecision
from eyesmith.files import is_sealed, locked, seal, sealed_path, write_json
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import World

Stored = Literal["float32", "float16"]

_SAVE_S = 20.0  # between two notes of how far an unfinished file is
_PROBES = 8  # images that are encoded again at each use
_PROBE_COSINE = 0.999  # half precision and other batch sizes keep far above it, other pictures or weights do not


class FeatureStore:
    """The image features of one model, kept in a folder, or for the last set only when the folder is None.

    stored: the number format on disk. float16 halves the size and moves about one decision in ten thousand. world:
    processes that share the images; all of them must ask for the same sets. An interrupted encoding goes on where it
    was. fresh: encode anew what is kept. `num_encoded` counts the images this process had to encode, `reused` names the
    sets whose features were taken from the folder.
    """

    def __init__(
        self,
        clip: Clip,
        folder: str | os.PathLike[str] | None = None,
        *,
        stored: Stored = "float32",
        precision: TowerPrecision | None = None,
        batch_size: int = 64,
        num_workers: int = 4,
        max_broken_frac: float = 0.01,
        fresh: bool = False,
        world: World | None = None,
    ) -> None:
        if stored not in ("float32", "float16"):
            raise ConfigError(f"stored: expected float32 or float16, got {stored!r}")
        self.clip, self._folder = clip, None if folder is None else Path(folder)
        self._stored: Stored = stored
        self._precision = precision or TowerPrecision()
        self._batch_size, self._num_workers = batch_size, num_workers
        self._max_broken_frac = max_broken_frac
        self._world = world or World()
        self._model: dict[str, Any] = {}
        self._fresh, self._written = fresh, set[str]()
        self.reused: list[str] = []
        self._fast: Clip | None = None
        self._last: tuple[str, ImageFeatures] | None = None
        self.num_encoded = 0

    def __call__(self, source: Source, *, advance: Callable[[int], None] | None = None) -> ImageFeatures:
        """Features of every readable image of `source`. Raises DataError as `encode_source` does."""
        key = self._key(source)
        if self._last is None or self._last[0] != key:
            self._last = None  # its memory goes before the next comes
            self._last = key, self._found(source, key) or self._made(source, key, advance)
        return self._last[1]

    def kept(self, source: Source) -> ImageFeatures | None:
        """What the folder holds of `source`, where it is whole and true; None where it holds nothing."""
        return self._found(source, self._key(source))

    def _key(self, source: Source) -> str:
        if self._folder is None:  # a fingerprint alone does not tell pictures of equal names and sizes apart
            return content_hash(source)
        self._model = self._model or model_facts(self.clip.image, self.clip.preprocess)
        return cache_key(self._model, source, precision=self._precision.name, stored=self._stored)

    def _found(self, source: Source, key: str) -> ImageFeatures | None:
        """What an earlier run kept, when it is whole and true; the first process decides for all."""
        if self._folder is None or (self._fresh and key not in self._written):
            return None
        kept = self._world.once(lambda: _read_facts(self._path(key)) if self._is_true(source, key) else None)
        # a disk that only the first process sees is no cache for the others
        if self._world.any(kept is None or _open_rows(self._path(key)) is None) or kept is None:
            return None
        touch(self._path(key))
        self.reused.append(source.name)
        return self._features(source, key, kept)

    def _is_true(self, source: Source, key: str) -> bool:
        kept = _read_facts(self._path(key))
        if kept is None or not is_sealed(self._path(key)):
            return False
        rows, broken = _open_rows(self._path(key)), {index for index, _, _ in kept["broken"]}
        if rows is None or len(rows) != len(source):
            return False
        probes = [index for index in range(0, len(source), max(1, len(source) // _PROBES)) if index not in broken]
        pixels = [read_pixels(source, index, self.clip.preprocess) for index in probes[:_PROBES]]
        if not all(isinstance(one, Tensor) for one in pixels) or not pixels:
            return False
        with self._precision(self.clip.logit_scale.device):
            found = self.clip.encode_image(torch.stack([one for one in pixels if isinstance(one, Tensor)]))
        held = torch.from_numpy(rows[probes[:_PROBES]].astype(np.float32))
        return bool(((found.float().cpu() * held).sum(1) > _PROBE_COSINE).all())

    def _features(self, source: Source, key: str, kept: dict[str, Any]) -> ImageFeatures:
        rows = _open_rows(self._path(key))
        assert rows is not None  # `_is_true` has read it
        features = torch.from_numpy(rows)  # memory-mapped where it is fp32 and no image is broken
        broken = [BrokenImage(name, reason) for _, name, reason in kept["broken"]]
        skipped = {index for index, _, _ in kept["broken"]}
        indices = [index for index in range(len(source)) if index not in skipped]
        check_broken(source, broken, len(source), self._max_broken_frac)
        if skipped:
            features = features[torch.tensor(indices, dtype=torch.int64)]
        return gathered_features(source, features.float(), indices, broken)

    def _made(self, source: Source, key: str, advance: Callable[[int], None] | None) -> ImageFeatures:
        world = self._world
        rows = own_rows(len(source), self._batch_size, world)
        width = self.clip.image.embed_dim
        path = None if self._folder is None else self._path(f"{key}.{world.rank}of{world.size}.part")
        error: Exception | None = None
        part: _Part | None = None
        name = f"{key}.{world.rank}of{world.size}.lock"
        lock = nullcontext(False) if path is None else locked(path.with_name(name), wait=False)
        with lock as is_ours:
            part = _Part(path if is_ours else None, rows, width, self._stored)
            try:
                self._encode(source, part, advance)
            except Exception as stopped:
                error = stopped
            finally:
                part.save()
            if world.any(error is not None):  # the others must not wait for rows that will not come
                raise error or DataError(f"{source.name}: another process could not encode its share of the images")
            self._written.add(key)
            found = self._finished(source, key, part)
        if self._folder is not None and self._world.is_first:
            prune(self._folder)
        return found

    def _encode(self, source: Source, part: "_Part", advance: Callable[[int], None] | None) -> None:
        todo = range(part.rows.start + part.done, part.rows.stop)
        if advance is not None and part.done:
            advance(part.done)
        if self._fast is None:  # under autocast, casts of weights are part of the format
            self._fast = with_fast_tower(self.clip) if self._precision.half is None else self.clip
        for batch, features in encoded_batches(
            self._fast,
            source,
            todo,
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            precision=self._precision,
        ):
            broken = dict(zip(sorted(set(batch.rows) - set(batch.indices)), batch.broken, strict=True))
            part.add(batch.rows, batch.indices, features, broken)
            self.num_encoded += len(batch.indices)
            images = [BrokenImage(name, reason) for _, name, reason in part.broken]
            check_broken(source, images, batch.rows.stop, self._max_broken_frac)
            if advance is not None:
                advance(len(batch.rows))

    def _finished(self, source: Source, key: str, part: "_Part") -> ImageFeatures:
        world, broken = self._world, part.broken
        if world.size == 1 and part.path is not None:
            assert self._folder is not None
            part.close()
            seal(part.path)
            os.replace(part.path, self._path(key))
            _facts_path(part.path).unlink(missing_ok=True)
            _write_facts(self._path(key), {"source": source.name, "count": len(source), "broken": broken})
            return self._features(source, key, {"broken": broken})
        whole = torch.zeros(len(source), self.clip.image.embed_dim)
        whole[part.rows.start : part.rows.stop] = torch.from_numpy(np.asarray(part.array, dtype=np.float32))
        whole = sum_over_processes(whole, world)
        if world.size > 1:
            broken = sorted(one for part in world.gather(broken) for one in part)
        kept = {"source": source.name, "count": len(source), "broken": broken}
        part.close()
        if self._folder is not None and world.is_first:
            _write_rows(self._path(key), whole.numpy().astype(self._stored))
            _write_facts(self._path(key), kept)
        world.wait()
        if part.path is not None:
            part.path.unlink(missing_ok=True)
            _facts_path(part.path).unlink(missing_ok=True)
        skipped = {index for index, _, _ in broken}
        indices = [index for index in range(len(source)) if index not in skipped]
        images = [BrokenImage(name, reason) for _, name, reason in broken]
        check_broken(source, images, len(source), self._max_broken_frac)
        if skipped:
            whole = whole[torch.tensor(indices, dtype=torch.int64)]
        return gathered_features(source, whole, indices, images)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}.npy"


class _Part:
    """The features of some rows of a source, in memory or in a file that says how far it is."""

    def __init__(self, path: Path | None, rows: range, width: int, stored: Stored) -> None:
        self.path, self.rows, self.done = path, rows, 0
        self.broken: list[tuple[int, str, str]] = []
        shape, self._saved = (len(rows), width), time.monotonic()
        if path is None or not len(rows):
            self.path, self.array = None, np.zeros(shape, dtype=stored)
            return
        kept, array = _read_facts(path), _open_rows(path, mode="r+")
        if kept is not None and array is not None and array.shape == shape and array.dtype == stored:
            self.array, self.done = array, int(kept["done"])
            self.broken = [(int(index), str(name), str(reason)) for index, name, reason in kept["broken"]]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(stored), shape=shape)

    def add(self, rows: range, indices: tuple[int, ...], features: Tensor, broken: dict[int, BrokenImage]) -> None:
        """The features of `indices`, which with the broken ones are `rows`."""
        if indices:
            self.array[np.array(indices) - self.rows.start] = features.numpy()
        self.broken += [(index, one.key, one.reason) for index, one in broken.items()]
        self.done = rows.stop - self.rows.start
        if time.monotonic() - self._saved > _SAVE_S:
            self.save()

    def save(self) -> None:
        """Note how far the file is; the features are on disk before the note."""
        if self.path is not None:
            assert isinstance(self.array, np.memmap)
            self.array.flush()
            _write_facts(self.path, {"done": self.done, "broken": self.broken})
            self._saved = time.monotonic()

    def close(self) -> None:
        if isinstance(self.array, np.memmap):
            self.array.flush()
            self.array = np.zeros((0, 0), dtype=self.array.dtype)


def _facts_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    write_json(_facts_path(path), facts | {"sha256": facts_hash(facts)})


def _read_facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(_facts_path(path).read_text("utf-8"))
        is_whole = facts.pop("sha256") == facts_hash(facts)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return facts if is_whole and isinstance(facts.get("broken"), list) else None


def _open_rows(path: Path, mode: Literal["c", "r+"] = "c") -> NDArray[Any] | None:
    try:
        rows = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.ndim == 2 else None


def _write_rows(path: Path, rows: NDArray[Any]) -> None:
    with sealed_path(path) as part, part.open("wb") as stream:
        np.save(stream, rows)
