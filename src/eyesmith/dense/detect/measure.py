"""What a detector finds in the pictures of a set, and how good that is: average precision of parts of the classes."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self, get_args

import torch

from eyesmith.data.annotations import Annotations
from eyesmith.dense.detect.object_detector import AGNOSTIC, ObjectDetector
from eyesmith.dense.detect.predict import Source
from eyesmith.dense.detect.run_folder import is_detector, load_detector
from eyesmith.dense.measuring import MeasuredFinder, facts, spread, with_novel
from eyesmith.dense.rows import squares
from eyesmith.errors import DataError
from eyesmith.eval.located import Found, detect_rows
from eyesmith.eval.results.rows import ResultRow


class Searched(NamedTuple):
    """truth: the pictures that were read, where a class that was not learnt is novel; found: of each of them, by source
    and by `AGNOSTIC`.
    """

    truth: Annotations
    found: dict[str, list[Found]]


def search(finder: ObjectDetector, data: Annotations, sources: Sequence[Source], *, most: int = 0) -> Searched:
    """Look for all names of a set, which stay the detector's. most: pictures, spread evenly; 0 for all.

    Pictures that cannot be read are left out. Raises DataError where all are, and for whole classes in place of
    objects.
    """
    check_instances(data)
    novel = (~finder.use(data.names).seen(finder.trained)).tolist()
    chosen = spread(len(data), most)
    used, found = list[int](), {name: list[Found]() for name in (*sources, AGNOSTIC)}
    for places, pixels, how in squares(data, chosen, finder.view.side_px, finder.clip.image.mean):
        used += places
        for one in finder.search(pixels.to(finder.device), how, sources):
            for name, detections in one.items():
                found[name].append(detections.to_found())
    if not used:
        raise DataError(f"{data.name}: none of its pictures can be read")
    return Searched(with_novel(data, novel).some(used), found)


def check_instances(data: Annotations) -> None:
    """Raise DataError for a set that has whole classes in place of objects."""
    if data.kind == "semantic":
        raise DataError(f"{data.path}: has whole classes, not single objects; a detector needs instances")


def rows_of(
    finder: ObjectDetector, searched: Searched, *, model: str, prefix: str = "", replicates: int = 500
) -> list[ResultRow]:
    """Lines of task `detect`, source by source. model: what they call it; prefix: before the splits."""
    truth = searched.truth
    run = facts(finder, finder.detector, truth)
    rows = [
        row
        for source, found in searched.found.items()
        if source != AGNOSTIC
        for row in detect_rows(
            truth,
            found,
            model=model,
            setting=source,
            agnostic=searched.found[AGNOSTIC],
            masks=finder.detector.mask is not None,
            per_image=finder.predict.per_image,
            replicates=replicates,
            run=run,
        )
    ]
    return [replace(row, split=prefix + row.split) for row in rows]


class MeasuredDetector(MeasuredFinder[ObjectDetector, Searched]):
    """A detector, by average precision of boxes."""

    kind = "detector"
    all_sources = get_args(Source)
    region = "box"

    @classmethod
    def is_in(cls, folder: str | os.PathLike[str]) -> bool:
        return is_detector(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Self:
        return cls(load_detector(folder, device=device))

    def search(self, data: Annotations, source: Source, *, most: int = 0) -> Searched:
        return search(self.finder, data, (source,), most=most)

    def rows(self, searched: Searched, *, model: str, replicates: int = 500) -> list[ResultRow]:
        return rows_of(self.finder, searched, model=model, replicates=replicates)
