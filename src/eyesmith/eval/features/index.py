"""A model on a user's own pictures: class probabilities, and a search index that is kept from call to call."""

import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import Source
from eyesmith.data.text import file_key
from eyesmith.errors import DataError, EyesmithError
from eyesmith.eval.features.batches import BrokenImage
from eyesmith.eval.features.images import encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.heads.score import link_of
from eyesmith.eval.statistics.metrics import similarity, top_candidates
from eyesmith.files import atomic_path, is_sealed, sealed_path
from eyesmith.images import collect_images
from eyesmith.models.clip import Clip


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """features: [N, D] fp32 unit rows; keys: the image of each row; broken: images that could not be read."""

    features: Tensor
    keys: tuple[str, ...]
    broken: tuple[BrokenImage, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. score: cosine of image and text."""

    key: str
    score: float


def open_images(paths: Iterable[str | os.PathLike[str]]) -> FileSource:
    """The images that files, folders and patterns name, as a source without captions; keys are the paths as given.

    Raises InputError as `collect_images` does.
    """
    paths = [os.fspath(path) for path in paths]
    records = [
        # a link whose target is gone is an image that cannot be read, and named as such
        Record(file_key(str(file)), file, file.stat().st_size if file.exists() else 0, (), file_key(str(file)))
        for file in collect_images(paths)
    ]
    return FileSource(records, name=paths[0] if len(paths) == 1 else "images", require_text=False)


def encode_images(clip: Clip, source: Source, *, batch_size: int = 64) -> ImageIndex:
    """Features of every readable image of `source`. Raises EyesmithError when none can be read."""
    try:
        found = encode_source(clip, source, batch_size=batch_size, max_broken_frac=1.0)
    except DataError as error:
        raise EyesmithError(str(error)) from error
    return ImageIndex(features=found.features, keys=found.keys, broken=found.broken)


def check_class_names(names: Sequence[str]) -> None:
    """Raise DataError for an empty list of names, an empty name, and a name that comes twice."""
    if not names:
        raise DataError("no class names were given")
    for place, name in enumerate(names):
        if not name.strip():
            raise DataError(f"class name {place + 1} is empty")
        if name in names[:place]:
            raise DataError(f"class name {name!r} is given twice")


def check_query(query: str) -> None:
    """Raise DataError for a text of blanks alone."""
    if not query.strip():
        raise DataError("the text to search for is empty")


def class_probabilities(
    clip: Clip, index: ImageIndex, names: Sequence[str], prompts: Sequence[str] | None = None
) -> Tensor:
    """[N, K] fp32 by the model's own link (`link_of`); prompts: the model's own when None.

    Raises DataError as `check_class_names`.
    """
    check_class_names(names)
    weights = TextFeatures(clip).class_weights(names, prompts or clip.prompts)  # [K, D]
    return link_of(clip).probabilities(similarity(index.features, weights, device=clip.logit_scale.device))


def search(clip: Clip, index: ImageIndex, query: str, *, top: int = 5) -> list[Hit]:
    """The `top` images nearest to `query`, best first (all of them when they are fewer)."""
    check_query(query)
    if top < 1:
        raise DataError(f"top: expected at least 1, got {top}")
    scores = similarity(TextFeatures(clip)([query]), index.features)  # [1, N]
    values, rows = top_candidates(scores, min(top, len(index.keys)))
    return [Hit(index.keys[row], value) for row, value in zip(rows[0].tolist(), values[0].tolist(), strict=True)]


def write_index(path: str | os.PathLike[str], index: ImageIndex, *, is_kept: bool = False) -> None:
    """Save as .npz with `features` [N, D] float32, `keys` [N] and `broken` [M, 2]; whole or not at all.

    is_kept: in a cache, to be read by `read_index`.
    """
    with (sealed_path if is_kept else atomic_path)(path) as part, part.open("wb") as stream:
        np.savez(
            stream,
            features=index.features.numpy(),
            keys=np.array(index.keys, dtype=np.str_),
            broken=np.array([(one.key, one.reason) for one in index.broken], dtype=np.str_).reshape(-1, 2),
        )


def read_index(path: str | os.PathLike[str]) -> ImageIndex | None:
    """What `write_index` kept, or None when there is no such file or it is damaged."""
    if not is_sealed(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features = torch.from_numpy(arrays["features"])
            keys = tuple(str(key) for key in arrays["keys"])
            broken = tuple(BrokenImage(str(key), str(reason)) for key, reason in arrays["broken"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if features.ndim != 2 or len(features) != len(keys):
        return None
    return ImageIndex(features=features, keys=keys, broken=broken)
