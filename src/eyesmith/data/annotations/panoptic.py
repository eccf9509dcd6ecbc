"""COCO's panoptic form: a PNG of segment numbers a picture, and a JSON that says what each segment is."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyesmith.data.annotations.coco import Ids, category_fields, picture_fields, write_lists
from eyesmith.data.annotations.entries import Entry, as_entries, read_entries
from eyesmith.data.annotations.masks import Segment, segment_boxes
from eyesmith.data.annotations.pictures import PictureFiles, folders_beside, write_file
from eyesmith.data.annotations.types import Annotations, Objects, Picture
from eyesmith.errors import DataError
from eyesmith.images.decode import open_image

_MAX_SEGMENT = 256**3 - 1


@dataclass(frozen=True, kw_only=True)
class PanopticReader:
    """Segments of all pictures as the JSON says them: those of picture i are rows starts[i] to starts[i + 1].

    files: of each picture its PNG, relative to `folder`. The columns are `Objects`', xywh and area as the JSON says.
    """

    folder: Path
    files: tuple[str, ...]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    ids: NDArray[np.int64]

    def values(self, index: int) -> NDArray[np.int32]:
        """The segment number of each pixel, [H, W]; 0 is void. Raises DataError for a file of another size or mode."""
        path = self.folder / self.files[index]
        image = open_image(path)
        height, width = self.sizes[index].tolist()
        if image.mode not in ("RGB", "RGBA"):
            raise DataError(
                f"{path}: a panoptic PNG has three channels (red + 256 green + 65536 blue), this one has mode "
                f"{image.mode!r}: a map of classes is no map of segments"
            )
        if image.size != (width, height):
            raise DataError(f"{path}: {image.width} x {image.height} pixels, the picture has {width} x {height}")
        channels = np.asarray(image.convert("RGB"), np.int32)  # [H, W, 3]
        return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]

    def __call__(self, index: int) -> Objects:
        """The segments of one picture."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        values = self.values(index)
        return Objects(
            xywh=self.xywh[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            area=self.area[rows],
            ids=self.ids[rows],
            shapes=tuple(Segment(values, number) for number in self.ids[rows].tolist()),
            height=values.shape[0],
            width=values.shape[1],
        )

    def void(self, index: int) -> NDArray[np.bool_]:
        """Pixels of no segment that the JSON knows, [H, W]."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return ~np.isin(self.values(index), self.ids[rows])


def read_panoptic(
    path: Path, *, images: PictureFiles | None = None, segments: Path | None = None, name: str | None = None
) -> Annotations:
    """Open a panoptic JSON.

    segments: the folder of its PNGs; by default the one beside the file that has its name. images: as of `read_coco`.
    Raises DataError naming the file and the entry.
    """
    reading = _Reading()
    read_entries(path, {"images": reading.picture, "categories": reading.category, "annotations": reading.one})
    folder = segments or path.with_suffix("")
    if not folder.is_dir():
        raise DataError(f"{folder}: no folder of segment PNGs; it lies beside {path.name} under that name, or is given")
    pictures, reader = reading.finish(path, folder)
    return Annotations(
        name=name or path.stem,
        kind="panoptic",
        form="panoptic",
        path=path,
        categories=tuple(reading.categories),
        pictures=pictures,
        read=reader,
        images=images or folders_beside(path),
        void=reader.void,
    )


def write_panoptic(path: Path, annotations: Annotations) -> None:
    """Write a set in the panoptic form: `path` (json) and a folder of PNGs beside it, of the same name.

    Segments keep their numbers where these are unique in their picture and fit in 24 bits, else they count from 1.
    Boxes and areas are those of the pixels that are left to an object where objects overlap; one with none is left out.
    """
    folder = path.with_suffix("")
    used: set[str] = set()

    def entries() -> Iterator[dict[str, Any]]:
        for index, picture in enumerate(annotations.pictures):
            name = f"{Path(picture.file).stem}.png"
            if name in used:
                raise DataError(f"{picture.file}: two pictures would share {name}; give them different names")
            used.add(name)
            segments_info, content = panoptic_picture(annotations, index)
            write_file(folder / name, content)
            yield {"image_id": picture.id, "file_name": name, "segments_info": segments_info}

    folder.mkdir(parents=True, exist_ok=True)
    write_lists(
        path,
        annotations.name,
        {
            "categories": ({"isthing": 1} | category_fields(one) for one in annotations.categories),
            "images": (picture_fields(one, annotations.categories) for one in annotations.pictures),
            "annotations": entries(),
        },
    )


def panoptic_picture(annotations: Annotations, index: int) -> tuple[list[dict[str, Any]], bytes]:
    """The `segments_info` of one picture and its PNG."""
    objects, places = annotations.objects(index), annotations.segments(index)
    ids = objects.ids.tolist()
    if len(set(ids)) < len(ids) or any(not 0 < one <= _MAX_SEGMENT for one in ids):
        ids = list(range(1, len(ids) + 1))
    boxes, areas = segment_boxes(places, range(len(ids)))
    info = [
        {
            "id": number,
            "category_id": annotations.categories[label].id,
            "bbox": [int(one) for one in box],
            "area": int(area),
            "iscrowd": int(crowd),
        }
        for number, label, box, area, crowd in zip(
            ids, objects.labels.tolist(), boxes, areas, objects.crowd.tolist(), strict=True
        )
        if area
    ]
    numbers = np.array([*ids, 0], np.int64)[places]  # [H, W]; VOID is the last
    channels = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(channels).save(stream, format="PNG")
    return info, stream.getvalue()


class _Reading(Ids):
    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Picture] = []
        self.rows: dict[int | str, tuple[str, int, int]] = {}  # of each picture: PNG, first and last row
        self.numbers = array("d")  # of each segment left, top, width, height, area
        self.category_of = array("q")
        self.ids = array("q")
        self.crowd = bytearray()
        self.where: list[str] = []

    def picture(self, entry: Entry) -> None:
        number = self.new_id(entry)
        self.pictures.append(
            Picture(
                id=number,
                file=entry.get("file_name", str),
                width=entry.get("width", int),
                height=entry.get("height", int),
            )
        )

    def one(self, entry: Entry) -> None:
        number = entry.get("image_id", int, str)
        if number in self.rows:
            raise entry.error(f"image_id {number} has an entry already")
        first = len(self.ids)
        if "segments_info" not in entry.fields:
            raise entry.error("no 'segments_info'; expected the panoptic form, this looks like boxes of COCO")
        for segment in as_entries(entry.where, "segments_info", entry.fields["segments_info"]):
            self.ids.append(segment.get("id", int))
            self.category_of.append(segment.get("category_id", int))
            box = segment.numbers("bbox", 4) if "bbox" in segment.fields else [0, 0, 0, 0]
            self.numbers.extend((*box, segment.optional("area", 0, int, float)))
            self.crowd.append(bool(segment.optional("iscrowd", 0, int, bool)))
        self.rows[number] = (entry.get("file_name", str), first, len(self.ids))
        self.where.append(entry.where)

    def finish(self, path: Path, folder: Path) -> tuple[tuple[Picture, ...], PanopticReader]:
        for wanted, found in (("images", self.pictures), ("categories", self.categories), ("annotations", self.rows)):
            if not found:
                raise DataError(f"{path}: no {wanted}; expected COCO's panoptic lists images, annotations, categories")
        unknown = next((one for one in self.rows if one not in self.places), None)
        if unknown is not None:
            raise DataError(f"{path}: annotations: image_id {unknown} is no picture's id")
        missing = next((one for one in self.places if one not in self.rows), None)
        if missing is not None:
            raise DataError(f"{path}: images: picture {missing} has no entry in annotations")
        for row, number in enumerate(self.category_of):
            if number not in self.labels:
                raise DataError(f"{path}: segment {self.ids[row]}: category_id {number} is no category's id")
        spans = [self.rows[picture.id] for picture in self.pictures]
        rows = np.array([row for _, first, last in spans for row in range(first, last)], np.int64)
        numbers = np.array(self.numbers, np.float64).reshape(-1, 5)[rows]
        labels = np.array([self.labels[one] for one in self.category_of], np.int64)
        return tuple(self.pictures), PanopticReader(
            folder=folder,
            files=tuple(file for file, _, _ in spans),
            starts=np.cumsum([0, *(last - first for _, first, last in spans)]),
            sizes=np.array([(one.height, one.width) for one in self.pictures], np.int64),
            xywh=numbers[:, :4].copy(),
            labels=labels[rows],
            crowd=np.array(self.crowd, np.bool_)[rows],
            area=numbers[:, 4].copy(),
            ids=np.array(self.ids, np.int64)[rows],
        )
