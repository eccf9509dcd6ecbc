"""Opening a set of boxes or masks by its path: which format it has, and where its pictures are."""

import os
from pathlib import Path

from eyesmith.data.annotations.coco import read_coco
from eyesmith.data.annotations.pictures import FolderPictures, PictureFiles, SourcePictures
from eyesmith.data.annotations.types import Annotations
from eyesmith.data.sources import open_source, split_names
from eyesmith.errors import ConfigError, DataError


def open_annotations(
    path: str | os.PathLike[str], split: str | None = None, *, images: str | os.PathLike[str] | None = None
) -> Annotations:
    """Open pictures with boxes or masks at a local path.

    path: a JSON of COCO or LVIS, or the folder of a made data set with annotations/SPLIT.json. split: which one, where
    there are several. images: the folder of the pictures; by default looked for beside the annotations.
    Raises DataError when nothing readable is there, naming what is.
    """
    place = Path(path)
    files = None if images is None else FolderPictures((_folder(images),))
    if place.is_file():
        return read_coco(place, images=files)
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder")
    return _open_made(place, split, files)


def _open_made(folder: Path, split: str | None, images: PictureFiles | None) -> Annotations:
    found = {file.stem: file for file in sorted((folder / "annotations").glob("*.json"))}
    if not found:
        raise DataError(f"{folder}: no annotations; expected annotations/SPLIT.json in it, or give the file itself")
    if split is None and len(found) > 1:
        raise ConfigError(f"{folder}: which split? It has {', '.join(found)}; say split={next(iter(found))}")
    chosen = split if split is not None else next(iter(found))
    if chosen not in found:
        raise ConfigError(f"{folder}: no split {chosen!r}; it has {', '.join(found)}")
    folders = tuple(one for one in (folder / "images" / chosen, folder / chosen) if one.is_dir())
    is_made = (folder / "dataset.json").exists() and not (folder / "images" / chosen).is_dir()
    if images is None and is_made and chosen in split_names(folder):
        images = SourcePictures(open_source(folder, split=chosen, require_text=False))
    return read_coco(found[chosen], images=images or FolderPictures(folders), name=f"{folder.name} {chosen}")


def _folder(value: str | os.PathLike[str]) -> Path:
    folder = Path(value)
    if not folder.is_dir():
        raise DataError(f"images: {folder} is no folder")
    return folder
