"""Boxes and masks of made scenes as COCO json, written from parts so that any number of scenes fits."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.files import atomic_path

ANNOTATIONS = "annotations"
MAX_OBJECTS = 16
"""Annotation ids count up by image in steps of this, so that they are known without counting."""


@dataclass(frozen=True, kw_only=True)
class CocoScene:
    """One image and its objects.

    number: from 0, over all splits. objects: each with `cls` (from 0), `box_px` ([x0, y0, x1, y1], ends exclusive) and
    `mask_rle` (uncompressed run lengths, column by column), as in the samples' json.
    """

    number: int
    file_name: str
    size_px: int
    objects: Sequence[Mapping[str, Any]]

    def image(self) -> dict[str, Any]:
        """Its entry among `images`."""
        return {"id": self.number + 1, "file_name": self.file_name, "width": self.size_px, "height": self.size_px}

    def annotations(self) -> list[dict[str, Any]]:
        """Its entries among `annotations`; `area` is that of the mask, in pixels."""
        return [
            {
                "id": self.number * MAX_OBJECTS + place + 1,
                "image_id": self.number + 1,
                "category_id": one["cls"] + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": sum(one["mask_rle"]["counts"][1::2]),
                "segmentation": one["mask_rle"],
                "iscrowd": 0,
            }
            for place, one in enumerate(self.objects)
            for x0, y0, x1, y1 in (one["box_px"],)
        ]


def categories(names: Sequence[str], kinds: Sequence[str], novel: Iterable[str]) -> list[dict[str, Any]]:
    """COCO's categories, id = class + 1. kinds: their supercategories. `split` says "base" or "novel" of each."""
    held_out = frozenset(novel)
    return [
        {"id": place + 1, "name": name, "supercategory": kind, "split": "novel" if name in held_out else "base"}
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]


def write_coco(
    folder: Path,
    split: str,
    *,
    name: str,
    categories: Sequence[Mapping[str, Any]],
    images: Iterable[str],
    annotations: Iterable[str],
    licences: Iterable[str],
) -> None:
    """Write `annotations/SPLIT.json` under `folder`. images, annotations: JSON objects as text, one after the other.

    name: of the data set. licences: of the drawings in it.
    """
    path = folder / ANNOTATIONS / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"description": f"{name}, split {split}"}
    rights = [{"id": place + 1, "name": name} for place, name in enumerate(licences)]
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f'{{"info": {json.dumps(head)}, "licenses": {json.dumps(rights)},\n')
        stream.write(f'"categories": {json.dumps(list(categories))},\n"images": [')
        stream.writelines(_joined(images))
        stream.write('],\n"annotations": [')
        stream.writelines(_joined(annotations))
        stream.write("]}\n")


def _joined(items: Iterable[str]) -> Iterator[str]:
    for place, item in enumerate(items):
        yield f",\n{item}" if place else f"\n{item}"
