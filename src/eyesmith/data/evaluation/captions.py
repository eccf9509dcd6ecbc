"""Caption tests on disk: pairs of images with a caption each, and images with one right caption among wrong ones.

Pairs: pairs.jsonl (or Winoground's examples.jsonl), a line an item with image_0, image_1, caption_0, caption_1 and,
if wanted, a category. Negatives: negatives.jsonl, a line an image with image, caption, negatives (a list) and category;
or SugarCrepe's and ARO's own JSON files, one a category. Images lie beside the file or in images/, their extension may
be left out.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from eyesmith.data.evaluation.evaluation_set import Choice, EvaluationSet, Pair
from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.data.text import parse_json
from eyesmith.errors import DataError
from eyesmith.files import load_json

CaptionTest = Literal["pairs", "choice"]

_PAIR_FILES = ("pairs.jsonl", "examples.jsonl")
_NEGATIVE_FILE = "negatives.jsonl"
_IMAGE = ("image", "filename", "image_path")
_RIGHT = ("caption", "true_caption")
_WRONG = ("negatives", "negative_caption", "false_caption", "false_captions")
_CATEGORY = ("category", "tag", "relation_name")
_BOX = "bbox_x"


def caption_test_kind(path: str | os.PathLike[str]) -> CaptionTest | None:
    """Which caption test a folder (or one of its files) holds; None: none of them."""
    place = Path(path)
    if place.is_file():
        if place.name in _PAIR_FILES:
            return "pairs"
        return "choice" if place.name == _NEGATIVE_FILE or _is_choice(place) else None
    if any((place / name).is_file() for name in _PAIR_FILES):
        return "pairs"
    if (place / _NEGATIVE_FILE).is_file() or any(map(_is_choice, sorted(place.glob("*.json")))):
        return "choice"
    return None


def open_caption_test(path: str | os.PathLike[str]) -> EvaluationSet:
    """The caption test that `path` holds: its `pairs` or `choices`, with each distinct image once in the source.

    Raises DataError for a missing field, image or file, with the line, and when the path holds no such test.
    """
    place = Path(path)
    kind = caption_test_kind(place)
    images: dict[Path, int] = {}
    if kind == "pairs":
        file = place if place.is_file() else next(place / n for n in _PAIR_FILES if (place / n).is_file())
        pairs, choices = tuple(_pairs(file, images)), ()
    elif kind == "choice":
        pairs, choices = (), tuple(_choices(place, images))
    else:
        raise DataError(
            f"{path}: no caption test; expected pairs.jsonl or negatives.jsonl (see docs/compare-models.md)"
        )
    if not pairs and not choices:
        raise DataError(f"{place}: holds no items")
    records = [Record(str(image), image, image.stat().st_size, (), str(image)) for image in images]
    source = FileSource(records, name=place.name, require_text=False)
    return EvaluationSet(name=place.name, path=place, layout=kind, source=source, pairs=pairs, choices=choices)


def _pairs(file: Path, images: dict[Path, int]) -> Iterator[Pair]:
    find = _Images(file.parent, images)
    for where, entry in _entries(file):
        found = (find(_text(entry, ("image_0",), where), where), find(_text(entry, ("image_1",), where), where))
        captions = (_text(entry, ("caption_0",), where), _text(entry, ("caption_1",), where))
        yield Pair(found, captions, _category(entry, ""))


def _choices(place: Path, images: dict[Path, int]) -> Iterator[Choice]:
    files = [place] if place.is_file() else [file for file in (place / _NEGATIVE_FILE,) if file.is_file()]
    for file in files or [file for file in sorted(place.glob("*.json")) if _is_choice(file)]:
        find = _Images(file.parent, images)
        for where, entry in _entries(file):
            if _BOX in entry:
                raise DataError(f"{where}: describes a part of its image ({_BOX} ...); cut the parts out first")
            wrong = next((entry[name] for name in _WRONG if name in entry), None)
            negatives = [wrong] if isinstance(wrong, str) else wrong
            if not isinstance(negatives, list) or not negatives or not all(isinstance(n, str) for n in negatives):
                raise DataError(f"{where}: expected wrong captions under one of {', '.join(_WRONG)}, got {wrong!r}")
            image = find(_text(entry, _IMAGE, where), where)
            default = file.stem if file.name != _NEGATIVE_FILE else ""
            yield Choice(image, _text(entry, _RIGHT, where), tuple(negatives), _category(entry, default))


class _Images:
    """Finds images by the names in the entries, and numbers them in the order they come."""

    def __init__(self, folder: Path, known: dict[Path, int]) -> None:
        self._folders, self._known = (folder, folder / "images"), known

    def __call__(self, name: str, where: str) -> int:
        for folder in self._folders:
            for file in (folder / name, *(folder / f"{name}.{extension}" for extension in IMAGE_EXTENSIONS)):
                if file.is_file():
                    return self._known.setdefault(file, len(self._known))
        raise DataError(f"{where}: there is no image {name!r} in {self._folders[0]} or {self._folders[1]}")


def _entries(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = file.read_text("utf-8-sig")
        if file.suffix == ".jsonl":
            lines = enumerate(content.split("\n"), 1)  # a line separator of Unicode belongs to its text
            found = [(f"{file}: line {i}", parse_json(s)[0]) for i, s in lines if s.strip()]
        else:
            whole, _ = parse_json(content)
            pairs = whole.items() if isinstance(whole, dict) else enumerate(whole)
            found = [(f"{file}: entry {name}", entry) for name, entry in pairs]
    except (OSError, ValueError, TypeError, RecursionError) as error:
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


def _is_choice(file: Path) -> bool:
    if file.suffix != ".json" or not file.is_file():
        return False
    try:
        whole = load_json(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    entries = list(whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ())
    return bool(entries) and isinstance(entries[0], dict) and any(name in entries[0] for name in _WRONG)
