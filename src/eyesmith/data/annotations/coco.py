"""COCO's and LVIS's JSON of boxes and masks, read into columns and written back."""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations.entries import Entry, read_entries
from eyesmith.data.annotations.masks import Polygons, Runs, Shape, encoded
from eyesmith.data.annotations.pictures import PictureFiles, folders_beside
from eyesmith.data.annotations.types import Annotations, Category, Objects, Picture
from eyesmith.errors import DataError
from eyesmith.files import atomic_path

_NOVEL = {"novel": True, "base": False}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """All objects of a file, ordered by picture: those of picture i are rows starts[i] to starts[i + 1].

    The columns are `Objects`'; sizes: height and width of each picture, int64 [P, 2].
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    ids: NDArray[np.int64]
    shapes: tuple[Shape | None, ...]

    def __call__(self, index: int) -> Objects:
        """The objects of one picture."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        height, width = self.sizes[index].tolist()
        return Objects(
            xywh=self.xywh[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            area=self.area[rows],
            ids=self.ids[rows],
            shapes=self.shapes[rows],
            height=height,
            width=width,
        )


def read_coco(path: Path, *, images: PictureFiles | None = None, name: str | None = None) -> Annotations:
    """Open a JSON of instances, COCO's or LVIS's.

    images: where the pictures are; by default folders beside the file. Categories of LVIS keep their frequency, its
    pictures what is not exhaustive and absent; `split` "novel" or "base" of a category is kept. Raises DataError
    naming the file and the entry: cut off, fields missing or of a wrong type, numbers that repeat or point to nothing.
    """
    reading = _Reading()
    rest = read_entries(path, {"images": reading.picture, "categories": reading.category, "annotations": reading.one})
    for wanted, found in (("images", reading.pictures), ("categories", reading.categories)):
        if not found:
            what = "only " + ", ".join(rest) if rest else "nothing"
            raise DataError(
                f"{path}: no {wanted}; expected COCO's lists images, annotations and categories, found {what}"
            )
    pictures, categories, columns = reading.finish(path)
    return Annotations(
        name=name or path.stem,
        kind="instances",
        form="lvis" if any(one.frequency for one in categories) else "coco",
        path=path,
        categories=categories,
        pictures=pictures,
        read=columns,
        images=images or folders_beside(path),
    )


def read_category(entry: Entry) -> Category:
    """One entry of COCO's `categories`; id and name are needed."""
    name = entry.get("name", str)
    synonyms = entry.optional("synonyms", [], list)
    if not all(isinstance(one, str) for one in synonyms):
        raise entry.error("synonyms: expected a list of strings")
    held_out = entry.optional("split", "", str)
    return Category(
        id=entry.get("id", int),
        name=name,
        synonyms=tuple(dict.fromkeys(one for one in synonyms if one != name)),
        supercategory=entry.optional("supercategory", "", str),
        frequency=entry.optional("frequency", "", str),
        image_count=entry.optional("image_count", None, int),
        is_novel=_NOVEL.get(held_out),
        is_thing=bool(entry.optional("isthing", 1, int, bool)),
    )


def read_shape(entry: Entry, value: object, name: str = "segmentation") -> Shape | None:
    """A COCO segmentation: polygons, run lengths, or None for an empty list."""
    if isinstance(value, dict):
        inner = Entry(f"{entry.where}: {name}", value)
        height, width = (int(one) for one in inner.numbers("size", 2))
        counts = inner.get("counts", str, list)
        if isinstance(counts, str):
            return Runs(height, width, counts.encode())
        numbers = inner.numbers("counts")
        if any(one < 0 or one != int(one) for one in numbers):
            raise inner.error("counts: expected whole numbers from 0")
        return Runs(height, width, tuple(int(one) for one in numbers))
    if not isinstance(value, list):
        raise entry.error(f"{name}: expected polygons or run lengths, got {type(value).__name__}")
    parts = []
    for number, part in enumerate(value):
        points = entry.finite(part, f"{name}[{number}]")
        if len(points) < 6 or len(points) % 2:
            raise entry.error(f"{name}[{number}]: expected x, y of 3 or more points, got {len(points)} numbers")
        parts.append(np.array(points, np.float64))
    return Polygons(tuple(parts)) if parts else None


def write_coco(path: Path, annotations: Annotations, *, compressed: bool = False) -> None:
    """Write a set as COCO json (with LVIS's fields where it has them); ids, crowd, area and masks are kept.

    compressed: masks that are not polygons become compressed run lengths (smaller); otherwise each stays as it is.
    """
    write_lists(
        path,
        annotations.name,
        {
            "categories": map(category_fields, annotations.categories),
            "images": (picture_fields(one, annotations.categories) for one in annotations.pictures),
            "annotations": _objects_fields(annotations, compressed=compressed),
        },
    )


def write_lists(path: Path, name: str, lists: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write a COCO json whose lists come entry by entry, whole or not at all. name: its description."""
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f'{{"info": {json.dumps({"description": name})}, "licenses": []')
        for key, items in lists.items():
            stream.write(f',\n"{key}": [')
            stream.writelines(_joined(items))
            stream.write("]")
        stream.write("}\n")


def category_fields(category: Category) -> dict[str, Any]:
    """The entry of a category; what is not known is left out."""
    fields: dict[str, Any] = {"id": category.id, "name": category.name}
    if category.supercategory:
        fields["supercategory"] = category.supercategory
    if category.synonyms:
        fields["synonyms"] = list(category.synonyms)
    if category.frequency:
        fields["frequency"] = category.frequency
    if category.image_count is not None:
        fields["image_count"] = category.image_count
    if category.is_novel is not None:
        fields["split"] = "novel" if category.is_novel else "base"
    if not category.is_thing:
        fields["isthing"] = 0
    return fields


def picture_fields(picture: Picture, categories: Sequence[Category]) -> dict[str, Any]:
    """The entry of a picture."""
    fields: dict[str, Any] = {
        "id": picture.id,
        "file_name": picture.file,
        "width": picture.width,
        "height": picture.height,
    }
    if picture.absent is not None:
        fields["neg_category_ids"] = [categories[label].id for label in sorted(picture.absent)]
        fields["not_exhaustive_category_ids"] = [categories[label].id for label in sorted(picture.not_exhaustive)]
    return fields


def shape_fields(shape: Shape | None, height: int, width: int, *, compressed: bool = False) -> Any:
    """A mask as COCO's `segmentation`; [] for none."""
    if shape is None:
        return []
    if isinstance(shape, Polygons):
        return [part.tolist() for part in shape.parts]
    if isinstance(shape, Runs):
        if not isinstance(shape.counts, bytes) and not compressed:
            return {"size": [shape.height, shape.width], "counts": list(shape.counts)}
        if isinstance(shape.counts, bytes):
            return {"size": [shape.height, shape.width], "counts": shape.counts.decode()}
    written = encoded(shape, height, width)
    return {"size": [height, width], "counts": written["counts"].decode()}


def _objects_fields(annotations: Annotations, *, compressed: bool) -> Iterator[Mapping[str, Any]]:
    for picture, objects in zip(annotations.pictures, annotations, strict=True):
        for place, shape in enumerate(objects.shapes):
            yield {
                "id": int(objects.ids[place]),
                "image_id": picture.id,
                "category_id": annotations.categories[objects.labels[place]].id,
                "bbox": objects.xywh[place].tolist(),
                "area": float(objects.area[place]),
                "segmentation": shape_fields(shape, objects.height, objects.width, compressed=compressed),
                "iscrowd": int(objects.crowd[place]),
            }


def _joined(items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for place, item in enumerate(items):
        yield f"{',' if place else ''}\n{json.dumps(item)}"


class Ids:
    """Which pictures and categories were read, each by an id of its own."""

    def __init__(self) -> None:
        self.categories: list[Category] = []
        self.places: dict[int | str, int] = {}
        self.labels: dict[int, int] = {}

    def new_id(self, entry: Entry) -> int | str:
        """The id of a picture, which has the next place."""
        number = entry.get("id", int, str)
        if number in self.places:
            raise entry.error(f"id {number} is that of images[{self.places[number]}] too")
        self.places[number] = len(self.places)
        return number

    def category(self, entry: Entry) -> None:
        """Keep a category."""
        category = read_category(entry)
        if category.id in self.labels:
            raise entry.error(f"id {category.id} is that of categories[{self.labels[category.id]}] too")
        self.labels[category.id] = len(self.categories)
        self.categories.append(category)


class _Reading(Ids):
    """What is kept of each entry; pictures and categories may come after the annotations that name them."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Entry] = []
        self.picture_of: list[int | str] = []
        self.category_of = array("q")
        self.ids = array("q")
        self.numbers = array("d")  # of each object left, top, width, height, area
        self.crowd = bytearray()
        self.shapes: list[Shape | None] = []

    def picture(self, entry: Entry) -> None:
        self.new_id(entry)
        for side in ("width", "height"):
            if entry.get(side, int) < 1:
                raise entry.error(f"{side}: expected 1 or more pixels, got {entry.fields[side]}")
        self.pictures.append(entry)

    def one(self, entry: Entry) -> None:
        self.picture_of.append(entry.get("image_id", int, str))
        self.category_of.append(entry.get("category_id", int))
        self.ids.append(entry.optional("id", len(self.ids) + 1, int))
        box = entry.numbers("bbox", 4)
        shape = read_shape(entry, entry.fields["segmentation"]) if entry.fields.get("segmentation") else None
        self.numbers.extend((*box, entry.optional("area", box[2] * box[3], int, float)))
        self.crowd.append(bool(entry.optional("iscrowd", 0, int, bool)))
        self.shapes.append(shape)

    def finish(self, path: Path) -> tuple[tuple[Picture, ...], tuple[Category, ...], Columns]:
        owner = np.array([self._place(path, row, one) for row, one in enumerate(self.picture_of)], np.int64)
        labels = np.array([self._label(path, row, one) for row, one in enumerate(self.category_of)], np.int64)
        order = np.argsort(owner, kind="stable")
        numbers = np.frombuffer(self.numbers, np.float64).reshape(-1, 5)[order] if len(owner) else np.zeros((0, 5))
        pictures = tuple(self._picture(entry) for entry in self.pictures)
        columns = Columns(
            starts=np.searchsorted(owner[order], np.arange(len(pictures) + 1)),
            sizes=np.array([(one.height, one.width) for one in pictures], np.int64),
            xywh=numbers[:, :4].copy(),
            labels=labels[order],
            crowd=np.array(self.crowd, np.bool_)[order],
            area=numbers[:, 4].copy(),
            ids=np.array(self.ids, np.int64)[order],
            shapes=tuple(self.shapes[row] for row in order.tolist()),
        )
        return pictures, tuple(self.categories), columns

    def _place(self, path: Path, row: int, number: int | str) -> int:
        if number not in self.places:
            raise DataError(f"{path}: annotations[{row}]: image_id {number} is no picture's id")
        return self.places[number]

    def _label(self, path: Path, row: int, number: int) -> int:
        if number not in self.labels:
            raise DataError(f"{path}: annotations[{row}]: category_id {number} is no category's id")
        return self.labels[number]

    def _picture(self, entry: Entry) -> Picture:
        absent = self._classes(entry, "neg_category_ids")
        return Picture(
            id=entry.fields["id"],
            file=_file_name(entry),
            width=entry.fields["width"],
            height=entry.fields["height"],
            not_exhaustive=self._classes(entry, "not_exhaustive_category_ids") or frozenset(),
            absent=absent,
        )

    def _classes(self, entry: Entry, name: str) -> frozenset[int] | None:
        if entry.fields.get(name) is None:
            return None
        numbers = entry.get(name, list)
        for one in numbers:
            if one not in self.labels:
                raise entry.error(f"{name}: {one} is no category's id")
        return frozenset(self.labels[one] for one in numbers)


def _file_name(entry: Entry) -> str:
    """LVIS writes no file name, but the address whose end is one: train2017/000000391895.jpg."""
    if entry.fields.get("file_name") is not None:
        return entry.get("file_name", str)
    return "/".join(entry.get("coco_url", str).split("/")[-2:])
