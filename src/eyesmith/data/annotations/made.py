"""Boxes and masks of made data sets that keep them in each sample's json: what `data make scenes` draws."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyesmith.data.annotations.entries import Entry, as_entries
from eyesmith.data.annotations.masks import Runs
from eyesmith.data.annotations.pictures import SourcePictures
from eyesmith.data.annotations.types import Annotations, Category, Objects, Picture, empty_objects
from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source, read_description
from eyesmith.errors import DataError

_MAX_OBJECTS = 1000  # of a picture: ids of objects count on from picture to picture in steps of it


def read_made(folder: Path, split: str) -> Annotations:
    """Open a split of a made set by its samples' `objects` (name, box_px, mask_rle).

    A category is novel when dataset.json counts it among `held_out_concepts`. Raises DataError when dataset.json names
    no classes, or the samples have no objects.
    """
    facts = read_description(folder)
    names, held_out, size_px = facts.get("classes"), facts.get("held_out_concepts", []), facts.get("size_px")
    if not isinstance(names, list) or not names or not isinstance(size_px, int):
        raise DataError(f"{folder}: dataset.json names no classes and size_px; expected a set of `data make scenes`")
    source = open_source(folder, split=split, require_text=False)
    reader = _SampleReader(source, {str(name): label for label, name in enumerate(names)}, size_px)
    reader(0)  # a set without objects is refused here, not in the middle of a run
    return Annotations(
        name=f"{folder.name} {split}",
        kind="instances",
        form="made",
        path=folder,
        categories=tuple(
            Category(id=label + 1, name=str(name), is_novel=name in held_out) for label, name in enumerate(names)
        ),
        pictures=tuple(
            Picture(id=index + 1, file=key, width=size_px, height=size_px) for index, key in enumerate(source.keys)
        ),
        read=reader,
        images=SourcePictures(source),
    )


@dataclass(frozen=True)
class _SampleReader:
    source: Source
    labels: dict[str, int]
    size_px: int

    def __call__(self, index: int) -> Objects:
        sample = self.source[index]
        where = self.source.where(index)
        if "objects" not in sample.meta:
            raise DataError(f"{where}: its json has no 'objects'; expected a set of `data make scenes`")
        entries = list(as_entries(where, "objects", sample.meta["objects"]))
        if not entries:
            return empty_objects(self.size_px, self.size_px)
        shapes = tuple(self._shape(entry) for entry in entries)
        corners = np.array([entry.numbers("box_px", 4) for entry in entries], np.float64)  # [N, 4]
        return Objects(
            xywh=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1),
            labels=np.array([self._label(entry) for entry in entries], np.int64),
            crowd=np.zeros(len(entries), np.bool_),
            area=np.array([sum(shape.counts[1::2]) for shape in shapes], np.float64),
            ids=index * _MAX_OBJECTS + np.arange(1, len(entries) + 1),
            shapes=shapes,
            height=self.size_px,
            width=self.size_px,
        )

    def _label(self, entry: Entry) -> int:
        name = entry.get("name", str)
        if name not in self.labels:
            raise entry.error(f"name: {name!r} is no class of dataset.json")
        return self.labels[name]

    def _shape(self, entry: Entry) -> Runs:
        inner = Entry(f"{entry.where}: mask_rle", entry.get("mask_rle", dict))
        height, width = inner.numbers("size", 2)
        return Runs(int(height), int(width), tuple(int(one) for one in inner.numbers("counts")))
