"""Results as files that other tools open: COCO's JSON, masks as PNG, pictures with what was found drawn on them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eyesmith.data.annotations.coco import category_fields, picture_fields, shape_fields, write_lists
from eyesmith.data.annotations.masks import mask_to_runs
from eyesmith.data.annotations.types import VOID, Category, Picture
from eyesmith.dense.draw import colour_of
from eyesmith.dense.result import ClassMap, Objects
from eyesmith.errors import DataError
from eyesmith.files import write_atomic

VOID_VALUE = 255  # in a PNG of classes


@dataclass(frozen=True, slots=True)
class FoundIn:
    """What was found in one picture. file: its path, as the JSON shall name it."""

    file: str
    found: Objects


def write_coco(path: Path, results: Sequence[FoundIn], *, name: str = "found by eyesmith") -> None:
    """Write objects as COCO json: `images`, `categories` (numbers from 1, in the order of the names), and `annotations`
    with a `score` each, masks as compressed run lengths. Annotation tools open it, COCO's scorers read the list.

    Raises DataError where pictures have different names of classes, MissingDependencyError where masks need the extra.
    """
    names = {tuple(one.found.names) for one in results}
    if len(names) > 1:
        raise DataError("results: the pictures have different classes; write a file for each vocabulary")
    categories = [Category(id=place, name=each) for place, each in enumerate(next(iter(names), ()), 1)]
    pictures = [
        Picture(id=place, file=one.file, width=one.found.size[1], height=one.found.size[0])
        for place, one in enumerate(results, 1)
    ]
    write_lists(
        path,
        name,
        {
            "categories": map(category_fields, categories),
            "images": (picture_fields(one, categories) for one in pictures),
            "annotations": _annotations(results),
        },
    )


def coco_results(results: Sequence[FoundIn]) -> list[dict[str, Any]]:
    """The list that COCO's scorers take: image_id and category_id from 1, bbox, score, segmentation where known."""
    wanted = ("image_id", "category_id", "bbox", "score", "segmentation")
    return [{key: one[key] for key in wanted if one.get(key) not in (None, [])} for one in _annotations(results)]


def write_png_masks(path: Path, found: ClassMap) -> None:
    """Write a class map as a PNG of bytes whose values are the labels, 255 for void, with a palette to be looked at.

    Raises DataError for more than 255 classes.
    """
    if len(found.names) > VOID_VALUE:
        raise DataError(f"{len(found.names)} classes, a PNG of bytes has {VOID_VALUE} beside void")
    labels = found.labels.numpy()
    image = Image.fromarray(np.where(labels == VOID, VOID_VALUE, labels).astype(np.uint8), mode="P")
    palette = [channel for label in range(VOID_VALUE) for channel in colour_of(label)]
    image.putpalette([*palette, 255, 255, 255])
    write_image(path, image)


def write_png_objects(folder: Path, stem: str, found: Objects) -> list[Path]:
    """Write each mask as a black and white PNG, STEM-NUMBER-NAME.png, best first as they are numbered from 1."""
    paths = []
    if found.masks is None:
        return paths
    for place, mask in enumerate(found.masks_px().numpy()):
        name = "".join(letter if letter.isalnum() else "_" for letter in found.names[int(found.labels[place])])
        path = folder / f"{stem}-{place + 1:03}-{name[:40]}.png"
        write_image(path, Image.fromarray(mask.astype(np.uint8) * 255))
        paths.append(path)
    return paths


def distinct_stems(files: Iterable[str]) -> list[str]:
    """A name for each file's results: its own without the suffix, numbered where two are alike."""
    found: list[str] = []
    for file in files:
        stem = stem_of = Path(file).stem or "picture"
        number = 1
        while stem in found:
            number += 1
            stem = f"{stem_of}-{number}"
        found.append(stem)
    return found


def _annotations(results: Sequence[FoundIn]) -> Iterator[dict[str, Any]]:
    number = 0
    for place, one in enumerate(results, 1):
        found, (height, width) = one.found, one.found.size
        masks = None if found.masks is None else found.masks_px().numpy()
        for row, (box, score, label) in enumerate(
            zip(found.boxes_px.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        ):
            number += 1
            left, top, right, bottom = box
            shape = None if masks is None else mask_to_runs(masks[row])
            area = (right - left) * (bottom - top) if masks is None else float(masks[row].sum())
            yield {
                "id": number,
                "image_id": place,
                "category_id": label + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": area,
                "segmentation": shape_fields(shape, height, width),
                "iscrowd": 0,
                "score": score,
            }


def write_image(path: Path, image: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all."""
    stream = BytesIO()
    image.save(stream, format="PNG")
    write_atomic(path, stream.getvalue())
