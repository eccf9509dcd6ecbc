"""A user's own data as an evaluation set: a folder of class folders, or a table of images."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eyesmith.data.class_folders import open_image_folder
from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.names import CLASS_FILE, TEMPLATE_FILE
from eyesmith.data.evaluation.tars import refuse_errors
from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import IMAGE_EXTENSIONS, Finding, Source
from eyesmith.data.table_rows import read_columns
from eyesmith.data.table_source import open_table
from eyesmith.data.text import read_lines
from eyesmith.errors import DataError

IMAGE_COLUMNS = ("image", "image_path", "path", "file", "filepath", "file_name", "filename")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
CAPTION_COLUMNS = ("caption", "captions", "text", "title")


def open_class_folders(folder: Path, *, names_from: Path, is_strict: bool) -> EvaluationSet:
    """One folder a class; its name, blanks for underscores, is the class name. `names_from`: holds the text files.

    Raises DataError for one class, equal names, and (if strict) class folders without images or files that are gone.
    """
    source = open_image_folder(folder, names_from=names_from, require_text=False)
    if source.labels is None:
        if not any(source.texts(index) for index in range(min(len(source), 100))):
            raise DataError(
                f"{folder}: {len(source):,} images, but no class folders and no captions; expected one folder for each "
                "class (or a .txt with captions beside each image)"
            )
        return _captioned(source, folder)
    classes = source.classes or ()
    return _labelled(source, folder, names_from, classes, source.labels, _empty_folders(folder), is_strict=is_strict)


def open_own_table(file: Path, *, is_strict: bool) -> EvaluationSet:
    """A CSV, TSV, JSONL or Parquet table of images with a label column, or else with captions.

    The columns are known by their usual names: IMAGE_COLUMNS, LABEL_COLUMNS, CAPTION_COLUMNS. Raises DataError when
    there is none of them, and as `open_table` does.
    """
    columns = read_columns(file)
    image, label, caption = (
        next((name for name in names if name in columns), None)
        for names in (IMAGE_COLUMNS, LABEL_COLUMNS, CAPTION_COLUMNS)
    )
    if image is None or (label is None and caption is None):
        lacks = "image" if image is None else "label"
        known = IMAGE_COLUMNS if image is None else (*LABEL_COLUMNS, *CAPTION_COLUMNS)
        raise DataError(
            f"{file}: no {lacks} column; expected one of {', '.join(known)}; the table has {', '.join(columns)}"
        )
    if label is None:
        assert caption is not None  # one of the two is there, see above
        return _captioned(open_table(file, image_column=image, text_column=caption, require_text=False), file)
    source = open_table(file, image_column=image, text_column=(), label_column=label, require_text=False)
    classes, labels = source.classes or (), source.labels or []
    names = file.parent / CLASS_FILE
    if names.is_file() and any(map(_is_number, classes)):
        texts = read_lines(names)
        numbers = [_index(file, name, texts, names) for name in classes]
        classes, labels = texts, [numbers[label] for label in labels]
    return _labelled(source, file, file.parent, classes, labels, [], is_strict=is_strict)


def labelled_set(
    name: str, images: Sequence[Path], labels: Sequence[str], *, templates: Sequence[str] = ()
) -> EvaluationSet:
    """A classification set of single pictures: their files, the class name of each, sentences with {} for the name.

    Classes are the distinct labels, sorted. Raises DataError for one class, equal names, a label too few or many.
    """
    if len(images) != len(labels) or not images:
        raise DataError(f"{name}: expected a label for each image, got {len(images)} images and {len(labels)} labels")
    classes = tuple(sorted(set(labels)))
    records = [
        Record(str(image), image, image.stat().st_size, (), str(image), label=label)
        for image, label in zip(images, labels, strict=True)
    ]
    source = FileSource(records, name=name, classes=classes, require_text=False)
    place = {one: index for index, one in enumerate(classes)}
    found = _labelled(source, Path(name), Path(name), classes, [place[label] for label in labels], [], is_strict=True)
    return replace(found, name=name, templates=tuple(templates))


def _is_number(label: str) -> bool:
    # superscripts and the like are numeric, but nothing to count with
    return _DECIMAL.fullmatch(label) is not None or label.isnumeric() or label.lower() in ("nan", "inf", "-inf")


def _index(file: Path, label: str, texts: Sequence[str], names: Path) -> int:
    """The place among the names that a label of a table means. Raises DataError where it means none."""
    number = float(label) if _DECIMAL.fullmatch(label) else -1.0
    if not number.is_integer() or not 0 <= number < len(texts):
        raise DataError(
            f"{file}: label {label} is out of range or not whole, {names} has {len(texts)} names (from 0 on)"
        )
    return int(number)


def _labelled(
    source: FileSource,
    path: Path,
    names_from: Path,
    classes: tuple[str, ...],
    labels: list[int],
    problems: list[Finding],
    *,
    is_strict: bool,
) -> EvaluationSet:
    # looks for what makes a zero-shot number meaningless
    if len(classes) < 2:
        raise DataError(f"{path}: only one class, {str(*classes)!r}; classification needs two or more")
    twice = [name for name, count in Counter(name.casefold().strip() for name in classes).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: {len(twice)} class name(s) stand for several classes, such as {twice[0]!r}; no text can tell "
            f"them apart. Rename the folders or labels, or give other names in {names_from / CLASS_FILE}"
        )
    templates = names_from / TEMPLATE_FILE
    found = EvaluationSet(
        name=path.stem if path.is_file() else path.resolve().name,
        path=path,
        layout="classification",
        source=source,
        classes=classes,
        templates=tuple(line for line in read_lines(templates) if line) if templates.is_file() else (),
        labels=np.array(labels, dtype=np.int64),
        problems=(*source.problems, *problems),
    )
    if is_strict:
        refuse_errors(found)
    return found


def _captioned(source: Source, path: Path) -> EvaluationSet:
    texts = tuple(source.texts(index) for index in range(len(source)))
    bare = [index for index, captions in enumerate(texts) if not captions]
    problems = [*source.problems]
    problems += [
        Finding("empty_caption", "error", source.keys[index], source.where(index), "no caption") for index in bare
    ]
    fields: dict[str, Any] = {"source": source, "texts": texts, "problems": tuple(problems)}
    return EvaluationSet(name=path.stem, path=path, layout="retrieval", **fields)


def _empty_folders(folder: Path) -> list[Finding]:
    endings = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
    found = []
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or place.name[0] == ".":
            continue
        if not any(file.name.lower().endswith(endings) and file.name[0] != "." for file in place.rglob("*")):
            detail = "a class folder without images; add some or delete the folder"
            found.append(Finding("empty_class", "error", "", f"{place.name}/", detail))
    return found
