"""Caption tests on disk: pairs of images with a caption each, and images with one right caption among wrong ones.

Pairs: pairs.jsonl (or Winoground's examples.jsonl), a line an item with image_0, image_1, caption_0, caption_1 and,
if wanted, a category. Negatives: negatives.jsonl, a line an image with image, caption, negatives (a list) and category;
or SugarCrepe's and ARO's own JSON files, one a category. Images lie beside the file or in images/, their extension may
be left out.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.errors import DataError

Kind = Literal["pairs", "negatives"]
_T = TypeVar("_T")

_PAIR_FILES = ("pairs.jsonl", "examples.jsonl")
_NEGATIVE_FILE = "negatives.jsonl"
_IMAGE = ("image", "filename", "image_path")
_RIGHT = ("caption", "true_caption")
_WRONG = ("negatives", "negative_caption", "false_caption", "false_captions")
_CATEGORY = ("category", "tag", "relation_name")
_BOX = "bbox_x"


@dataclass(frozen=True, slots=True)
class PairItem:
    """images, captions: caption i describes image i. category: "" where there is none."""

    images: tuple[Path, Path]
    captions: tuple[str, str]
    category: str


@dataclass(frozen=True, slots=True)
class NegativeItem:
    """caption describes the image, each of `negatives` does not."""

    image: Path
    caption: str
    negatives: tuple[str, ...]
    category: str


def caption_test_kind(path: str | os.PathLike[str]) -> Kind | None:
    """Which caption test a folder (or one of its files) holds; None: none of them."""
    place = Path(path)
    if place.is_file():
        if place.name in _PAIR_FILES:
            return "pairs"
        return "negatives" if place.name == _NEGATIVE_FILE or _is_negatives(place) else None
    if any((place / name).is_file() for name in _PAIR_FILES):
        return "pairs"
    if (place / _NEGATIVE_FILE).is_file() or any(map(_is_negatives, sorted(place.glob("*.json")))):
        return "negatives"
    return None


def read_pairs(path: str | os.PathLike[str]) -> list[PairItem]:
    """The items of a pairs test. Raises DataError for a missing field, image or file, with the line."""
    place = Path(path)
    file = place if place.is_file() else next((place / n for n in _PAIR_FILES if (place / n).is_file()), None)
    if file is None:
        raise DataError(f"{place}: expected {' or '.join(_PAIR_FILES)} with image_0, image_1, caption_0, caption_1")
    find, items = _Images(file.parent), []
    for where, entry in _entries(file):
        images = (find(_text(entry, ("image_0",), where), where), find(_text(entry, ("image_1",), where), where))
        captions = (_text(entry, ("caption_0",), where), _text(entry, ("caption_1",), where))
        items.append(PairItem(images, captions, _category(entry, "")))
    return _not_empty(items, file)


def read_negatives(path: str | os.PathLike[str]) -> list[NegativeItem]:
    """The items of a test with wrong captions, of all files of a folder. Raises DataError as `read_pairs`."""
    place = Path(path)
    files = [place] if place.is_file() else [f for f in (place / _NEGATIVE_FILE,) if f.is_file()]
    files = files or [file for file in sorted(place.glob("*.json")) if _is_negatives(file)]
    if not files:
        raise DataError(f"{place}: expected {_NEGATIVE_FILE}, or JSON files with image, caption and negative captions")
    items = []
    for file in files:
        find = _Images(file.parent)
        for where, entry in _entries(file):
            if _BOX in entry:
                raise DataError(f"{where}: describes a part of its image ({_BOX} ...); cut the parts out first")
            wrong = next((entry[name] for name in _WRONG if name in entry), None)
            negatives = [wrong] if isinstance(wrong, str) else wrong
            if not isinstance(negatives, list) or not negatives or not all(isinstance(n, str) for n in negatives):
                raise DataError(f"{where}: expected wrong captions under one of {', '.join(_WRONG)}, got {wrong!r}")
            image = find(_text(entry, _IMAGE, where), where)
            default = file.stem if file.name != _NEGATIVE_FILE else ""
            items.append(NegativeItem(image, _text(entry, _RIGHT, where), tuple(negatives), _category(entry, default)))
    return _not_empty(items, place)


def image_source(images: Iterable[Path], *, name: str) -> tuple[FileSource, dict[Path, int]]:
    """Each distinct image once, as a source, and its place in it."""
    place: dict[Path, int] = {}
    for image in images:
        place.setdefault(image, len(place))
    records = [Record(str(path), path, path.stat().st_size, (), str(path)) for path in place]
    return FileSource(records, name=name, require_text=False), place


class _Images:
    """Finds images by the names in the entries."""

    def __init__(self, folder: Path) -> None:
        self._folders = (folder, folder / "images")

    def __call__(self, name: str, where: str) -> Path:
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
            for extension in IMAGE_EXTENSIONS:
                if (file := folder / f"{name}.{extension}").is_file():
                    return file
        raise DataError(f"{where}: there is no image {name!r} in {self._folders[0]} or {self._folders[1]}")


def _entries(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = file.read_text("utf-8-sig")
        if file.suffix == ".jsonl":
            found = [(f"{file}: line {i}", json.loads(s)) for i, s in enumerate(content.splitlines(), 1) if s.strip()]
        else:
            whole = json.loads(content)
            pairs = whole.items() if isinstance(whole, dict) else enumerate(whole)
            found = [(f"{file}: entry {name}", entry) for name, entry in pairs]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error})") from None
    for where, entry in found:
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected an object, got {type(entry).__name__}")
        yield where, entry


def _text(entry: dict[str, Any], names: Sequence[str], where: str) -> str:
    value = next((entry[name] for name in names if name in entry), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: expected text under {' or '.join(names)}, got {value!r}")
    return value


def _category(entry: dict[str, Any], default: str) -> str:
    value = next((entry[name] for name in _CATEGORY if name in entry), default)
    return value if isinstance(value, str) else default


def _is_negatives(file: Path) -> bool:
    if file.suffix != ".json" or not file.is_file():
        return False
    try:
        whole = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return False
    entries = list(whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ())
    return bool(entries) and isinstance(entries[0], dict) and any(name in entries[0] for name in _WRONG)


def _not_empty(items: list[_T], place: Path) -> list[_T]:
    if not items:
        raise DataError(f"{place}: holds no items")
    return items
