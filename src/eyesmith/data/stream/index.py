"""Where every sample of a shard lies: read once from the tar's headers, then kept in a small file."""

import hashlib
import json
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.data.tar_index import index_tar
from eyesmith.data.tar_samples import shard_samples
from eyesmith.errors import DataError
from eyesmith.files import DAMAGED_ZIP, cache_folder, is_sealed, locked, open_binary, read_at, sealed_path

IMAGE, TXT, JSON, CLS = range(4)  # the second axis of ShardIndex.places
_REQUIRED: dict[str, frozenset[str]] = {"image": frozenset(IMAGE_EXTENSIONS), "txt or json": frozenset(("txt", "json"))}
_FORMAT = 3  # raise when what an index holds or leaves out changes
_NOT_KEPT = DAMAGED_ZIP  # never made, or cut: it is made again
_MAX_KEPT_BYTES = 4 << 30  # of indices, some 60 million samples
_YOUNG_S = 24 * 3600.0
_MAX_TEXT_BYTES = 1 << 16  # text members up to this size enter the digest whole
_IMAGE_END_BYTES = 64  # of an encoded image: another image of as many bytes ends otherwise


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The samples of one shard that have an image and a text, in file order.

    keys: one a sample; places: int64 [samples, 4, 2], first byte and length of image, txt, json, cls, length -1 for
    none; broken: what was left out, as the number of samples by kind (`damaged_tar`, `truncated_tar` and
    `unreadable_shard` count the shard once); first: one example of each kind, key and detail; digest: SHA-256 over
    keys, places, texts and the ends of the images, so that another one is other data.
    """

    keys: list[str]
    places: np.ndarray
    broken: dict[str, int]
    first: dict[str, tuple[str, str]]
    digest: str

    def __len__(self) -> int:
        return len(self.keys)


def shard_index(path: str | os.PathLike[str], *, folder: Path | None = None) -> ShardIndex:
    """The index of a local shard, from `folder` when it was made before of the same path, size and modification time.

    folder: eyesmith's cache when not given. A shard that cannot be read has no samples and says so in `broken`.
    """
    place = Path(path).absolute()
    try:
        kept = _kept(place, folder)
    except OSError as error:
        return _unreadable(f"{place}: cannot read this shard: {error.strerror or error}")
    try:
        return _load(kept)
    except _NOT_KEPT:
        pass
    # processes of a machine come to a shard at the same time: one reads it, if it can, and the others wait
    with locked(kept.with_name(f"{kept.name[:2]}.lock")):
        try:
            return _load(kept)
        except _NOT_KEPT:
            index = _read(place)
        if "unreadable_shard" in index.broken:  # perhaps the disk's fault, and gone next time
            return index
        with sealed_path(kept) as part, part.open("wb") as stream:
            np.savez(
                stream,
                keys=np.frombuffer(_joined(index.keys), dtype=np.uint8),
                places=index.places,
                faults=np.frombuffer(json.dumps([index.broken, index.first, index.digest]).encode(), dtype=np.uint8),
            )
    return index


def prune_indices(folder: Path | None = None, *, limit_bytes: int = _MAX_KEPT_BYTES) -> None:
    """Remove the indices that were used the longest ago until those kept are at most `limit_bytes`.

    Those of the last day stay: another process may be about to read them.
    """
    found = []
    for file in (folder or cache_folder() / "shard-index").glob("*.npz"):
        with suppress(OSError):
            facts = file.stat()
            found.append((facts.st_mtime, facts.st_size, file))
    total = sum(size for _, size, _ in found)
    for used, size, file in sorted(found):
        if total <= limit_bytes or time.time() - used < _YOUNG_S:
            return
        with suppress(OSError):
            file.unlink()
            total -= size


def prepare_index(path: str | os.PathLike[str]) -> None:
    """Make the index of a local shard if it was not made before; cheaper than reading one that was."""
    with suppress(OSError):
        if not _kept(Path(path).absolute(), None).is_file():
            shard_index(path)


def _kept(place: Path, folder: Path | None) -> Path:
    facts = place.stat()
    name = hashlib.sha256(f"{_FORMAT}\n{place}\n{facts.st_size}\n{facts.st_mtime_ns}".encode()).hexdigest()[:32]
    return (folder or cache_folder() / "shard-index") / f"{name}.npz"


def _load(file: Path) -> ShardIndex:
    with suppress(OSError):
        os.utime(file)  # the time of its last use, for `prune_indices`
    if not is_sealed(file):
        raise BadZipFile(f"{file}: was never made, or is damaged")
    # opened here: of a damaged file NumPy leaves the closing to the collector
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        names = stored["keys"].tobytes().decode("utf-8", "surrogatepass")
        places = stored["places"]
        broken, first, digest = json.loads(stored["faults"].tobytes())
        keys = names.split("\0") if len(places) else []
        return ShardIndex(keys, places, broken, {kind: (key, text) for kind, (key, text) in first.items()}, digest)


def _read(path: Path) -> ShardIndex:
    try:
        tar = index_tar(path)
    except DataError as error:
        return _unreadable(str(error))
    broken: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}

    def count(kind: str, key: str, detail: str) -> None:
        broken[kind] += 1
        first.setdefault(kind, (key, detail))

    found = shard_samples(tar)
    for fault in found.faults:
        count(*fault)
    keys, rows = [], []
    for key, parts in found.samples.items():
        if parts.keys() == {"npy"}:  # an array that belongs to no pair
            continue
        missing = found.lacks(key, required=_REQUIRED)
        if missing:
            count("missing_image" if missing.startswith("no image") else "missing_text", key, missing)
            continue
        if key in found.no_bytes:
            count("missing_member", key, found.no_bytes[key])
        keys.append(key)
        image = next(parts[extension] for extension in IMAGE_EXTENSIONS if extension in parts)
        texts = (parts.get(name) for name in ("txt", "json", "cls"))
        rows.append([(image.offset, image.size), *((one.offset, one.size) if one else (0, -1) for one in texts)])
    places = np.array(rows, dtype=np.int64).reshape(len(rows), 4, 2)
    try:
        return ShardIndex(keys, places, dict(broken), first, _digest(path, keys, places))
    except OSError as error:
        return _unreadable(f"{path}: cannot read this shard: {error.strerror or error}")


def _digest(path: Path, keys: list[str], places: np.ndarray) -> str:
    digest = hashlib.sha256(_joined(keys))
    digest.update(places.tobytes())
    descriptor = open_binary(path)
    try:
        for image, txt, meta, label in places.tolist():
            for offset, size in (txt, meta, label):
                if 0 < size <= _MAX_TEXT_BYTES:
                    digest.update(read_at(descriptor, size, offset))
            end = min(image[1], _IMAGE_END_BYTES)
            digest.update(read_at(descriptor, end, image[0] + image[1] - end))
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _joined(keys: list[str]) -> bytes:
    return "\0".join(keys).encode("utf-8", "surrogatepass")


def _unreadable(message: str) -> ShardIndex:
    places = np.empty((0, 4, 2), dtype=np.int64)
    return ShardIndex([], places, {"unreadable_shard": 1}, {"unreadable_shard": ("", message)}, "")
