"""From places in shards to pixels, captions and labels. Runs in a decoding process, or in the caller's."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from eyesmith.data.stream.index import IMAGE, JSON, TXT
from eyesmith.data.tar_samples import captions_of, label_of, needs_json, read_meta
from eyesmith.errors import DataError, ImageError
from eyesmith.files import open_binary, read_at
from eyesmith.images.crop import below, sample_rng
from eyesmith.images.transforms import Mode, PreprocessConfig, TrainTransformConfig, evaluation_pixels, training_pixels

_MAX_OPEN = 64  # shards; more are opened again at each read
NUM_STAND_INS = 8  # samples after a broken one that may take its row


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows to read into consecutive rows of a batch, and the samples after them that may stand in for broken ones.

    paths: local shards; path_of: int64 [n], into them; keys, epochs: one a sample; places: int64 [n, 4, 2] of
    ShardIndex, image length -1 where the shard does not hold the sample. The first num_rows of the n are the rows.
    """

    num_rows: int
    paths: tuple[str, ...]
    path_of: np.ndarray
    keys: list[str]
    epochs: np.ndarray
    places: np.ndarray


@dataclass(frozen=True, slots=True)
class Broken:
    """A sample that could not be used. kind: a fixed word; shard: its file name; detail: for people."""

    kind: str
    shard: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class ChunkRead:
    """What is known of a chunk beside its pixels. One key, text and label a row; broken: the rows' own samples."""

    keys: list[str]
    texts: list[str]
    labels: list[int | None]
    broken: list[Broken]


class BrokenError(Exception):
    """A sample cannot be used; `kind` as in `Broken`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Reader:
    """Reads samples of shards. Which caption and crop it draws for one depends on (seed, epoch, key) alone."""

    def __init__(
        self,
        transform: TrainTransformConfig | PreprocessConfig,
        *,
        mode: Mode,
        seed: int,
        require_text: bool = True,
    ) -> None:
        self.transform = transform
        self.require_text = require_text
        self.mode: Mode = mode
        self.seed = seed
        self._open: OrderedDict[str, int] = OrderedDict()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what it reads, in pixels."""
        return self.transform.image_size

    def read(self, chunk: Chunk, out: Tensor) -> ChunkRead:
        """Read a chunk. out: uint8 [num_rows, 3, H, W], written.

        A row whose sample is broken shows the next usable sample of the chunk, wrapping round past its end, with that
        one's own caption and crop. Raises DataError when none of the next 8 is usable.
        """
        keys, texts, labels, broken = [], [], [], []
        for row in range(chunk.num_rows):
            first: Broken | None = None
            for step in range(NUM_STAND_INS + 1):
                sample = (row + step) % len(chunk.keys)
                try:
                    text, label, pixels = self._sample(chunk, sample)
                except BrokenError as error:
                    shard = os.path.basename(chunk.paths[chunk.path_of[sample]])
                    first = first or Broken(error.kind, shard, chunk.keys[sample], str(error))
                    continue
                out[row] = pixels
                keys.append(chunk.keys[sample])
                texts.append(text)
                labels.append(label)
                break
            else:
                assert first is not None
                raise DataError(
                    f"{first.shard}: {NUM_STAND_INS + 1} samples in a row cannot be used; "
                    f"the first, {first.key}: {first.detail}"
                )
            if first is not None:
                broken.append(first)
        return ChunkRead(keys, texts, labels, broken)

    def image_bytes(self, chunk: Chunk, sample: int) -> bytes:
        """The encoded image of a sample of a chunk."""
        return self._bytes(chunk.paths[chunk.path_of[sample]], chunk.places[sample, IMAGE].tolist())

    def captions(self, chunk: Chunk, sample: int) -> Sequence[str]:
        """Captions of a sample of a chunk."""
        path, places = chunk.paths[chunk.path_of[sample]], chunk.places[sample]
        return stored_captions(
            *(self._bytes(path, places[kind].tolist()) if places[kind, 1] >= 0 else None for kind in (TXT, JSON))
        )

    def close(self) -> None:
        """Close the shards that are open."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()

    def _sample(self, chunk: Chunk, sample: int) -> tuple[str, int | None, Tensor]:
        path, key = chunk.paths[chunk.path_of[sample]], chunk.keys[sample]
        image, _, _, cls = chunk.places[sample].tolist()
        if image[1] < 0:
            raise BrokenError("missing_sample", "the shard holds fewer samples than its stated count")
        captions = self.captions(chunk, sample) if self.require_text else ("",)
        if not captions:
            raise BrokenError("empty_caption", "no caption that is not blank")
        label = None
        if cls[1] >= 0:
            label = label_of(self._bytes(path, cls), None)
            if not isinstance(label, int):
                raise BrokenError("bad_label", f"cls: expected a whole number, got {label}")
        rng = sample_rng(self.seed, int(chunk.epochs[sample]), key)
        text = captions[below(rng, len(captions))]
        content = self.image_bytes(chunk, sample)
        try:
            if isinstance(self.transform, TrainTransformConfig):
                pixels = training_pixels(content, self.transform, rng, mode=self.mode)
            else:
                pixels = evaluation_pixels(content, self.transform, mode=self.mode)
        except ImageError as error:
            raise BrokenError("undecodable", str(error)) from None
        return text, label, pixels

    def _bytes(self, path: str, place: list[int]) -> bytes:
        offset, size = place
        try:
            content = read_at(self._descriptor(path), size, offset)
        except OSError as error:
            raise BrokenError("unreadable_shard", f"{path}: {error.strerror or error}") from None
        if len(content) != size:
            raise BrokenError("cut_member", f"got {len(content):,} of {size:,} bytes: the shard changed while in use")
        return content

    def _descriptor(self, path: str) -> int:
        descriptor = self._open.get(path)
        if descriptor is None:
            while len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            descriptor = self._open[path] = open_binary(path)
        self._open.move_to_end(path)
        return descriptor


def stored_captions(txt: bytes | None, meta: bytes | None) -> Sequence[str]:
    """Captions of a sample as `captions_of` reads them, with replacement characters for what is not UTF-8.

    Raises BrokenError for json that cannot be read and is needed.
    """
    faults: list[tuple[str, str]] = []
    known = read_meta(meta, faults) if meta is not None and needs_json(txt, meta) else None
    texts = captions_of(txt, known, faults)
    broken = next((detail for kind, detail in faults if kind == "bad_json"), None)
    if broken is not None and not texts:
        raise BrokenError("bad_json", broken)
    return texts
