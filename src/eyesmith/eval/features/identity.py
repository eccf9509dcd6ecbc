"""One identity for everything that is kept: image features, text features, results and the index of a search.

What was kept is used again only where nothing that it depends on has changed: the tensors of the model and how it uses
them, the preprocessing, the number format, the pictures, the libraries that decode them, and our own format.
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL
from PIL import features as pillow_features
from torch import nn

from eyesmith.config import to_dict
from eyesmith.data.sample import Source, files_of
from eyesmith.files import SEAL_BYTES, cache_folder, is_sealed, sealed_path, sha256_file
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.identity import structure_hash, weights_hash

FORMAT = 2  # of what is kept; raise it when the same inputs give other numbers
# how all was measured before there was a choice: such a field is no part of an identity
_BEFORE_CHOICES = {"exif": "ignore", "crop_frac": 1.0, "half_px": "even", "rgb": "last"}
WHY = "weights, model, preprocessing, pictures and decoders are as they were"


def cache_key(model: Mapping[str, Any], source: Source | None = None, **facts: Any) -> str:
    """A name for what a model (`model_facts`) says of `source`: equal for equal inputs, and for them alone.

    facts: whatever else the numbers depend on.
    """
    parts: dict[str, Any] = {"model": dict(model), "facts": facts}
    if source is not None:
        parts |= {"data": content_hash(source), "decoders": decoders()}
    return facts_hash(parts)


def model_facts(module: nn.Module, preprocess: PreprocessConfig | None = None) -> dict[str, Any]:
    """weights, architecture and preprocess of a model as digests, and our format; JSON-able."""
    found: dict[str, Any] = {
        "weights": weights_hash(module),
        "architecture": structure_hash(module),
        "format": FORMAT,
    }
    if preprocess is None:
        return found
    facts = to_dict(preprocess)
    for name, value in _BEFORE_CHOICES.items():
        if facts[name] == value:
            del facts[name]
    return found | {"preprocess": facts_hash(facts)}


def decoders() -> dict[str, str]:
    """The libraries whose version may change a pixel."""
    found = {"pillow": PIL.__version__, "system": platform.system()}
    for name in ("jpg", "libjpeg_turbo", "webp", "zlib", "libtiff"):
        version = pillow_features.version(name)
        if version:
            found[name] = version
    return found


def content_hash(source: Source) -> str:
    """Hexadecimal digest of a source's pictures, texts and labels.

    A picture in a file of its own counts by path, size and time of writing; a tar by its bytes, which are read once
    for each time of writing. Of a source that does not say where its pictures lie (`files`), each is read.
    """
    digest = hashlib.sha256()
    digest.update(source.fingerprint().encode(errors="surrogatepass"))
    for place in files_of(source):
        for line in _stamp(place):
            digest.update(f"{line}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def facts_hash(facts: Any) -> str:
    """Hexadecimal digest of JSON-able facts, independent of the order of keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(place: Path | bytes) -> Iterator[str]:
    if isinstance(place, bytes):
        yield hashlib.sha256(place).hexdigest()
        return
    try:
        facts = place.stat()
    except OSError as error:
        yield f"{place} {error.strerror}"  # it cannot be read now; once it can, it is another
        return
    if place.is_dir():  # the frames of a video
        for file in sorted(place.iterdir()):
            yield from _stamp(file)
    elif place.suffix == ".tar":
        yield _tar_hash(place, facts)
    else:
        yield f"{place.absolute()} {facts.st_size} {facts.st_mtime_ns}"


def _tar_hash(path: Path, facts: os.stat_result) -> str:
    """SHA-256 of a tar, remembered for this size and time of writing."""
    name = facts_hash([str(path.absolute()), facts.st_size, facts.st_mtime_ns])
    kept = cache_folder() / "hashes" / f"{name}.txt"
    with contextlib.suppress(OSError):
        if is_sealed(kept):
            return kept.read_bytes()[:-SEAL_BYTES].decode()
    found = sha256_file(path)
    with contextlib.suppress(OSError), sealed_path(kept) as part:  # a full disk costs the next run a second reading
        part.write_text(found)
    return found
