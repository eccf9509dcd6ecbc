"""One format of boxes and masks into another, with the pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eyesmith.data.annotations.coco import write_coco
from eyesmith.data.annotations.maps import check_png_names, write_png_masks
from eyesmith.data.annotations.panoptic import write_panoptic
from eyesmith.data.annotations.pictures import write_file
from eyesmith.data.annotations.types import Annotations
from eyesmith.data.annotations.yolo import check_yolo_names, write_yolo
from eyesmith.errors import ConfigError, DataError
from eyesmith.images.decode import is_jpeg

TARGETS = ("coco", "panoptic", "yolo", "png")
"""The formats that are written."""


def convert_annotations(
    annotations: Annotations,
    folder: Path,
    *,
    to: str,
    split: str = "train",
    pictures: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write a set into `folder` in another format; returns a line for each thing that this format cannot say.

    to: one of TARGETS. coco: annotations/SPLIT.json; panoptic: the same with PNGs in annotations/SPLIT/; yolo:
    labels/SPLIT and data.yaml; png: masks/SPLIT and classes.txt. Pictures go to images/SPLIT, their bytes as they are,
    and are called by the last part of their names, or not at all with `pictures` false.
    Raises ConfigError for an unknown format, DataError when two pictures would have one name, when other pictures lie
    in images/SPLIT or other classes are listed in `folder`, or for more classes than a PNG holds: nothing is written
    then.
    """
    if to not in TARGETS:
        raise ConfigError(f"to: expected one of {', '.join(TARGETS)}, got {to!r}")
    files = _names(annotations, split) if pictures else {}
    renamed = tuple(replace(one, file=files.get(one.file, one.file)) for one in annotations.pictures)
    there = replace(annotations, pictures=renamed)
    _refuse_unwritable(there, folder, to)
    if pictures:
        _refuse_others(annotations, files, folder, folder / "images" / split)
        for done, (old, new) in enumerate(files.items(), 1):
            write_file(folder / "images" / split / new, annotations.images.content(old))
            if on_progress is not None:
                on_progress(done, len(files))
    match to:
        case "coco":
            write_coco(folder / "annotations" / f"{split}.json", there, compressed=True)
            return []
        case "panoptic":
            write_panoptic(folder / "annotations" / f"{split}.json", there)
            return []
        case "yolo":
            return write_yolo(folder, there, split)
        case _:
            return write_png_masks(folder, there, split)


def _refuse_unwritable(annotations: Annotations, folder: Path, to: str) -> None:
    """Raise DataError for what the format's writer would refuse, before thousands of pictures are copied for it."""
    if to == "png":
        check_png_names(folder, annotations.names)
    if to == "yolo":
        check_yolo_names(folder, annotations.names)
    first: dict[str, str] = {}
    for picture in annotations.pictures if to != "coco" else ():
        if (other := first.setdefault(Path(picture.file).stem, picture.file)) != picture.file:
            raise DataError(f"{other} and {picture.file}: their files would have one name; give them different names")


def _refuse_others(annotations: Annotations, files: dict[str, str], folder: Path, home: Path) -> None:
    """Raise DataError where `home` holds pictures of another set, which would be mixed with these or lost.

    A set may be written into the folder it was read from, where there may be pictures that it does not list.
    """
    there = {one.name for one in home.iterdir()} if home.is_dir() else set[str]()
    path = annotations.path.resolve()
    is_its_own = folder.resolve() in (path, *path.parents)
    other = set[str]() if is_its_own else there - set(files.values())
    if not other:
        changed = (new for old, new in files.items() if new in there and not _is_same(annotations, old, home / new))
        other = {new for new in (next(changed, ""),) if new}
    if other:
        raise DataError(
            f"{home}: pictures of another set lie there, such as {min(other)}; choose another folder, or another name "
            "for the split; nothing was changed"
        )


def _is_same(annotations: Annotations, old: str, file: Path) -> bool:
    return file.read_bytes() == annotations.images.content(old)


def _names(annotations: Annotations, split: str) -> dict[str, str]:
    """What each picture is called in the new folder; samples of a tar get the ending of what they are."""
    names: dict[str, str] = {}
    used: dict[str, str] = {}
    for picture in annotations.pictures:
        name = Path(picture.file).name
        if not Path(name).suffix:
            name += ".jpg" if is_jpeg(annotations.images.content(picture.file)) else ".png"
        if name in used:
            raise DataError(f"{picture.file} and {used[name]}: both would be images/{split}/{name}")
        names[picture.file] = name
        used[name] = picture.file
    return names
