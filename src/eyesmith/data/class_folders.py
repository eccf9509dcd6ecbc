"""Image-text pairs in plain folders: one folder a class, or images beside same-named .txt captions."""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import IMAGE_EXTENSIONS, Finding, caption_lines
from eyesmith.data.table_rows import TABLE_EXTENSIONS, read_rows
from eyesmith.data.text import decoded, file_key, is_bytes, read_lines
from eyesmith.errors import DataError, MissingDependencyError

SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")
CLASS_FILE = "classnames.txt"
_SPLIT_LIKE = re.compile(r"(train|val|valid|validation|test)(ing)?([-_]?\d+)?|(dev|eval|holdout|fold|split)[-_]?\d*")
# what lies beside images and is none: descriptions, archives, what file managers leave
_NO_IMAGES = frozenset(
    "txt csv tsv json jsonl parquet yaml yml toml xml md rst html log npy npz pt pkl mat h5 safetensors db ini "  # noqa: SIM905
    "zip gz tar tgz xz py sh ipynb lnk url pdf cfg names cache".split()
)
_IMAGE_COLUMNS = {"image", "image_id", "image_path", "path", "file", "filepath", "file_name", "filename", "img"}
_MAX_TABLES, _MAX_ROWS = 20, 200  # looked into


def open_image_folder(folder: Path, *, names_from: Path | None = None, require_text: bool = True) -> FileSource:
    """Open a folder of images.

    When an image has a .txt of the same name beside it, the folder holds captions (one a line), and images without one
    are listed in `problems`. Otherwise every sub-folder that holds images, at any depth, is a class, and its name with
    blanks for underscores is the text; a classnames.txt in the folder or in `names_from`, one line per class folder
    in sorted order, gives other names (for folders such as n01440764). Hidden files and folders are passed over. Raises
    DataError when there are no images, when images have no text, when folders are no classes (splits, folders of a
    table), or when classnames.txt does not match them.
    """
    found = _walk(folder)
    images = found.images
    if not images:
        raise DataError(f"{folder}: {_what_is_missing(folder, found.tables)}")
    if any(os.path.splitext(name)[0] in found.texts for name in images):
        return _open_captioned(folder, found, require_text=require_text)
    if all("/" in name for name in images):
        classes = sorted({name.split("/", 1)[0] for name in images})
        _refuse_splits(folder, classes)
        _refuse_tables(folder, found)
        return _open_classes(folder, found, classes, names_from, require_text=require_text)
    if require_text:
        hint = f"; to use its table, give {folder / found.tables[0]}" if found.tables else ""
        raise DataError(
            f"{folder}: {len(images):,} images without text; expected a .txt of the same name beside each, "
            f"or one folder for each class{hint}"
        )
    records = [Record(file_key(name), folder / name, size, (), file_key(name)) for name, size in sorted(images.items())]
    return FileSource(records, name=folder.name, problems=found.lost, require_text=False)


@dataclass(slots=True)
class _Found:
    """What a folder holds, by names relative to it with forward slashes.

    images: with their sizes in bytes; texts: .txt files without their extension; tables; lost: what cannot be used.
    """

    images: dict[str, int] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    tables: list[str] = field(default_factory=list)
    lost: list[Finding] = field(default_factory=list)


def _refuse_tables(folder: Path, found: _Found) -> None:
    """Raise DataError where a table in the folder, or beside it, names its images: folder names are no text then."""
    images = {name: name.rpartition("/")[2] for name in found.images}
    stems = {os.path.splitext(name)[0] for name in images.values()}
    home = folder.absolute()
    beside = {f"{home.name}/{name}" for name in images}
    above = (file for file in sorted(home.parent.glob("*.*")) if file.suffix.lower() in TABLE_EXTENSIONS)
    for name in found.tables[:_MAX_TABLES]:
        if _names_images(folder / name, {*images, *images.values()}, stems, if_unreadable=True):
            _refuse(folder, folder / name)
    for file in itertools.islice(above, _MAX_TABLES):
        if _names_images(file, beside, set(), if_unreadable=False):
            _refuse(folder, file)


def _refuse(folder: Path, table: Path) -> NoReturn:
    raise DataError(
        f"{folder}: what its images show seems to be said by the table {table}; give that table (and the names of its "
        "columns), or move it away to take the names of folders as classes"
    )


def _names_images(table: Path, names: set[str], stems: set[str], *, if_unreadable: bool) -> bool:
    """Whether one of a table's first rows holds one of `names`, or in a column of images one of `stems`."""
    try:
        _, rows = read_rows(table, [])
        for _, row in itertools.islice(rows, _MAX_ROWS):
            for column, cell in row.items():
                value = cell.get("path") if isinstance(cell, dict) else cell
                text = str(value).strip().replace("\\", "/").removeprefix("./")
                if text in names or text.rpartition("/")[2] in names:
                    return True
                if column.strip().lower() in _IMAGE_COLUMNS and text in stems:
                    return True
    except (DataError, MissingDependencyError):
        return if_unreadable
    return False


def _open_captioned(folder: Path, found: _Found, *, require_text: bool) -> FileSource:
    images, texts, problems = found.images, found.texts, list(found.lost)
    records: list[Record] = []
    taken: dict[str, str] = {}
    for name, size in sorted(images.items()):
        key, stem = file_key(name), os.path.splitext(name)[0]
        if stem in taken:
            detail = f"shares its caption file with {file_key(taken[stem])}"
            problems.append(Finding("duplicate_key", "warning", key, key, detail))
        taken.setdefault(stem, name)
        captions: tuple[str, ...] = ()
        if stem in texts:
            text, fault = decoded((folder / f"{stem}.txt").read_bytes())
            captions = caption_lines(text)
            if fault:
                problems.append(Finding("not_utf8", "error", key, file_key(f"{stem}.txt"), f"its .txt: {fault}"))
        elif require_text:
            problems.append(Finding("missing_member", "error", key, key, f"no {file_key(stem)}.txt"))
            continue
        records.append(Record(key, folder / name, size, captions, key))
    for stem in map(file_key, sorted(texts - set(taken))):
        problems.append(Finding("missing_member", "error", stem, f"{stem}.txt", "a caption without an image"))
    return FileSource(records, name=folder.name, problems=problems, require_text=require_text)


def _open_classes(
    folder: Path, found: _Found, classes: list[str], names_from: Path | None, *, require_text: bool
) -> FileSource:
    if require_text and len(classes) == 1:
        raise DataError(
            f"{folder}: all images lie in the one folder {file_key(classes[0])}, whose name would be the caption of "
            f"each; give a table with captions, or {folder / file_key(classes[0])}"
        )
    wrong = next(filter(is_bytes, classes), None)
    if wrong is not None:
        raise DataError(f"{folder}: the name of the class folder {file_key(wrong)} is not UTF-8; rename it")
    names = [label.replace("_", " ") for label in classes]
    for home in dict.fromkeys((folder, names_from or folder)):
        file = home / CLASS_FILE
        if file.is_file():
            names = _names_of(file, classes)
            break
    name_of = dict(zip(classes, names, strict=True))
    records = []
    for name, size in sorted(found.images.items()):
        label, key = name.split("/", 1)[0], file_key(name)
        records.append(Record(key, folder / name, size, (name_of[label],), key, label, {"label": name_of[label]}))
    return FileSource(records, name=folder.name, classes=classes, class_texts=names, problems=found.lost)


def _refuse_splits(folder: Path, classes: Sequence[str]) -> None:
    """Raise DataError where the folders are called as splits are."""
    splits = [name for name in classes if _SPLIT_LIKE.fullmatch(name.lower())]
    if len(splits) > 1 or len(splits) == len(classes):
        raise DataError(
            f"{folder}: the folders {', '.join(splits)} are splits, which hold the images or class folders; give one "
            f"of them, such as {folder / splits[0]}"
        )


def _names_of(file: Path, classes: Sequence[str]) -> list[str]:
    """A name for each class folder: a line each, in sorted order, or by value where all folders are numbers."""
    lines = list(read_lines(file))
    while len(lines) > len(classes) and not lines[-1]:
        lines.pop()
    if len(lines) != len(classes):
        raise DataError(f"{file}: {len(lines)} names for {len(classes)} class folders, expected one for each")
    are_numbers = all(name.isascii() and name.isdigit() for name in classes)
    name_of = dict(zip(sorted(classes, key=int) if are_numbers else classes, lines, strict=True))
    return [name_of[name] for name in classes]


def _walk(folder: Path) -> _Found:
    # linked folders are entered, each real folder once
    found = _Found()
    unknown: dict[str, list[str]] = {}
    entered = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be read ({error.strerror}); its images would be missing")

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = sorted(name for name in folders if name[0] != ".")
        folders.clear()
        for name in inside:
            real = os.path.realpath(os.path.join(place, name))
            if real not in entered:
                entered.add(real)
                folders.append(name)
                continue
            where = file_key((Path(place).relative_to(folder) / name).as_posix())
            detail = f"a link to {file_key(real)}, which is in this data set already; left out"
            found.lost.append(Finding("duplicate_folder", "warning", "", f"{where}/", detail))
        relative = Path(place).relative_to(folder)
        for name in files:
            if name[0] == ".":
                continue
            stem, extension = os.path.splitext(name)
            extension = extension.lower()
            if extension.removeprefix(".") in IMAGE_EXTENSIONS:
                key, file = (relative / name).as_posix(), Path(place) / name
                try:
                    size = file.stat().st_size
                except OSError as error:
                    detail = f"cannot be reached ({error.strerror}); a link whose target is gone?"
                    found.lost.append(Finding("missing_image", "error", file_key(key), file_key(key), detail))
                else:
                    found.images[key] = size if file.is_file() else 0  # a device or a pipe is named where it is read
            elif extension == ".txt" and (Path(place) / name).is_file():
                found.texts.add((relative / stem).as_posix())
            elif extension in TABLE_EXTENSIONS:
                found.tables.append((relative / name).as_posix())
            elif extension and extension[1:] not in _NO_IMAGES:
                unknown.setdefault(extension, []).append(file_key((relative / name).as_posix()))
    for extension, names in sorted(unknown.items()):
        detail = f"{len(names):,} files {extension} are left out: no extension of images that are read"
        found.lost.append(Finding("unknown_extension", "warning", "", min(names), detail))
    found.tables.sort()
    return found


def _what_is_missing(folder: Path, tables: list[str]) -> str:
    if not any(folder.iterdir()):
        return "the folder is empty"
    if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        return (
            "is a model (the folder of a run), and data are expected here; give a folder of pictures, shards or a table"
        )
    hint = f"; to use its table, give {folder / tables[0]}" if tables else ""
    return f"no images ({', '.join(IMAGE_EXTENSIONS)}) and no .tar in it{hint}"
