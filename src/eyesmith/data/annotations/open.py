"""Opening a set of boxes or masks by its path: which format it has, and where its pictures are."""

import mmap
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eyesmith.data.annotations.coco import read_coco
from eyesmith.data.annotations.layouts import (
    read_ade20k,
    read_cityscapes,
    read_context,
    read_mapillary,
    read_voc_masks,
)
from eyesmith.data.annotations.made import read_made
from eyesmith.data.annotations.maps import read_png_masks
from eyesmith.data.annotations.panoptic import read_panoptic
from eyesmith.data.annotations.pictures import FolderPictures, PictureFiles, SourcePictures
from eyesmith.data.annotations.types import Annotations
from eyesmith.data.annotations.voc import read_voc_boxes
from eyesmith.data.annotations.yolo import DATA_FILES, read_yolo
from eyesmith.data.sources import open_source, split_names
from eyesmith.errors import ConfigError, DataError

_FOLDERS: dict[str, tuple[Callable[[Path, str | None], Annotations], Callable[[Path], bool]]] = {
    # what reads a layout, and what it is known by; the first that fits is taken
    "cityscapes": (read_cityscapes, lambda folder: (folder / "gtFine").is_dir()),
    "ade20k": (read_ade20k, lambda folder: (folder / "objectInfo150.txt").is_file()),
    "mapillary": (read_mapillary, lambda folder: (folder / "config.json").is_file() and _has(folder, "*/labels")),
    "context": (read_context, lambda folder: (folder / "SegmentationClassContext").is_dir()),
    "voc": (read_voc_masks, lambda folder: (folder / "SegmentationClass").is_dir()),
    "voc-boxes": (read_voc_boxes, lambda folder: _has(folder, "Annotations/*.xml")),
    "yolo": (
        read_yolo,
        lambda folder: any((folder / name).is_file() for name in DATA_FILES) or _has(folder, "labels/**/*.txt"),
    ),
    "png": (read_png_masks, lambda folder: any(_has(folder, f"{name}/**/*.png") for name in ("masks", "labels"))),
    "png-annotations": (read_png_masks, lambda folder: _has(folder, "annotations/**/*.png") and not _jsons(folder)),
}
FORMS = ("coco", "lvis", "panoptic", "made", *(name for name in _FOLDERS if name != "png-annotations"))
"""The formats that are read."""


def open_annotations(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    form: str | None = None,
) -> Annotations:
    """Open pictures with boxes or masks at a local path.

    path: a JSON of COCO, LVIS or COCO's panoptic form, or a folder: a made data set, YOLO's data.yaml or labels/, VOC,
    images/ with masks/ and classes.txt, ADE20K, Cityscapes, Mapillary, Pascal Context. split: which one of several.
    images: the folder of the pictures; by default looked for beside the annotations. form: one of FORMS, where
    the path alone does not say it (VOC with masks and boxes: "voc" and "voc-boxes").
    Raises DataError when nothing readable is there, ConfigError for a split or form that does not exist.
    """
    place = Path(path)
    if form is not None and form not in FORMS:
        raise ConfigError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    files = None if images is None else FolderPictures((_folder(images),))
    if place.is_file() and place.name in DATA_FILES:
        place = place.parent
    if place.is_file():
        if split is not None:
            raise ConfigError(f"split: {place} is one file; leave split={split} away or give the folder")
        is_panoptic = form == "panoptic" or (form is None and _is_panoptic(place))
        return (read_panoptic if is_panoptic else read_coco)(place, images=files)
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder")
    if form in _FOLDERS:
        found = _FOLDERS[form][0](place, split)
        return found if files is None else replace(found, images=files)
    jsons = _jsons(place)
    if not jsons and form in (None, "made") and (place / "dataset.json").exists():
        return read_made(place, _chosen(place, split, split_names(place)))
    if jsons and (form is not None or not any(fits(place) for _, fits in _FOLDERS.values())):
        return _open_json(place, jsons, split, files, form)
    for read, fits in _FOLDERS.values():
        if form is None and fits(place):
            found = read(place, split)
            return found if files is None else replace(found, images=files)
    raise DataError(
        f"{place}: no boxes or masks in a form that is read; expected a COCO json (give the file), "
        f"annotations/SPLIT.json, the yaml of YOLO, labels/ or masks/ beside images/, or one of {', '.join(FORMS)}"
    )


def holds_annotations(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a set of boxes or masks and no set of pairs: a JSON, or a folder in a known layout.

    A made data set is one of pairs, whatever it keeps beside them.
    """
    place = Path(path)
    if place.is_file():
        return place.suffix == ".json" or place.name in DATA_FILES
    if not place.is_dir() or (place / "dataset.json").exists():
        return False
    return bool(_jsons(place)) or any(fits(place) for _, fits in _FOLDERS.values())


def _open_json(
    folder: Path, jsons: dict[str, Path], split: str | None, images: PictureFiles | None, form: str | None
) -> Annotations:
    chosen = _chosen(folder, split, list(jsons))
    file = jsons[chosen]
    inside = [folder / "images" / chosen, folder / chosen, folder / "images", folder]
    folders = tuple(one for one in inside if one.is_dir())
    is_made = (folder / "dataset.json").exists() and not (folder / "images" / chosen).is_dir()
    if images is None and is_made and chosen in split_names(folder):
        images = SourcePictures(open_source(folder, split=chosen, require_text=False))
    is_panoptic = form == "panoptic" or (form is None and _is_panoptic(file))
    read = read_panoptic if is_panoptic else read_coco
    return read(file, images=images or FolderPictures(folders), name=f"{folder.name} {chosen}")


def _jsons(folder: Path) -> dict[str, Path]:
    """A folder's JSON files by split: annotations/train.json, train/_annotations.coco.json, annotations.json."""
    found = {file.stem: file for file in sorted((folder / "annotations").glob("*.json"))}
    found |= {file.parent.name: file for file in sorted(folder.glob("*/_annotations.coco.json"))}
    if not found:
        found = {
            file.stem: file for name in ("annotations.json", "_annotations.coco.json") for file in folder.glob(name)
        }
    return found


def _chosen(folder: Path, split: str | None, known: list[str]) -> str:
    if split is None and len(known) > 1:
        raise ConfigError(
            f"{folder}: which split? It has {', '.join(known)}; say split={known[0]} (--split {known[0]})"
        )
    if split is not None and split not in known:
        raise ConfigError(f"{folder}: no split {split!r}; it has {', '.join(known) or 'none'}")
    if not known:
        raise DataError(f"{folder}: no splits")
    return split if split is not None else known[0]


def _is_panoptic(file: Path) -> bool:
    """Whether a JSON's entries have segments."""
    wanted = b'"segments_info"'
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(wanted) >= 0
    except ValueError:  # nothing can be mapped of an empty file
        return False
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from None


def _has(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


def _folder(value: str | os.PathLike[str]) -> Path:
    folder = Path(value)
    if not folder.is_dir():
        raise DataError(f"images: {folder} is no folder")
    return folder
