"""Detections as COCO's list of results, the form that other tools write and read."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eyesmith.data.annotations import Annotations
from eyesmith.data.annotations.coco import read_shape
from eyesmith.data.annotations.entries import Entry, as_entries
from eyesmith.data.annotations.masks import encoded, rle_masks
from eyesmith.errors import DataError
from eyesmith.eval.located.found import Found, found
from eyesmith.files import atomic_path


def write_found(path: str | os.PathLike[str], truth: Annotations, detections: Sequence[Found]) -> None:
    """Write detections as a JSON list: image_id, category_id, bbox, score, and segmentation where there are masks."""
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("[")
        for number, fields in enumerate(_fields(truth, detections)):
            stream.write(f"{',' if number else ''}\n{json.dumps(fields)}")
        stream.write("]\n")


def read_found(path: str | os.PathLike[str], truth: Annotations) -> list[Found]:
    """Read COCO's list of results, one entry a picture of `truth`; detections keep their order.

    Raises DataError naming the file and the entry: no list, unknown pictures or categories, numbers that are none.
    """
    file = Path(path)
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: expected a JSON list of detections: {error}") from None
    places = {picture.id: place for place, picture in enumerate(truth.pictures)}
    labels = {category.id: label for label, category in enumerate(truth.categories)}
    rows: list[list[tuple[list[float], float, int, Any]]] = [[] for _ in truth.pictures]
    for entry in as_entries(str(file), "results", value):
        image, category = entry.get("image_id", int, str), entry.get("category_id", int)
        if image not in places:
            raise entry.error(f"image_id {image} is no picture of {truth.name}")
        if category not in labels:
            raise entry.error(f"category_id {category} is no category of {truth.name}")
        rows[places[image]].append(_row(entry, labels[category], truth, places[image]))
    return [
        found(
            [box for box, _, _, _ in one],
            [score for _, score, _, _ in one],
            [label for _, _, label, _ in one],
            [mask for _, _, _, mask in one] if one and all(mask is not None for _, _, _, mask in one) else None,
            where=f"{file}: {picture.file}",
        )
        for picture, one in zip(truth.pictures, rows, strict=True)
    ]


def _row(entry: Entry, label: int, truth: Annotations, place: int) -> tuple[list[float], float, int, Any]:
    picture = truth.pictures[place]
    score = entry.get("score", int, float)
    shape = read_shape(entry, entry.fields["segmentation"]) if entry.fields.get("segmentation") else None
    try:
        mask = None if shape is None else encoded(shape, picture.height, picture.width)
    except DataError as error:
        raise entry.error(f"{picture.file}: {error}") from None
    if "bbox" in entry.fields:
        x, y, width, height = entry.numbers("bbox", 4)
    elif mask is not None:
        x, y, width, height = rle_masks().toBbox([mask])[0].tolist()
    else:
        raise entry.error("no 'bbox' and no 'segmentation'")
    return [x, y, x + width, y + height], score, label, mask


def _fields(truth: Annotations, detections: Sequence[Found]) -> Iterator[dict[str, Any]]:
    for picture, one in zip(truth.pictures, detections, strict=True):
        for row in range(len(one)):
            x0, y0, x1, y1 = one.boxes[row].tolist()
            fields: dict[str, Any] = {
                "image_id": picture.id,
                "category_id": truth.categories[one.labels[row]].id,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": float(one.scores[row]),
            }
            if one.masks is not None:
                mask = one.masks[row]
                fields["segmentation"] = {"size": list(mask["size"]), "counts": mask["counts"].decode()}
            yield fields
