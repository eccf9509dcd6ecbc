"""Image-text pairs in plain folders: one folder a class, or images beside same-named .txt captions."""

import os
from pathlib import Path

from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import IMAGE_EXTENSIONS, Finding, caption_lines
from eyesmith.data.table_source import TABLE_EXTENSIONS
from eyesmith.errors import DataError


def open_image_folder(folder: Path, *, names_from: Path | None = None, require_text: bool = True) -> FileSource:
    """Open a folder of images.

    When an image has a .txt of the same name beside it, the folder holds captions (one a line), and images without one
    are listed in `problems`. Otherwise every sub-folder that holds images, at any depth, is a class, and its name with
    blanks for underscores is the text; a classnames.txt in the folder or in `names_from`, one line per class folder
    in sorted order, gives other names (for folders such as n01440764). Hidden files and folders are passed over. Raises
    DataError when there are no images, when images have no text, or when classnames.txt does not match the folders.
    """
    images, texts, tables, lost = _walk(folder)
    if not images:
        raise DataError(f"{folder}: {_what_is_missing(folder, tables)}")
    if any(os.path.splitext(name)[0] in texts for name in images):
        return _open_captioned(folder, images, texts, lost, require_text=require_text)
    if all("/" in name for name in images):
        return _open_classes(folder, images, names_from, lost)
    if require_text:
        hint = f"; to use its table, give {folder / tables[0]}" if tables else ""
        raise DataError(
            f"{folder}: {len(images):,} images without text; expected a .txt of the same name beside each, "
            f"or one folder for each class{hint}"
        )
    records = [Record(name, folder / name, size, (), name) for name, size in sorted(images.items())]
    return FileSource(records, name=folder.name, problems=lost, require_text=False)


def _open_captioned(
    folder: Path, images: dict[str, int], texts: set[str], lost: list[Finding], *, require_text: bool
) -> FileSource:
    problems = list(lost)
    records: list[Record] = []
    taken: dict[str, str] = {}
    for name, size in sorted(images.items()):
        stem = os.path.splitext(name)[0]
        if stem in taken:
            detail = f"shares its caption file with {taken[stem]}"
            problems.append(Finding("duplicate_key", "warning", name, name, detail))
        taken.setdefault(stem, name)
        captions: tuple[str, ...] = ()
        if stem in texts:
            content = (folder / f"{stem}.txt").read_bytes()
            try:
                captions = caption_lines(content.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                detail = f"byte {error.start} of its .txt is not UTF-8; read with replacement characters"
                problems.append(Finding("not_utf8", "error", name, f"{stem}.txt", detail))
                captions = caption_lines(content.decode("utf-8", "replace"))
        elif require_text:
            problems.append(Finding("missing_member", "error", name, name, f"no {stem}.txt"))
            continue
        records.append(Record(name, folder / name, size, captions, name))
    for stem in sorted(texts - set(taken)):
        problems.append(Finding("missing_member", "error", stem, f"{stem}.txt", "a caption without an image"))
    return FileSource(records, name=folder.name, problems=problems, require_text=require_text)


def _open_classes(folder: Path, images: dict[str, int], names_from: Path | None, lost: list[Finding]) -> FileSource:
    classes = sorted({name.split("/", 1)[0] for name in images})
    names = [label.replace("_", " ") for label in classes]
    for home in dict.fromkeys((folder, names_from or folder)):
        file = home / "classnames.txt"
        if file.is_file():
            names = [line.strip() for line in file.read_text("utf-8-sig").rstrip("\n").split("\n")]
            if len(names) != len(classes):
                raise DataError(f"{file}: {len(names)} names for {len(classes)} class folders, expected one for each")
            break
    name_of = dict(zip(classes, names, strict=True))
    records = []
    for name, size in sorted(images.items()):
        label = name.split("/", 1)[0]
        records.append(Record(name, folder / name, size, (name_of[label],), name, label, {"label": name_of[label]}))
    return FileSource(records, name=folder.name, classes=classes, class_texts=names, problems=lost)


def _walk(folder: Path) -> tuple[dict[str, int], set[str], list[str], list[Finding]]:
    # images with their sizes in bytes, .txt files without their extension, tables; all relative, with forward slashes;
    # and images that cannot be reached. Linked folders are entered, each real folder once
    images: dict[str, int] = {}
    texts: set[str] = set()
    tables: list[str] = []
    lost: list[Finding] = []
    entered = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be read ({error.strerror}); its images would be missing")

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = {name: os.path.realpath(os.path.join(place, name)) for name in folders if name[0] != "."}
        twice = {name: real for name, real in inside.items() if real in entered}
        for name, real in sorted(twice.items()):
            where = (Path(place).relative_to(folder) / name).as_posix()
            detail = f"a link to {real}, which is in this data set already; left out"
            lost.append(Finding("duplicate_folder", "warning", "", f"{where}/", detail))
        folders[:] = sorted(set(inside) - set(twice))
        entered.update(inside.values())
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
                    lost.append(Finding("missing_image", "error", key, key, detail))
                else:
                    images[key] = size if file.is_file() else 0  # a device or a pipe is named where it is read
            elif extension == ".txt" and (Path(place) / name).is_file():
                texts.add((relative / stem).as_posix())
            elif extension in TABLE_EXTENSIONS:
                tables.append((relative / name).as_posix())
    return images, texts, sorted(tables), lost


def _what_is_missing(folder: Path, tables: list[str]) -> str:
    if not any(folder.iterdir()):
        return "the folder is empty"
    hint = f"; to use its table, give {folder / tables[0]}" if tables else ""
    return f"no images ({', '.join(IMAGE_EXTENSIONS)}) and no .tar in it{hint}"
