"""How well pictures of a set are cut into named segments: panoptic quality and mIoU, of parts of the classes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from eyesmith.data.annotations import VOID, Annotations
from eyesmith.dense.measuring import MeasuredFinder, facts, spread, with_novel
from eyesmith.dense.rows import squares
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, Segmented, Source
from eyesmith.dense.segment.run_folder import is_segmenter, load_segmenter
from eyesmith.errors import DataError
from eyesmith.eval import ResultRow
from eyesmith.eval.located import Found
from eyesmith.eval.located.panoptic import PanopticQuality
from eyesmith.eval.located.pixels import PixelScores
from eyesmith.eval.located.rows import as_one_class, segment_rows

AGNOSTIC = "agnostic"  # the quality of outlines, whatever they are called


class Searched(NamedTuple):
    """truth: the pictures that were read, where a class that was not learnt is novel; counts: what they add up to, and
    found: the segments of each, by source; none where they were not kept.
    """

    truth: Annotations
    counts: "dict[Source, Counts]"
    found: dict[Source, list[Found]]


def search(
    finder: PictureSegmenter, data: Annotations, sources: Sequence[Source], *, most: int = 0, keep: bool = False
) -> Searched:
    """Look for all names of a set, which stay the segmenter's. most: pictures, spread evenly; 0 for all.

    Novel are the classes of which training saw no synonym. keep: the segments too. Pictures that cannot be read are
    left out; DataError where all are. Of a set of whole classes nothing is counted, whatever it could be elsewhere: a
    class's segments are one, as its pixels are in the truth.
    """
    things = [one.is_thing and data.kind != "semantic" for one in data.categories]
    finder.use([(one.name, *one.synonyms) for one in data.categories], things)
    data = with_novel(data, (~finder.seen).tolist())
    counts: dict[Source, Counts] = {source: Counts(data) for source in sources}
    found: dict[Source, list[Found]] = {source: [] for source in sources}
    used: list[int] = []
    chosen = spread(len(data), most)
    for places, pixels, how in squares(data, chosen, finder.view.side_px, finder.clip.image.mean):
        answers = finder.search(pixels.to(finder.device), sources)
        for place, one, own in zip(places, answers, how, strict=True):
            picture = data.pictures[place]
            for source, answer in one.items():
                segmented = finder.finish(answer, own, (picture.height, picture.width))
                counts[source].add(place, segmented)
                if keep:
                    found[source].append(segmented.objects().to_found())
        used += places
    if not used:
        raise DataError(f"{data.name}: none of its pictures can be read")
    return Searched(data.some(used), counts, found)


def rows_of(
    finder: PictureSegmenter, searched: Searched, *, model: str, prefix: str = "", replicates: int = 500
) -> list[ResultRow]:
    """Lines of task `segment`, source by source. model: what they call it; prefix: before the splits.

    Where every pixel has a class or is void, mIoU is of the map of likeliest classes; where only things are marked, of
    the segments, and what is said of other pixels is wrong. `agnostic`: outlines, whatever they are called.
    """
    truth = searched.truth
    run = facts(finder, finder.head, truth)
    rows = [
        row
        for source, counted in searched.counts.items()
        for row in counted.rows(truth, model=f"{model} {source}", replicates=replicates, run=run)
    ]
    return [replace(row, split=prefix + row.split) for row in rows]


class MeasuredSegmenter(MeasuredFinder[PictureSegmenter, Searched]):
    """A segmenter, by panoptic quality."""

    kind = "segmenter"
    all_sources = get_args(Source)
    region = "mask"

    @classmethod
    def is_in(cls, folder: str | os.PathLike[str]) -> bool:
        return is_segmenter(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Self:
        return cls(load_segmenter(folder, device=device))

    def search(self, data: Annotations, source: Source, *, most: int = 0) -> Searched:
        return search(self.finder, data, (source,), most=most, keep=True)

    def rows(self, searched: Searched, *, model: str, replicates: int = 500) -> list[ResultRow]:
        return rows_of(self.finder, searched, model=model, replicates=replicates)


class Counts:
    """What the pictures of a set add up to, by one source."""

    def __init__(self, data: Annotations) -> None:
        self._data, self._outlined = data, as_one_class(data)
        self._quality, self._outlines = PanopticQuality(len(data.categories)), PanopticQuality(1)
        self._pixels = PixelScores(len(data.categories))

    def add(self, picture: int, found: Segmented) -> None:
        segments: NDArray[Any] = found.panoptic.ids.cpu().numpy() - 1  # VOID where nothing is
        labels = np.array([one.label for one in found.panoptic.segments], np.int64)
        self._quality.add_picture(self._data, picture, segments, labels)
        self._outlines.add_picture(self._outlined, picture, segments, labels * 0)
        if self._data.kind == "instances":
            classes = np.append(labels, VOID)[segments]
        else:
            classes = found.semantic().cpu().numpy()
        self._pixels.add_picture(self._data, picture, classes)

    def rows(self, part: Annotations, *, model: str, replicates: int, run: Mapping[str, Any] | None) -> list[ResultRow]:
        """part: the pictures that were added."""
        found = segment_rows(
            part, model=model, quality=self._quality, pixels=self._pixels, replicates=replicates, run=run
        )
        one_class = as_one_class(part)
        outlines = segment_rows(one_class, model=model, quality=self._outlines, replicates=replicates, run=run)
        return [*found, *(replace(row, split=AGNOSTIC) for row in outlines if row.split == "all")]
