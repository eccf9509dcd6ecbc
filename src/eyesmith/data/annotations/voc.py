"""Pascal VOC's XML boxes."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from eyesmith.data.annotations.pictures import FolderPictures
from eyesmith.data.annotations.types import Annotations, Category, Objects, Picture, empty_objects
from eyesmith.data.text import read_lines
from eyesmith.errors import DataError

_MAX_OBJECTS = 10_000  # of a picture: ids count on from picture to picture in steps of it


def read_voc_boxes(folder: Path, split: str | None = None) -> Annotations:
    """Open a folder with Annotations/*.xml and JPEGImages/; `split` names a list in ImageSets/Main.

    Classes are those of classes.txt, or else all that occur, by name. VOC counts pixels from 1 and includes the last:
    its corners 1, 1, 10, 10 are the box 0, 0, 10, 10 here. An object marked `difficult` becomes a crowd: it is not
    counted, and what finds it is not wrong. Raises DataError naming the file.
    """
    files = _files(folder, split)
    read = [_parse(file) for file in files]
    classes = folder / "classes.txt"
    found = {name for _, objects in read for name, _, _ in objects}
    names = list(read_lines(classes)) if classes.exists() else sorted(found)
    unknown = sorted(found - set(names))
    if unknown:
        file = next(
            file for file, (_, objects) in zip(files, read, strict=True) if unknown[0] in {one[0] for one in objects}
        )
        raise DataError(f"{file}: class {unknown[0]!r} is not in {classes}")
    labels = {name: label for label, name in enumerate(names)}
    pictures = tuple(
        Picture(id=file.stem, file=name, width=width, height=height)
        for file, ((name, width, height), _) in zip(files, read, strict=True)
    )
    objects = tuple(tuple((labels[name], box, difficult) for name, box, difficult in one) for _, one in read)
    return Annotations(
        name=f"{folder.name} {split or ''}".strip(),
        kind="instances",
        form="voc-boxes",
        path=folder,
        categories=tuple(Category(id=label + 1, name=name) for label, name in enumerate(names)),
        pictures=pictures,
        read=_Boxes(objects, tuple((one.height, one.width) for one in pictures)),
        images=FolderPictures((folder / "JPEGImages", folder)),
    )


@dataclass(frozen=True)
class _Boxes:
    objects: tuple[tuple[tuple[int, tuple[float, float, float, float], bool], ...], ...]
    sizes: tuple[tuple[int, int], ...]

    def __call__(self, index: int) -> Objects:
        rows = self.objects[index]
        height, width = self.sizes[index]
        if not rows:
            return empty_objects(height, width)
        xywh = np.array([box for _, box, _ in rows], np.float64)  # [N, 4]
        return Objects(
            xywh=xywh,
            labels=np.array([label for label, _, _ in rows], np.int64),
            crowd=np.array([difficult for _, _, difficult in rows], np.bool_),
            area=xywh[:, 2] * xywh[:, 3],
            ids=index * _MAX_OBJECTS + np.arange(1, len(rows) + 1),
            shapes=(None,) * len(rows),
            height=height,
            width=width,
        )


def _files(folder: Path, split: str | None) -> list[Path]:
    if split is None:
        files = sorted((folder / "Annotations").glob("*.xml"))
        if not files:
            raise DataError(f"{folder / 'Annotations'}: no .xml files")
        return files
    lists = folder / "ImageSets" / "Main"
    if not (lists / f"{split}.txt").exists():
        known = ", ".join(sorted(one.stem for one in lists.glob("*.txt"))) or "none"
        raise DataError(f"{lists / split}.txt: no such list; there are {known}")
    files = [folder / "Annotations" / f"{line.split()[0]}.xml" for line in read_lines(lists / f"{split}.txt") if line]
    missing = next((file for file in files if not file.exists()), None)
    if missing is not None:
        raise DataError(f"{missing}: no such file; {split}.txt lists it")
    return files


def _parse(file: Path) -> tuple[tuple[str, int, int], list[tuple[str, tuple[float, float, float, float], bool]]]:
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: no XML: {error}") from None

    def text(place: ElementTree.Element, path: str) -> str:
        found = place.findtext(path)
        if found is None or not found.strip():
            raise DataError(f"{file}: no <{path}> in <{place.tag}>")
        return found.strip()

    def number(place: ElementTree.Element, path: str) -> float:
        word = text(place, path)
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise DataError(f"{file}: <{path}>: expected a number, got {word!r}")
        return value

    width, height = int(number(root, "size/width")), int(number(root, "size/height"))
    if width < 1 or height < 1:
        raise DataError(f"{file}: <size>: expected 1 or more pixels, got {width} x {height}")
    objects = []
    for one in root.iter("object"):
        left, top = number(one, "bndbox/xmin") - 1, number(one, "bndbox/ymin") - 1
        right, bottom = number(one, "bndbox/xmax"), number(one, "bndbox/ymax")
        objects.append((text(one, "name"), (left, top, right - left, bottom - top), one.findtext("difficult") == "1"))
    return (root.findtext("filename") or f"{file.stem}.jpg", width, height), objects
