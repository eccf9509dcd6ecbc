"""How well pictures of a set are cut into named segments: panoptic quality and mIoU, of parts of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import VOID, Annotations
from eyesmith.dense.rows import squares
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, Segmented, Source
from eyesmith.errors import DataError
from eyesmith.eval import ResultRow
from eyesmith.eval.located.panoptic import PanopticQuality
from eyesmith.eval.located.pixels import PixelScores
from eyesmith.eval.located.rows import as_one_class, segment_rows

AGNOSTIC = "agnostic"  # the quality of outlines, whatever they are called


def measure(
    finder: PictureSegmenter,
    data: Annotations,
    sources: Sequence[Source],
    *,
    model: str,
    prefix: str = "",
    most: int = 0,
    replicates: int = 500,
    run: Mapping[str, Any] | None = None,
) -> list[ResultRow]:
    """What a segmenter reaches on a set with all its names, by each source: rows of task `segment`.

    Novel are the classes of which training saw no synonym. Where every pixel has a class or is void, mIoU is of the map
    of likeliest classes; where only things are marked, of the segments, and what is said of other pixels is wrong.
    `agnostic`: outlines, whatever they are called. most: pictures, spread evenly; 0 for all. Pictures that cannot be
    read are left out; DataError where all are.
    """
    categories = data.categories
    finder.use([(one.name, *one.synonyms) for one in categories], [one.is_thing for one in categories])
    novel = (~finder.seen).tolist()
    data = replace(
        data, categories=tuple(replace(one, is_novel=new) for one, new in zip(categories, novel, strict=True))
    )
    step = max(1, -(-len(data) // most)) if most else 1
    counts = {source: _Counts(data) for source in sources}
    used: list[int] = []
    for places, pixels, how in squares(data, range(0, len(data), step), finder.view.side_px, finder.clip.image.mean):
        answers = finder.search(pixels.to(finder.device), sources)
        for place, one, own in zip(places, answers, how, strict=True):
            picture = data.pictures[place]
            for source, answer in one.items():
                counts[source].add(place, finder.finish(answer, own, (picture.height, picture.width)))
        used += places
    if not used:
        raise DataError(f"{data.name}: none of its pictures can be read")
    part = data.some(used)
    rows: list[ResultRow] = []
    for source, counted in counts.items():
        rows += counted.rows(part, model=f"{model} {source}", replicates=replicates, run=run)
    return [replace(row, split=prefix + row.split) for row in rows]


class _Counts:
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
