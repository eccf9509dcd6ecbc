"""What is needed of a picture to find it again: its perceptual hash and, with a model, its embedding."""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyesmith.data.curate.perceptual import perceptual_hash
from eyesmith.data.curate.samples import ShardSamples
from eyesmith.data.curate.uids import UID, try_uids
from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.stream.places import list_shards
from eyesmith.errors import DataError, ImageError
from eyesmith.files import DAMAGED_ZIP, atomic_path
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
    except DAMAGED_ZIP as error:
        raise DataError(f"{path}: expected a file of `eyesmith curate marks` (.npz): {error}") from error
    return marks


def write_marks(path: str | os.PathLike[str], marks: Marks) -> None:
    """Write marks as .npz: uid, hash, broken and, when there are some, embedding (half precision)."""
    arrays = {"uid": marks.uids, "hash": marks.hashes, "broken": np.int64(marks.num_broken)}
    if marks.embeddings is not None:
        arrays["embedding"] = marks.embeddings.astype(np.float16)
    with atomic_path(path) as part, part.open("wb") as stream:
        # no name of ours is that of its option allow_pickle
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def mark_shards(
    place: str | os.PathLike[str], *, embed: Embed | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Marks:
    """Marks of the pictures in tar shards whose samples say their uid. Samples without one or without a picture, and
    pictures that cannot be read, are counted.

    Raises DataError when there is no shard, or no usable picture at all.
    """
    shards = list_shards(place)
    num_left_out = 0

    def pictures() -> Iterator[tuple[bytes, bytes]]:
        nonlocal num_left_out
        for number, shard in enumerate(shards, start=1):
            with ShardSamples(shard) as opened:
                samples = list(opened)
                uids, is_uid = try_uids([sample.uid for sample in samples])
                for sample, uid, is_known in zip(samples, uids, is_uid, strict=True):
                    image = sample.image() if is_known else None
                    if image is None:
                        num_left_out += 1
                    else:
                        yield uid.tobytes(), image
            if on_progress is not None:
                on_progress(number, len(shards))

    marks = _marks(pictures(), embed)
    marks = replace(marks, num_broken=marks.num_broken + num_left_out)
    if not len(marks.hashes):
        raise DataError(f"{place}: no sample with a picture and a uid in its json; {marks.num_broken:,} were broken")
    return marks


def mark_evaluation(
    place: str | os.PathLike[str], *, embed: Embed | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Marks:
    """Marks of the pictures of an evaluation set, for decontamination. Pictures that cannot be read are counted."""
    found = open_evaluation_set(place, is_strict=False)

    def pictures() -> Iterator[tuple[bytes, bytes]]:
        for index in range(len(found)):
            yield bytes(UID.itemsize), found.source.image_bytes(index)
            if on_progress is not None:
                on_progress(index + 1, len(found))

    return _marks(pictures(), embed)


def _marks(pictures: Iterator[tuple[bytes, bytes]], embed: Embed | None) -> Marks:
    uids, hashes = bytearray(), array("Q")
    waiting: list[Image.Image] = []
    rows: list[NDArray[np.floating]] = []
    num_broken = 0
    for uid, content in pictures:
        try:
            image = open_image(content)
        except ImageError:
            num_broken += 1
            continue
        uids += uid
        hashes.append(perceptual_hash(image))
        if embed is not None:
            waiting.append(image)
            if len(waiting) == _BATCH:
                rows.append(embed(waiting))
                waiting = []
    if embed is not None and waiting:
        rows.append(embed(waiting))
    embeddings = np.concatenate(rows) if rows else None
    return Marks(np.frombuffer(uids, dtype=UID), np.array(hashes, dtype=np.uint64), embeddings, num_broken)
