"""Opening a data set by its path: which of the layouts it has, which split is meant, and what is missing."""

import difflib
import glob
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from eyesmith.data.class_folders import open_image_folder
from eyesmith.data.own_source import OwnSource, Samples
from eyesmith.data.sample import Finding, Sample, Source
from eyesmith.data.shards import DATASET_FILE, UNFINISHED_FILE
from eyesmith.data.table_rows import TABLE_EXTENSIONS, read_columns
from eyesmith.data.table_source import open_table
from eyesmith.data.tar_source import TarSource
from eyesmith.data.text import read_lines
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import load_json

__all__ = ["Finding", "Sample", "Source", "open_source", "read_description", "read_templates", "split_names"]

_MAX_PATTERN_FILES = 5_000_000
_LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # Hugging Face's folders of images with texts
_LISTED_IMAGE = "file_name"
_LISTED_FROM = 64  # files of one folder: from here on one listing is cheaper than asking for each


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a caller of `open_source` wants of a source beside its path."""

    split: str | None = None
    image_column: str = "image"
    text_column: str | Sequence[str] = "caption"
    label_column: str | None = None
    require_text: bool = True


Opener = Callable[[Path, Asked], "Source | Samples"]


def open_source(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    image_column: str = "image",
    text_column: str | Sequence[str] = "caption",
    label_column: str | None = None,
    require_text: bool = True,
) -> Source:
    """Open image-text pairs at a local path.

    path: a made data set or a mirror of one from the hub (split folders of tars), a folder of tars, one tar, a pattern
    such as "pairs-{0000..0099}.tar" or "pairs-*.tar", a CSV/TSV/JSONL/Parquet file, a folder with such a table called
    metadata and a column file_name (and caption or text), a folder of class folders, a folder of images with
    same-named .txt files, or what an opener of OPENERS knows by its ending. split: needed when there are several. The
    columns are for tables only; `text_column` may name several. With `require_text` false, images without captions are
    kept (`texts` is then ()).

    Samples that cannot be used are left out and listed in `problems`. Raises DataError when the path, the split or a
    column does not exist (naming those that do) or when nothing usable is found.
    """
    asked = Asked(
        split=split,
        image_column=image_column,
        text_column=text_column,
        label_column=label_column,
        require_text=require_text,
    )
    text = os.fspath(path)
    if "://" in text:
        raise DataError(f"{text}: expected a local path; fetch the data first and give the folder")
    if _is_pattern(text) and not Path(text).exists():
        _refuse_split(text, split)
        files = expand_pattern(text)
        return _open_tars(files, files[0].parent, name=Path(text).name, is_whole=False, require_text=require_text)
    place = Path(path)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder{_closest_sibling(place)}")
    opener = next((OPENERS[one] for one in OPENERS if place.name.lower().endswith(one)), None)
    if place.is_dir() and opener in (None, _open_one_table, _open_one_tar):
        opener = _open_folder
    if opener is None:
        raise DataError(f"{place}: expected a .tar or a table ({', '.join(TABLE_EXTENSIONS)}), or a folder")
    found = opener(place, asked)
    if hasattr(found, "image_bytes"):  # not isinstance: it would read the labels
        return cast(Source, found)
    return OwnSource(cast(Samples, found), name=place.name, require_text=require_text)


def register_opener(ending: str, opener: Opener) -> None:
    """Let `open_source`, and so training and measuring, open paths with this ending, such as ".lmdb".

    opener: gets the path (a file or a folder) and what is asked of it; gives a `Source`, or `Samples` of one's own.
    Raises ConfigError for an ending that is taken or does not begin with a dot.
    """
    if not ending.startswith(".") or ending != ending.lower():
        raise ConfigError(f"ending: expected one in lower case that begins with a dot, such as '.lmdb', got {ending!r}")
    if ending in OPENERS:
        raise ConfigError(f"ending: {ending} is opened already")
    OPENERS[ending] = opener


def split_names(path: str | os.PathLike[str]) -> list[str]:
    """Splits of a data set folder: those of dataset.json, else sub-folders holding tars; [] when it has none."""
    folder = Path(path)
    if not folder.is_dir():
        return []
    described = read_description(folder).get("splits")
    if isinstance(described, dict):
        return [str(name) for name in described]
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _tars(entry))


def read_description(folder: Path) -> dict[str, Any]:
    """Content of dataset.json, {} when there is none. Raises DataError when it cannot be read."""
    file = folder / DATASET_FILE
    if not file.is_file():
        return {}
    try:
        value = load_json(file.read_text("utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}); mend or delete it") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}: expected an object, got {type(value).__name__}")
    return value


def read_templates(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Prompt templates (zeroshot_classification_templates.txt) of a data set folder, {c} for the class; () if none."""
    file = Path(path) / "zeroshot_classification_templates.txt"
    return tuple(line for line in read_lines(file) if line) if file.is_file() else ()


def expand_pattern(pattern: str) -> list[Path]:
    """Files of a shard pattern: {000..012} counts with its zeros, {a,b} lists, * and ? match what is on disk.

    Order: as the braces say; matches of * sorted. Raises DataError naming the first file that does not exist.
    """
    files: list[Path] = []
    for name in expand_names(pattern):
        if glob.has_magic(name):
            matches = sorted(glob.glob(name), key=natural_key)
            if not matches:
                raise DataError(f"{name}: no file matches")
            files.extend(Path(match) for match in matches)
        else:
            files.append(Path(name))
    missing = _missing(files)
    if missing:
        raise DataError(f"{pattern}: {len(missing):,} of {len(files):,} files do not exist, the first is {missing[0]}")
    return files


def _open_one_table(file: Path, asked: Asked) -> Source:
    _refuse_split(str(file), asked.split)
    return open_table(
        file,
        image_column=asked.image_column,
        text_column=asked.text_column,
        label_column=asked.label_column,
        require_text=asked.require_text,
    )


def _open_one_tar(file: Path, asked: Asked) -> Source:
    _refuse_split(str(file), asked.split)
    return _open_tars([file], file.parent, name=file.stem, is_whole=False, require_text=asked.require_text)


def _open_folder(folder: Path, asked: Asked) -> Source:
    split, require_text = asked.split, asked.require_text
    for home in (folder, folder.absolute().parent):
        if (home / UNFINISHED_FILE).is_file() and not (home / DATASET_FILE).is_file():
            raise DataError(f"{home}: making this data set was stopped half-way; make it again")
    splits = split_names(folder)
    if splits and not _tars(folder):
        if split is None and len(splits) > 1:
            one = splits[0]
            raise DataError(
                f"{folder}: has several splits, name one of: {', '.join(splits)} "
                f"(--split {one}; data.split={one} of a run)"
            )
        chosen = split or splits[0]
        if chosen not in splits:
            raise DataError(f"{folder}: no split {chosen!r}; it has: {', '.join(splits)}{_close(chosen, splits)}")
        if not (folder / chosen).is_dir():
            raise DataError(f"{folder}: dataset.json names the split {chosen!r}, but its folder is missing")
        tars = _tars(folder / chosen)
        if not tars:
            raise DataError(f"{folder / chosen}: expected 0.tar, 1.tar, ..., found no tar file")
        return _open_tars(tars, folder, name=f"{folder.name}/{chosen}", require_text=require_text)
    tars = _tars(folder)
    if tars:
        _refuse_split(str(folder), split)
        return _open_tars(tars, folder, name=folder.name, require_text=require_text)
    if split is not None:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if split not in names:
            there = ", ".join(names[:20]) or "no folders"
            raise DataError(f"{folder}: no split {split!r}; it has: {there}{_close(split, names)}")
    place = folder / split if split is not None else folder
    listed = next((place / name for name in _LISTS if (place / name).is_file()), None)
    columns = read_columns(listed) if listed is not None else []
    if listed is None or _LISTED_IMAGE not in columns:
        return open_image_folder(place, names_from=folder, require_text=require_text)
    is_usual = asked.text_column == "caption" and "caption" not in columns
    text_column = "text" if is_usual and "text" in columns else asked.text_column  # as that layout calls it
    return _open_one_table(listed, replace(asked, split=None, image_column=_LISTED_IMAGE, text_column=text_column))


# by the ending of a name; more are added with `register_opener`
OPENERS: dict[str, Opener] = {
    **dict.fromkeys(TABLE_EXTENSIONS, _open_one_table),
    # compressed ones too: reading them says what to do
    **dict.fromkeys((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"), _open_one_tar),
}


def _open_tars(tars: list[Path], root: Path, *, name: str, require_text: bool, is_whole: bool = True) -> TarSource:
    counted = tars[0].parent / "nshards.txt"
    problems = _missing_shards(tars, counted) if is_whole and counted.is_file() else []
    classes = None
    # a split folder opened by itself finds the names beside it, as one opened through its data set does
    for home in dict.fromkeys((root, tars[0].parent, tars[0].parent.parent)):
        if (home / "classnames.txt").is_file():
            # an empty line in the middle is a class with an empty name (CLEVR in the hub's sets) and keeps its index
            classes = list(read_lines(home / "classnames.txt"))
            while classes and not classes[-1]:
                classes.pop()
            break
        described = read_description(home).get("classes")
        if isinstance(described, list):
            classes = [str(item) for item in described]
            break
    return TarSource(tars, name=name, classes=classes, problems=problems, require_text=require_text)


def _missing_shards(tars: list[Path], counted: Path) -> list[Finding]:
    content = counted.read_text("utf-8", "replace").strip()
    if not content.isascii() or not content.isdigit() or len(content) > 9:
        return [Finding("missing_shard", "error", "", counted.name, f"expected one whole number, got {content[:40]!r}")]
    if int(content) == len(tars):
        return []
    kind = "missing_shard" if int(content) > len(tars) else "extra_shard"
    return [Finding(kind, "error", "", counted.name, f"says {int(content)} shards, the folder holds {len(tars)}")]


def _tars(folder: Path) -> list[Path]:
    files = (file for file in folder.glob("*.tar") if file.name[0] != ".")
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts names with the numbers in them by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) or re.search(r"\{[^{}]*(\.\.|,)[^{}]*\}", text) is not None


def expand_names(pattern: str) -> list[str]:
    """The names that {000..012} and {a,b} stand for, in order; `pattern` itself when it has no braces.

    Raises DataError for more names than any data set has.
    """
    names = list(itertools.islice(_expand_braces(pattern), _MAX_PATTERN_FILES + 1)) if _is_bounded(pattern) else None
    if names is None or len(names) > _MAX_PATTERN_FILES:
        raise DataError(f"{pattern}: stands for more than {_MAX_PATTERN_FILES:,} files")
    return names


def _is_bounded(pattern: str) -> bool:
    """Whether the ranges of a pattern, counted and not written out, are no more than a data set may have."""
    counts = [int(last) - int(first) + 1 for first, last in re.findall(r"\{(\d+)\.\.(\d+)\}", pattern)]
    return math.prod(max(count, 1) for count in counts) <= _MAX_PATTERN_FILES


def _missing(files: Sequence[Path]) -> list[Path]:
    """Those that are no files. Many of one folder are looked up in one listing of it."""
    folders = {
        folder: {entry.name for entry in os.scandir(folder) if entry.is_file()}
        for folder, count in Counter(file.parent for file in files).items()
        if count >= _LISTED_FROM and folder.is_dir()
    }
    there = (file.name in folders[file.parent] if file.parent in folders else file.is_file() for file in files)
    return [file for file, is_there in zip(files, there, strict=True) if not is_there]


def _expand_braces(pattern: str) -> Iterator[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        yield pattern
        return
    first, dots, last = found[1].partition("..")
    if dots and first.isdigit() and last.isdigit():
        if int(last) < int(first):
            raise DataError(f"{pattern}: the range {found[0]} is empty")
        choices: Iterator[str] = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    else:
        choices = iter(found[1].split(","))
    for choice in choices:
        yield from _expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])


def _refuse_split(path: str, split: str | None) -> None:
    if split is not None:
        raise DataError(f"{path}: has no splits, but the split {split!r} was asked for; leave it out")


def _closest_sibling(place: Path) -> str:
    if not place.parent.is_dir():
        return ""
    return _close(place.name, [entry.name for entry in itertools.islice(place.parent.iterdir(), 1000)])


def _close(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" - did you mean {close[0]!r}?" if close else ""
