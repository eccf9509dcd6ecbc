"""Makes small pools in DataComp's format: parquet, .npz, and shards as img2dataset writes them.

To try a plan without a download, and for tests. Captions, sizes and scores are drawn; numbers measured on such a pool
say nothing about a rule. Equal arguments give equal pools.
"""

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eyesmith.data.curate.pool import polars_module
from eyesmith.files import atomic_path, write_json

_WORDS = """a the of in on with photo picture dog cat house tree red blue green small old new car boat bird flower sea
mountain street night day winter summer hund katze haus baum und der die das chat chien maison rue""".split()  # noqa: SIM905
_MARKS = ("", "", "", "", ",", ".", "!", "?", ":", "-")
_ENGLISH_FRAC, _EMPTY_FRAC, _COPY_FRAC = 0.6, 0.02, 0.1
_NPZ = ("b32_img", "b32_txt", "l14_img", "l14_txt")


@dataclass(frozen=True, kw_only=True)
class MadePool:
    """Where things are. metadata: the folder of parquet and .npz; shards: the folder of tars, or None."""

    metadata: Path
    shards: Path | None


def make_pool(
    folder: str | os.PathLike[str],
    *,
    samples: int = 1000,
    files: int = 3,
    seed: int = 0,
    feature_dim: int = 16,
    shard_samples: int = 0,
    size_px: int = 48,
) -> MadePool:
    """Make a pool of `samples` in `files` parquet files below `folder`.

    Some captions are empty, some sizes small, a tenth of the pictures copies of others (saved again, with features that
    differ a little), some scores equal. feature_dim: of the features (DataComp's have 512 and 768). shard_samples: with
    more than 0, shards of so many samples with drawn pictures, in which a few samples are missing, as after a download.
    """
    polars = polars_module()
    rng = np.random.default_rng([seed, samples])
    place = Path(folder)
    uids = [hashlib.md5(f"{seed}-{number}".encode(), usedforsecurity=False).hexdigest() for number in range(samples)]
    copy_of = np.where(rng.random(samples) < _COPY_FRAC, rng.integers(0, np.arange(samples) + 1), np.arange(samples))
    ends = np.linspace(0, samples, files + 1).astype(int)
    is_english = rng.random(samples) < _ENGLISH_FRAC
    captions = [_caption(rng, bool(english)) for english in is_english]
    sides = np.exp(rng.normal(6, 0.8, (samples, 2))).astype(np.int64) + 1
    scores = {name: np.round(rng.normal(0.22, 0.06, samples), 3).astype(np.float32) for name in ("b32", "l14")}
    features = {name: rng.normal(size=(samples, feature_dim)) for name in _NPZ}
    for name in ("b32_img", "l14_img"):
        features[name] = features[name][copy_of] + 0.01 * rng.normal(size=(samples, feature_dim))
    for number in range(files):
        rows = slice(int(ends[number]), int(ends[number + 1]))
        name = hashlib.md5(f"{seed}-file-{number}".encode(), usedforsecurity=False).hexdigest()
        frame = polars.DataFrame(
            {
                "uid": uids[rows],
                "url": [f"https://example.org/{uid}.jpg" for uid in uids[rows]],
                "text": captions[rows],
                "original_width": sides[rows, 0],
                "original_height": sides[rows, 1],
                "clip_b32_similarity_score": scores["b32"][rows],
                "clip_l14_similarity_score": scores["l14"][rows],
                "face_bboxes": [[] for _ in uids[rows]],
                "sha256": [hashlib.sha256(uid.encode()).hexdigest() for uid in uids[rows]],
                "language": ["en" if english else "de" for english in is_english[rows]],
            },
            schema_overrides={"face_bboxes": polars.List(polars.List(polars.Float64))},
        )
        with atomic_path(place / "metadata" / f"{name}.parquet") as part:
            frame.write_parquet(part)
        with atomic_path(place / "metadata" / f"{name}.npz") as part, part.open("wb") as stream:
            # no name of ours is that of its option allow_pickle
            np.savez_compressed(stream, **{key: value[rows].astype(np.float16) for key, value in features.items()})  # type: ignore[arg-type]
    shards = None
    if shard_samples:
        shards = place / "shards"
        for number, start in enumerate(range(0, samples, shard_samples)):
            rows = range(start, min(start + shard_samples, samples))
            _write_shard(shards, number, [i for i in rows if i % 17 != 5], uids, captions, copy_of, size_px)
    return MadePool(metadata=place / "metadata", shards=shards)


def _caption(rng: np.random.Generator, english: bool) -> str:
    if rng.random() < _EMPTY_FRAC:
        return ""
    words = rng.integers(0, 29 if english else len(_WORDS), int(rng.integers(1, 12)))
    text = " ".join(_WORDS[word] + _MARKS[int(rng.integers(len(_MARKS)))] for word in words)
    return text.replace(" ", "\n", 1) if rng.random() < 0.05 else text


def _write_shard(
    folder: Path, number: int, rows: list[int], uids: list[str], captions: list[str], copy_of: np.ndarray, size_px: int
) -> None:
    with atomic_path(folder / f"{number:08d}.tar") as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for place, row in enumerate(rows):
            key = f"{number:04d}{place:05d}"
            facts = {"uid": uids[row], "key": key, "caption": captions[row], "status": "success", "face_bboxes": []}
            quality = 90 if copy_of[row] == row else 60
            members = {
                "jpg": _picture(int(copy_of[row]), size_px, quality),
                "json": json.dumps(facts).encode(),
                "txt": captions[row].encode(),
            }
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    write_json(folder / f"{number:08d}_stats.json", {"count": len(rows), "successes": len(rows)})


def _picture(seed: int, size_px: int, quality: int) -> bytes:
    rough = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize((size_px, size_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
