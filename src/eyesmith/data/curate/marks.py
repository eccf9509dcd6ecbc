"""What is needed of a picture to find it again: its perceptual hash and, with a model, its embedding."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyesmith.data.curate.perceptual import perceptual_hash
from eyesmith.data.curate.samples import ShardSamples
from eyesmith.data.curate.uids import UID, parse_uids
from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.stream.places import list_shards
from eyesmith.errors import DataError, ImageError
from eyesmith.files import atomic_path
from eyesmith.images import open_image

Embed = Callable[[Sequence[Image.Image]], NDArray[np.floating]]
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Marks:
    """Of N pictures: uids "u8,u8" [N] (zero in an evaluation set), hashes uint64 [N], embeddings [N, D] or None."""

    uids: NDArray[np.void]
    hashes: NDArray[np.uint64]
    embeddings: NDArray[np.floating] | None
    num_broken: int = 0


def read_marks(path: str | os.PathLike[str]) -> Marks:
    """Marks that `write_marks` wrote. Raises DataError."""
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            embeddings = stored.get("embedding")
            marks = Marks(stored["uid"], stored["hash"], embeddings, int(stored["broken"]))
    except (OSError, ValueError, KeyError, BadZipFile, MemoryError) as error:
        raise DataError(f"{path}: expected a file of `eyesmith curate marks` (.npz): {error}") from error
    return marks


def write_marks(path: str | os.PathLike[str], marks: Marks) -> None:
    """Write marks as .npz: uid, hash, broken and, when there are some, embedding (half precision)."""
    arrays = {"uid": marks.uids, "hash": marks.hashes, "broken": np.int64(marks.num_broken)}
    if marks.embeddings is not None:
        arrays["embedding"] = marks.embeddings.astype(np.float16)
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def mark_shards(
    place: str | os.PathLike[str], *, embed: Embed | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Marks:
    """Marks of the pictures in tar shards whose samples say their uid. Pictures that cannot be read are counted.

    Raises DataError when there is no shard, or no usable picture at all.
    """
    shards = list_shards(place)

    def pictures() -> Iterator[tuple[str, bytes]]:
        for number, shard in enumerate(shards, start=1):
            with ShardSamples(shard) as samples:
                for sample in samples:
                    if sample.uid and (image := sample.image()) is not None:
                        yield sample.uid, image
            if on_progress is not None:
                on_progress(number, len(shards))

    names, marks = _marks(pictures(), embed)
    if not len(names):
        raise DataError(f"{place}: no sample with a picture and a uid in its json; {marks.num_broken:,} were broken")
    return Marks(parse_uids(names), marks.hashes, marks.embeddings, marks.num_broken)


def mark_evaluation(
    place: str | os.PathLike[str], *, embed: Embed | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Marks:
    """Marks of the pictures of an evaluation set, for decontamination. Pictures that cannot be read are counted."""
    found = open_evaluation_set(place, is_strict=False)

    def pictures() -> Iterator[tuple[str, bytes]]:
        for index in range(len(found)):
            yield "", found.source.image_bytes(index)
            if on_progress is not None:
                on_progress(index + 1, len(found))

    names, marks = _marks(pictures(), embed)
    return Marks(np.zeros(len(names), dtype=UID), marks.hashes, marks.embeddings, marks.num_broken)


def _marks(pictures: Iterator[tuple[str, bytes]], embed: Embed | None) -> tuple[list[str], Marks]:
    names: list[str] = []
    hashes: list[int] = []
    waiting: list[Image.Image] = []
    rows: list[NDArray[np.floating]] = []
    num_broken = 0
    for name, content in pictures:
        try:
            image = open_image(content)
        except ImageError:
            num_broken += 1
            continue
        names.append(name)
        hashes.append(perceptual_hash(image))
        if embed is not None:
            waiting.append(image)
            if len(waiting) == _BATCH:
                rows.append(embed(waiting))
                waiting = []
    if embed is not None and waiting:
        rows.append(embed(waiting))
    embeddings = np.concatenate(rows) if rows else None
    return names, Marks(np.zeros(0, dtype=UID), np.array(hashes, dtype=np.uint64), embeddings, num_broken)
