"""Where every sample of a shard lies: read once from the tar's headers, then kept in a small file."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.data.tar_index import index_tar
from eyesmith.data.tar_source import split_member_name
from eyesmith.errors import DataError
from eyesmith.files import atomic_path, cache_folder

IMAGE, TXT, JSON, CLS = range(4)  # the second axis of ShardIndex.places
_COLUMN = {**dict.fromkeys(IMAGE_EXTENSIONS, IMAGE), "txt": TXT, "json": JSON, "cls": CLS}
_FORMAT = 1  # raise when what an index holds or leaves out changes


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The samples of one shard that have an image and a text, in file order.

    keys: one a sample; places: int64 [samples, 4, 2], first byte and length of image, txt, json, cls, length -1 for
    none; broken: what was left out, as the number of samples by kind (`damaged_tar`, `truncated_tar` and
    `unreadable_shard` count the shard once); first: one example of each kind, key and detail.
    """

    keys: list[str]
    places: np.ndarray
    broken: dict[str, int]
    first: dict[str, tuple[str, str]]

    def __len__(self) -> int:
        return len(self.keys)


def shard_index(path: str | os.PathLike[str], *, folder: Path | None = None) -> ShardIndex:
    """The index of a local shard, from `folder` when it was made before of the same path, size and modification time.

    folder: eyesmith's cache when not given. A shard that cannot be read has no samples and says so in `broken`.
    """
    place = Path(path).absolute()
    try:
        facts = place.stat()
    except OSError as error:
        return _unreadable(f"{place}: cannot read this shard: {error.strerror or error}")
    name = hashlib.sha256(f"{_FORMAT}\n{place}\n{facts.st_size}\n{facts.st_mtime_ns}".encode()).hexdigest()[:32]
    kept = (folder or cache_folder() / "shard-index") / f"{name}.npz"
    try:
        return _load(kept)
    except (OSError, ValueError, KeyError, BadZipFile):
        pass  # never made, or cut: it is made again
    index = _read(place)
    with atomic_path(kept) as part, part.open("wb") as stream:
        np.savez(
            stream,
            keys=np.frombuffer("\0".join(index.keys).encode("utf-8", "surrogatepass"), dtype=np.uint8),
            places=index.places,
            faults=np.frombuffer(json.dumps([index.broken, index.first]).encode(), dtype=np.uint8),
        )
    return index


def _load(file: Path) -> ShardIndex:
    # opened here: of a damaged file NumPy leaves the closing to the collector
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        names = stored["keys"].tobytes().decode("utf-8", "surrogatepass")
        broken, first = json.loads(stored["faults"].tobytes())
        keys = names.split("\0") if len(stored["places"]) else []
        return ShardIndex(keys, stored["places"], broken, {kind: (key, text) for kind, (key, text) in first.items()})


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

    if tar.damage:
        kind = "truncated_tar" if tar.damage.startswith("cut") else "damaged_tar"
        count(kind, "", f"{tar.damage}; the {len(tar.members):,} members before it are used")
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    for member in tar.members:
        key, extension = split_member_name(member.name)
        if key and extension in _COLUMN:
            parts = samples.setdefault(key, {})
            if extension in parts:
                count("duplicate_key", key, f"a second {extension} member; the first is used")
            else:
                parts[extension] = (member.offset, member.size)
    first_parts = next(iter(samples.values()), {})
    last = next(reversed(samples), None) if tar.damage else None
    keys, rows = [], []
    for key, parts in samples.items():
        image = next((parts[extension] for extension in IMAGE_EXTENSIONS if extension in parts), None)
        # the caption of the last sample may lie behind the damage: what the first sample has, it should have too
        cut = [name for name in ("txt", "json", "cls") if name in first_parts and name not in parts]
        if image is None:
            count("missing_image", key, f"no image, only {', '.join(sorted(parts))}")
        elif not ("txt" in parts or "json" in parts) or (key == last and cut):
            count("missing_text", key, f"no {', '.join(cut) or 'txt or json'}, only {', '.join(sorted(parts))}")
        else:
            keys.append(key)
            rows.append((image, *(parts.get(name, (0, -1)) for name in ("txt", "json", "cls"))))
    places = np.array(rows, dtype=np.int64).reshape(len(rows), 4, 2)
    return ShardIndex(keys, places, dict(broken), first)


def _unreadable(message: str) -> ShardIndex:
    places = np.empty((0, 4, 2), dtype=np.int64)
    return ShardIndex([], places, {"unreadable_shard": 1}, {"unreadable_shard": ("", message)})
