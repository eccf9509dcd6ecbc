"""Maps of classes as pictures, a value a pixel, and the plain layout of them: images, masks and a list of classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyesmith.data.annotations.masks import Segment, segment_boxes
from eyesmith.data.annotations.pictures import FolderPictures, write_file
from eyesmith.data.annotations.types import VOID, Annotations, Category, Objects, Picture
from eyesmith.data.text import read_lines
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import write_atomic
from eyesmith.images.collect import IMAGE_SUFFIXES
from eyesmith.images.decode import image_size, read_file
from eyesmith.images.formats import open_header

_VOID_VALUES = (255, 65535)  # of maps whose list of classes does not name them
_NUMBERED = re.compile(r"\s*(\d+)\s*[:,\t ]\s*(.+?)\s*")


@dataclass(frozen=True)
class MapFiles:
    """One map a picture. labels: from a value to the label; every other value is void.

    per_class: 0 for maps of classes; else a value is class * per_class + instance, or the class alone where it is
    smaller and `bare` (Cityscapes: a group that nobody cut into its things, a crowd). things: labels that are counted.
    """

    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    labels: Mapping[int, int]
    per_class: int = 0
    bare: bool = False
    things: frozenset[int] = frozenset()

    def values(self, index: int) -> NDArray[np.int32]:
        """The map as it is stored, [H, W]. Raises DataError when it is no map or of another size."""
        return read_map(self.files[index], self.sizes[index])

    def __call__(self, index: int) -> Objects:
        """One object a class that is there, or a segment."""
        values = self.values(index)
        found = [(value, self.label(value)) for value in np.unique(values).tolist()]
        known = [(value, label) for value, label in found if label is not None]
        boxes, areas = segment_boxes(values, [value for value, _ in known])
        labels = np.array([label for _, label in known], np.int64)
        is_bare = np.array([self.bare and value < self.per_class for value, _ in known], np.bool_)
        return Objects(
            xywh=boxes,
            labels=labels,
            crowd=is_bare & np.isin(labels, list(self.things)),
            area=areas.astype(np.float64),
            ids=np.array([value if self.per_class else label + 1 for value, label in known], np.int64),
            shapes=tuple(Segment(values, value) for value, _ in known),
            height=values.shape[0],
            width=values.shape[1],
        )

    def label(self, value: int) -> int | None:
        """The label of a value; None for void."""
        if self.per_class and not (self.bare and value < self.per_class):
            value //= self.per_class
        return self.labels.get(value)

    def void(self, index: int) -> NDArray[np.bool_]:
        """Pixels whose value belongs to no class, [H, W]."""
        values = self.values(index)
        return np.isin(values, [value for value in np.unique(values).tolist() if self.label(value) is None])


def read_map(file: Path, size: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """A map's values [H, W], palettes not applied. size: (height, width) it must have."""
    content = read_file(file)
    image_size(content, where=str(file))  # refuses what is no picture, or too large
    with open_header(content, str(file)) as image:
        if image.mode not in ("L", "P", "I;16", "I;16B", "I", "1"):
            raise DataError(f"{file}: a map has one value a pixel, this picture has mode {image.mode!r}")
        try:
            values = np.asarray(image).astype(np.int32)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{file}: damaged: {error}") from None
    if size is not None and values.shape != size:
        raise DataError(f"{file}: {values.shape[1]} x {values.shape[0]} pixels, its picture has {size[1]} x {size[0]}")
    return values


def read_png_masks(folder: Path, split: str | None = None) -> Annotations:
    """Open a folder of pictures in images/, maps of the same names in masks/ (or labels/, annotations/), classes.txt.

    Both may have a folder for each split. Line i of classes.txt names value i, unless lines begin with the value
    ("7 cat", "7: cat"). Other values, such as 255, are void.
    """
    inner = next((name for name in ("masks", "labels", "annotations") if (folder / name).is_dir()), None)
    if inner is None:
        raise DataError(f"{folder}: expected maps in masks/, labels/ or annotations/")
    pictures, maps = split_folder(folder / "images", split), split_folder(folder / inner, split)
    classes = next(
        (folder / one for one in ("classes.txt", "labels.txt", "classnames.txt") if (folder / one).exists()), None
    )
    if classes is None:
        raise DataError(f"{folder}: no classes.txt; it names the class of each value, a line each")
    return open_maps(folder, split, "png", named_values(classes), pictures, paired(pictures, maps))


def check_png_names(folder: Path, names: Sequence[str], *, void: int = 255) -> None:
    """Raise DataError for more classes than values below `void`, or when the folder's masks have other classes."""
    if len(names) > void:
        raise DataError(f"{len(names)} classes, a PNG of bytes has {void} beside void; write COCO json")
    file = folder / "classes.txt"
    if file.exists() and file.read_text("utf-8") != _list_of(names):
        raise DataError(f"{file}: has other class names; write into another folder")


def _list_of(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def write_png_masks(folder: Path, annotations: Annotations, split: str = "train", *, void: int = 255) -> list[str]:
    """Write masks/SPLIT/NAME.png of every picture (value = label, `void` elsewhere) and classes.txt.

    Returns what could not be kept: single objects of a class, of a set of them. Pictures go to images/SPLIT by
    `write_pictures`. Raises DataError as `check_png_names` does.
    """
    check_png_names(folder, annotations.names, void=void)
    used: set[str] = set()
    for index, picture in enumerate(annotations.pictures):
        name = f"{Path(picture.file).stem}.png"
        if name in used:
            raise DataError(f"{picture.file}: two pictures would share {name}; give them different names")
        used.add(name)
        labels = annotations.semantic(index)
        stream = BytesIO()
        Image.fromarray(np.where(labels == VOID, void, labels).astype(np.uint8)).save(stream, format="PNG")
        write_file(folder / "masks" / split / name, stream.getvalue())
    write_atomic(folder / "classes.txt", _list_of(annotations.names))
    return (
        []
        if annotations.kind == "semantic"
        else ["which pixels belong to which object: a map of classes has no objects"]
    )


def open_maps(
    folder: Path,
    split: str | None,
    form: str,
    named: Mapping[int, str],
    pictures: Path,
    pairs: Sequence[tuple[Path, Path]],
    *,
    things: frozenset[int] = frozenset(),
    per_class: int = 0,
    bare: bool = False,
    with_synonyms: bool = False,
) -> Annotations:
    if not pairs:
        raise DataError(f"{pictures}: no pictures")
    sizes = tuple(image_size(read_file(file), where=str(file)) for _, file in pairs)
    reader = MapFiles(
        files=tuple(file for _, file in pairs),
        sizes=sizes,
        labels={value: label for label, value in enumerate(named)},
        per_class=per_class,
        bare=bare and per_class > 0,
        things=things,
    )
    words = [[part.strip() for part in name.split(",")] if with_synonyms else [name] for name in named.values()]
    return Annotations(
        name=f"{folder.name} {split or ''}".strip(),
        kind="panoptic" if per_class else "semantic",
        form=form,
        path=folder,
        categories=tuple(
            Category(id=value, name=first, synonyms=tuple(rest), is_thing=label in things if things else True)
            for label, (value, (first, *rest)) in enumerate(zip(named, words, strict=True))
        ),
        pictures=tuple(
            Picture(id=file.stem, file=file.relative_to(pictures).as_posix(), width=width, height=height)
            for (file, _), (height, width) in zip(pairs, sizes, strict=True)
        ),
        read=reader,
        images=FolderPictures((pictures,)),
        void=reader.void,
    )


def split_folder(folder: Path, split: str | None, *, wanted: str = "") -> Path:
    """The folder of a split; of a folder without splits, itself. wanted: what the folder of a split holds."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    inner = sorted(one.name for one in folder.iterdir() if one.is_dir() and (not wanted or (one / wanted).is_dir()))
    if split is None:
        if len(inner) > 1:
            raise ConfigError(
                f"{folder}: which split? It has {', '.join(inner)}; say split={inner[0]} (--split {inner[0]})"
            )
        return folder / inner[0] if inner else folder
    if split not in inner:
        raise ConfigError(f"{folder}: no split {split!r}; it has {', '.join(inner) or 'none'}")
    return folder / split


def paired(pictures: Path, maps: Path) -> list[tuple[Path, Path]]:
    """Each picture with the map of its name. Raises DataError when one has none."""
    of_name = {
        file.relative_to(maps).with_suffix("").as_posix(): file for file in sorted(maps.rglob("*")) if file.is_file()
    }
    pairs = []
    for file in sorted(pictures.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            name = file.relative_to(pictures).with_suffix("").as_posix()
            if name not in of_name:
                raise DataError(f"{file}: no map {maps / name}.png")
            pairs.append((file, of_name[name]))
    return pairs


def named_values(file: Path) -> dict[int, str]:
    lines = [(number, line) for number, line in enumerate(read_lines(file), 1) if line]
    if not lines:
        raise DataError(f"{file}: no classes")
    numbered = [_NUMBERED.fullmatch(line) for _, line in lines]
    if all(numbered):
        found: dict[int, str] = {}
        for (number, _), match in zip(lines, numbered, strict=True):
            assert match is not None
            if int(match[1]) in found:
                raise DataError(f"{file}: line {number}: value {match[1]} has a name already")
            found[int(match[1])] = match[2]
        return {value: name for value, name in found.items() if value not in _VOID_VALUES}
    return {number - 1: line for number, line in lines}
