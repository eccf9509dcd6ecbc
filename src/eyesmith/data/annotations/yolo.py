"""YOLO's text files: a line an object, its class and its box or outline as fractions; data.yaml or classes.txt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eyesmith.data.annotations.masks import Polygons, Shape, decode_shape
from eyesmith.data.annotations.outline import joined_rings, mask_rings
from eyesmith.data.annotations.pictures import FolderPictures, write_file
from eyesmith.data.annotations.types import Annotations, Category, Objects, Picture, empty_objects
from eyesmith.data.text import read_lines
from eyesmith.errors import ConfigError, DataError
from eyesmith.files import write_atomic
from eyesmith.images.collect import IMAGE_SUFFIXES, collect_images
from eyesmith.images.decode import image_size

DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml")
_MAX_OBJECTS = 10_000  # of a picture: ids count on from picture to picture in steps of it


def read_yolo(folder: Path, split: str | None = None) -> Annotations:
    """Open a folder with data.yaml (names and splits), or with classes.txt, images/ and labels/.

    A label file has its picture's name and lies where `images` becomes `labels` in its path; a picture without one has
    no objects. A line of 5 numbers is a box, one of 7 or more an outline. Raises DataError naming file and line.
    """
    names, pictures_of = _described(folder)
    if split is None and len(pictures_of) > 1:
        one = next(iter(pictures_of))
        raise ConfigError(f"{folder}: which split? It has {', '.join(pictures_of)}; say split={one} (--split {one})")
    chosen = split if split is not None else next(iter(pictures_of))
    if chosen not in pictures_of:
        raise ConfigError(f"{folder}: no split {chosen!r}; it has {', '.join(pictures_of)}")
    files = _pictures(folder, pictures_of[chosen])
    sizes = [image_size(file.read_bytes(), where=str(file)) for file in files]
    label_files = tuple(_label_file(folder, file) for file in files)
    if not any(file.exists() for file in label_files):
        raise DataError(f"{label_files[0]}: no label files; expected one of each picture's name in labels/")
    return Annotations(
        name=f"{folder.name} {chosen}".strip(),
        kind="instances",
        form="yolo",
        path=folder,
        categories=tuple(Category(id=label, name=name) for label, name in enumerate(names)),
        pictures=tuple(
            Picture(id=index + 1, file=_relative(file, folder), width=width, height=height)
            for index, (file, (height, width)) in enumerate(zip(files, sizes, strict=True))
        ),
        read=_LabelFiles(label_files, tuple(sizes), len(names)),
        images=FolderPictures((folder, Path("/"))),
    )


def write_yolo(folder: Path, annotations: Annotations, split: str = "train", *, boxes_only: bool = False) -> list[str]:
    """Write labels/SPLIT/NAME.txt of every picture, data.yaml and classes.txt; returns what could not be kept.

    Objects with masks become outlines (parts and holes joined by lines that enclose nothing), the others boxes. Classes
    are the categories in their order. YOLO knows no crowds: they are left out, and the returned lines count them.
    Pictures go to images/SPLIT by `write_pictures`. A data.yaml that is there keeps its other splits; raises DataError
    when it has other names.
    """
    left_out: dict[str, int] = {}
    used: set[str] = set()
    for picture, objects in zip(annotations.pictures, annotations, strict=True):
        stem = Path(picture.file).stem
        if stem in used:
            raise DataError(f"{picture.file}: two pictures would share {stem}.txt; give them different names")
        used.add(stem)
        lines = []
        for place in range(len(objects)):
            if objects.crowd[place]:
                left_out["crowds"] = left_out.get("crowds", 0) + 1
                continue
            shape = None if boxes_only else objects.shapes[place]
            numbers = _box(objects, place) if shape is None else _outline(shape, objects)
            if numbers is None:
                left_out["masks without pixels"] = left_out.get("masks without pixels", 0) + 1
                continue
            lines.append(" ".join([str(int(objects.labels[place])), *(f"{one:.10g}" for one in numbers)]))
        write_file(folder / "labels" / split / f"{stem}.txt", "".join(f"{line}\n" for line in lines))
    _describe(folder, split, annotations.names)
    return [f"{number} {what} left out: YOLO's lines cannot say them" for what, number in left_out.items()]


@dataclass(frozen=True)
class _LabelFiles:
    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    num_classes: int

    def __call__(self, index: int) -> Objects:
        height, width = self.sizes[index]
        file = self.files[index]
        if not file.exists():
            return empty_objects(height, width)
        rows = [
            self._row(f"{file}: line {number}", line.split(), width, height)
            for number, line in enumerate(read_lines(file), 1)
            if line
        ]
        if not rows:
            return empty_objects(height, width)
        shapes = tuple(shape for _, _, shape in rows)
        xywh = np.array([box for _, box, _ in rows], np.float64)  # [N, 4]
        areas = [box[2] * box[3] if shape is None else _area(shape) for _, box, shape in rows]
        return Objects(
            xywh=xywh,
            labels=np.array([label for label, _, _ in rows], np.int64),
            crowd=np.zeros(len(rows), np.bool_),
            area=np.array(areas, np.float64),
            ids=index * _MAX_OBJECTS + np.arange(1, len(rows) + 1),
            shapes=shapes,
            height=height,
            width=width,
        )

    def _row(
        self, where: str, words: Sequence[str], width: int, height: int
    ) -> tuple[int, list[float], Polygons | None]:
        try:
            label, numbers = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise DataError(f"{where}: expected a class number and fractions, got {' '.join(words)[:60]!r}") from None
        if not 0 <= label < self.num_classes:
            raise DataError(f"{where}: class {label}; there are {self.num_classes}, counted from 0")
        if not all(math.isfinite(one) for one in numbers):
            raise DataError(f"{where}: expected finite numbers, got {' '.join(words)[:60]!r}")
        if len(numbers) == 4:
            x, y, w, h = numbers
            return label, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], None
        if len(numbers) < 6 or len(numbers) % 2:
            raise DataError(
                f"{where}: expected 4 numbers (a box) or x, y of 3 or more points, got {len(numbers)} numbers"
            )
        points = np.array(numbers).reshape(-1, 2) * (width, height)  # [P, 2]
        low, high = points.min(0), points.max(0)
        return label, [*low.tolist(), *(high - low).tolist()], Polygons((points.ravel(),))


def _described(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Class names, and what says where the pictures of each split are."""
    file = next((folder / name for name in DATA_FILES if (folder / name).is_file()), None)
    if file is None:
        names = list(read_lines(folder / "classes.txt"))
        inner = sorted(one.name for one in (folder / "images").glob("*") if one.is_dir())
        if inner and not any(one.suffix.lower() in IMAGE_SUFFIXES for one in (folder / "images").iterdir()):
            return names, {name: f"images/{name}" for name in inner}
        return names, {"": "images"}
    facts = _read_yaml(file)
    names = facts.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(
                f"{file}: names: expected the numbers 0 to {len(names) - 1}, got {sorted(map(str, names))[:5]}"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: names: expected the class names, got {names!r}")
    if facts.get("nc", len(names)) != len(names):
        raise DataError(f"{file}: nc: {facts['nc']} classes, names has {len(names)}")
    places = {key: facts[key] for key in ("train", "val", "test") if facts.get(key)}
    if not places:
        raise DataError(f"{file}: expected train, val or test to say where pictures are")
    return [str(name) for name in names], places


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml  # comes with huggingface_hub

    try:
        facts = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: no YAML: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(facts, dict):
        raise DataError(f"{file}: expected names, train and val, got {type(facts).__name__}")
    return facts


def _pictures(folder: Path, place: object) -> list[Path]:
    """Pictures of a split: a folder, a text file that lists them, or several of these."""
    found: list[Path] = []
    for one in place if isinstance(place, list) else [place]:
        if not isinstance(one, str):
            raise DataError(f"{folder}: a split is a folder or a list of pictures, got {one!r}")
        path = next((base / one for base in (folder, folder / "images") if (base / one).exists()), None)
        # exported sets often write ../train/images, meant from another folder
        path = path or next(
            (folder / one[3:] for _ in "1" if one.startswith("../") and (folder / one[3:]).exists()), None
        )
        if path is None:
            raise DataError(f"{folder / one}: no such folder of pictures")
        if path.is_file():
            found += [folder / PurePosixPath(line) for line in read_lines(path) if line]
        else:
            found += collect_images(path)
    return found


def _label_file(folder: Path, picture: Path) -> Path:
    parts = list(picture.parts)
    first = len(folder.parts)
    places = [place for place in range(first, len(parts) - 1) if parts[place] == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _box(objects: Objects, place: int) -> list[float]:
    x, y, w, h = objects.xywh[place].tolist()
    return [(x + w / 2) / objects.width, (y + h / 2) / objects.height, w / objects.width, h / objects.height]


def _outline(shape: Shape, objects: Objects) -> list[float] | None:
    """One polygon as fractions; None for a mask without pixels."""
    if isinstance(shape, Polygons):
        rings = [part.reshape(-1, 2) for part in shape.parts]
    else:
        rings = mask_rings(decode_shape(shape, objects.height, objects.width))
    return (joined_rings(rings) / (objects.width, objects.height)).ravel().tolist() if rings else None


def _area(shape: Polygons) -> float:
    """Of a polygon, by its corners; parts that are joined by lines count as they should."""
    x, y = shape.parts[0][::2], shape.parts[0][1::2]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def check_yolo_names(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What a data.yaml that is there says, {} without one. Raises DataError when it has other names."""
    file = folder / "data.yaml"
    there = _read_yaml(file) if file.exists() else {}
    if there and there.get("names") not in (dict(enumerate(names)), list(names)):
        raise DataError(f"{file}: has other class names; write into another folder")
    return there


def _describe(folder: Path, split: str, names: Sequence[str]) -> None:
    import yaml

    file = folder / "data.yaml"
    facts = {key: value for key, value in check_yolo_names(folder, names).items() if key != "names"}
    facts |= {split: f"images/{split}"}
    write_atomic(file, yaml.safe_dump(facts | {"names": dict(enumerate(names))}, sort_keys=False, allow_unicode=True))
    write_atomic(folder / "classes.txt", "".join(f"{name}\n" for name in names))
