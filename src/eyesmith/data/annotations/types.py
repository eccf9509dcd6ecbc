"""What every format of boxes and masks is read into: pictures, categories, and the objects of a picture when asked."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyesmith.data.annotations.masks import Shape, decode_shape
from eyesmith.data.annotations.pictures import PictureFiles
from eyesmith.errors import DataError

Kind = Literal["instances", "panoptic", "semantic"]
"""What the objects of a set are: things that may overlap and leave pixels free; segments that share no pixel; or whole
classes, one object for all pixels of one."""
VOID = -1
"""The label of a pixel that belongs to no class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """One class. id: the file's own number; synonyms: other names, the name itself not among them.

    frequency: LVIS's "r" (rare), "c" or "f"; "" where the file says none. image_count: training images that have one.
    is_novel: whether it is held out from training; None where nobody says. is_thing: countable (False: stuff).
    """

    id: int
    name: str
    synonyms: tuple[str, ...] = ()
    supercategory: str = ""
    frequency: str = ""
    image_count: int | None = None
    is_novel: bool | None = None
    is_thing: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture. id: the file's own number or word; file: relative to the folder of images; width, height in pixels.

    not_exhaustive: labels of which not every object is marked; absent: labels known to be in no place of it (LVIS's
    negatives); None where the set is exhaustive for all classes.
    """

    id: int | str
    file: str
    width: int
    height: int
    not_exhaustive: frozenset[int] = frozenset()
    absent: frozenset[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one picture, in the file's order; empty is ordinary.

    xywh: float64 [N, 4], left, top, width and height in pixels, as exact as the file; labels: int64 [N], places in the
    set's categories; crowd: bool [N], a region of many that is not counted; area: float64 [N], pixels; ids: the file's
    own numbers, int64 [N]; shapes: what the masks are decoded from, None for an object that has a box only.
    height, width: of the picture, in pixels.
    """

    xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    ids: NDArray[np.int64]
    shapes: tuple[Shape | None, ...]
    height: int
    width: int

    def __post_init__(self) -> None:
        number = len(self.labels)
        shapes = {
            "xywh": (self.xywh, (number, 4)),
            "labels": (self.labels, (number,)),
            "crowd": (self.crowd, (number,)),
            "area": (self.area, (number,)),
            "ids": (self.ids, (number,)),
        }
        for name, (column, shape) in shapes.items():
            if column.shape != shape:
                raise DataError(f"{name}: expected shape {list(shape)} for {number} labels, got {list(column.shape)}")
        if len(self.shapes) != number:
            raise DataError(f"shapes: expected one for each of {number} labels, got {len(self.shapes)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Left, top, right and bottom in pixels, ends exclusive: float32 [N, 4]."""
        corners = self.xywh.copy()
        corners[:, 2:] += corners[:, :2]
        return corners.astype(np.float32)

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask."""
        return all(shape is not None for shape in self.shapes)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The pixels of one object, [H, W]. Raises DataError when it has a box only."""
        shape = self.shapes[index]
        if shape is None:
            raise DataError(f"object {self.ids[index]} has a box and no mask; take a set with masks")
        return decode_shape(shape, self.height, self.width)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The pixels of all objects, [N, H, W], decoded anew at each call."""
        if not len(self):
            return np.zeros((0, self.height, self.width), np.bool_)
        return np.stack([self.mask(index) for index in range(len(self))])

    def only(self, keep: NDArray[np.bool_] | Sequence[int] | NDArray[np.int64]) -> "Objects":
        """Those that a bool mask or places name, in that order."""
        places = np.asarray(keep)
        places = np.flatnonzero(places) if places.dtype == np.bool_ else places.astype(np.int64)
        return Objects(
            xywh=self.xywh[places],
            labels=self.labels[places],
            crowd=self.crowd[places],
            area=self.area[places],
            ids=self.ids[places],
            shapes=tuple(self.shapes[place] for place in places.tolist()),
            height=self.height,
            width=self.width,
        )


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A set of pictures with what is where in them.

    name: short, for people; kind: what its objects are; form: the format it was read from; path: what was opened.
    read: the objects of a picture by its place (may read a file). images: where the pictures' files are.
    void: the pixels of a picture that count for nothing, bool [H, W]; None where every pixel counts.
    """

    name: str
    kind: Kind
    form: str
    path: Path
    categories: tuple[Category, ...]
    pictures: Sequence[Picture]
    read: Callable[[int], Objects]
    images: PictureFiles
    void: Callable[[int], NDArray[np.bool_] | None] = field(default=lambda _: None)

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Objects]:
        return map(self.objects, range(len(self)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The categories' names, by label."""
        return tuple(one.name for one in self.categories)

    @cached_property
    def novel(self) -> NDArray[np.bool_]:
        """Whether each category is held out, [K]; a category of which nobody says so is not."""
        return np.array([one.is_novel is True for one in self.categories], np.bool_)

    def objects(self, index: int) -> Objects:
        """What is in a picture. Raises DataError when its file is missing or damaged."""
        return self.read(index)

    def image(self, index: int) -> Image.Image:
        """A picture's pixels, RGB, as stored: an EXIF orientation is not applied, boxes would no longer fit.

        Raises DataError when the file is missing, ImageError when it is damaged.
        """
        return self.images.image(self.pictures[index].file)

    def some(self, places: Sequence[int]) -> "Annotations":
        """The set of some of its pictures, in the order of `places`."""
        return replace(
            self,
            pictures=[self.pictures[place] for place in places],
            read=lambda index: self.read(places[index]),
            void=lambda index: self.void(places[index]),
        )

    def segments(self, index: int) -> NDArray[np.int32]:
        """For each pixel the place of its object in `objects`, [H, W]; VOID where there is none.

        Where objects overlap, the smaller one has the pixel; a crowd never takes one from a counted object.
        """
        objects = self.objects(index)
        segments = np.full((objects.height, objects.width), VOID, np.int32)
        order = np.lexsort((-objects.area, ~objects.crowd))  # crowds first, then large before small: the last one stays
        for place in order.tolist():
            segments[objects.mask(place)] = place
        return segments

    def semantic(self, index: int) -> NDArray[np.int32]:
        """For each pixel its label, [H, W]; VOID where there is none or it does not count."""
        objects = self.objects(index)
        labels = np.append(objects.labels, VOID).astype(np.int32)
        found = labels[self.segments(index)]
        void = self.void(index)
        if void is not None:
            found[void] = VOID
        return found


def empty_objects(height: int, width: int) -> Objects:
    """No object, in a picture of that size."""
    return Objects(
        xywh=np.zeros((0, 4)),
        labels=np.zeros(0, np.int64),
        crowd=np.zeros(0, np.bool_),
        area=np.zeros(0),
        ids=np.zeros(0, np.int64),
        shapes=(),
        height=height,
        width=width,
    )


def path_of(value: str | os.PathLike[str]) -> Path:
    """A path that is there; DataError when it is not."""
    path = Path(value)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return path
