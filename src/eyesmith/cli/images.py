"""What classify, embed and search share: a model, a user's images with a progress bar, and the ones that are broken."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from eyesmith.cli.output import messages, say
from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source, split_names
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.classified import class_logits
from eyesmith.eval.features.index import ImageIndex, encode_images, open_images
from eyesmith.models.classifier import Classifier
from eyesmith.models.clip import Clip

Model = Annotated[
    Positional[str],
    tyro.conf.arg(
        metavar="MODEL", help="A run folder, a weight file, hf:owner/name, open_clip:NAME/TAG, or timm:NAME.TAG."
    ),
]
Images = Annotated[
    Positional[tuple[str, ...]],
    tyro.conf.arg(metavar="IMAGE...", help="Files, folders or patterns such as 'photos/*.jpg'."),
]
ModelName = Annotated[
    str | None, tyro.conf.arg(metavar="NAME", help="The model a weight file is of, where the file does not tell.")
]
BatchSize = Annotated[int, tyro.conf.arg(metavar="N", help="Images that go through the model at once.")]

Device = Annotated[
    str | None,
    tyro.conf.arg(metavar="NAME", help="Where the model computes: cpu, cuda, cuda:1; the GPU if there is one."),
]

_SHOWN = 5


def load_clip_or_classifier(source: str, name: str | None, device: torch.device) -> "Clip | Classifier":
    """The model at `source`, with texts or with classes of its own, on a device."""
    from eyesmith.hub.load import load, load_clip

    model = load(source, name=name, device=device)
    return model if isinstance(model, Classifier | Clip) else load_clip(source, name=name)  # which says what is wrong


def load_model(source: str, name: str | None, device: torch.device) -> Clip:
    """The model at `source`, ready for use on a device."""
    from eyesmith.hub.load import load_clip

    return load_clip(source, name=name, device=device)


def load_for_features(source: str, name: str | None, device: torch.device) -> Clip:
    """The model at `source` as far as features of images ask: an image encoder alone will do, a classifier's too."""
    from eyesmith.eval.heads.data import EncoderFeatures
    from eyesmith.hub.load import load

    model = load(source, name=name)
    if isinstance(model, Clip):
        return model.to(device)
    encoder = model.image if isinstance(model, Classifier) else model
    return cast(Clip, EncoderFeatures(encoder).to(device))


def open_images_or_data(places: Sequence[str], split: str | None) -> Source:
    """The pictures of files, folders and patterns; one place alone may be a data set (tar shards, a made one, a table).

    A folder without tars is taken as pictures, whatever else lies in it. split: of a data set that has several.
    """
    place = places[0] if len(places) == 1 else ""
    path = Path(place)
    is_data = bool(place) and path.is_dir() and (bool(split_names(path)) or any(path.glob("*.tar")))
    is_table_or_shard = ".tar" in place or path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet")
    if split is not None and not place:
        raise ConfigError(f"split: expected one data set that has splits, got {len(places)} places")
    if split is not None or is_data or is_table_or_shard:
        return open_source(place, split=split, require_text=False)
    return open_images(places)


def encode(clip: Clip, source: Source, *, batch_size: int, what: str = "images") -> ImageIndex:
    """Features of `source` with progress on stderr; broken images are named there and left out."""
    from eyesmith.train.callbacks.progress import progress

    with progress(messages(), what, len(source), unit="image") as advance:
        watched = cast(Source, _Watched(source, advance))
        index = encode_images(clip, watched, batch_size=batch_size)
    report_broken(index)
    return index


def own_classes(classifier: Classifier, source: Source, *, batch_size: int) -> tuple[ImageIndex, Tensor]:
    """Logits of `source` as its index, and probabilities [N, K] of the classifier's own classes; else as `encode`."""
    from eyesmith.train.callbacks.progress import progress

    with progress(messages(), "images", len(source), unit="image") as advance:
        watched = cast(Source, _Watched(source, advance))
        found = class_logits(classifier, watched, batch_size=batch_size, max_broken_frac=1.0)
    keys = tuple(source.keys[index] for index in found.indices)
    index = ImageIndex(features=found.rows, keys=keys, broken=found.broken)
    report_broken(index)
    return index, found.rows.softmax(1)


def report_broken(index: ImageIndex) -> None:
    """Say on stderr which images were left out."""
    for image in index.broken[:_SHOWN]:
        say(f"skipped: {_reason(image.key, image.reason)}")
    if len(index.broken) > _SHOWN:
        say(f"skipped: {len(index.broken) - _SHOWN} more")


def broken_as_json(index: ImageIndex) -> list[dict[str, str]]:
    """The images that were left out, for --json."""
    return [{"image": image.key, "error": image.reason} for image in index.broken]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped. Raises DataError for another kind of file, or no line."""
    try:
        content = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected a UTF-8 text file with one name a line, {error.reason}") from error
    if not (lines := [line.strip() for line in content.splitlines() if line.strip()]):
        raise DataError(f"{path}: expected one name a line, found none")
    return lines


class _Watched:
    """A source that tells how many of its images were read."""

    def __init__(self, source: Source, advance: Callable[[int], None]) -> None:
        self._source, self._advance, self._done = source, advance, 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def image_bytes(self, index: int) -> bytes:
        with self._lock:
            self._done += 1
            self._advance(self._done)
        return self._source.image_bytes(index)


def _reason(key: str, reason: str) -> str:
    return reason if key in reason else f"{key}: {reason}"
