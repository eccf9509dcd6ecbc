"""What a detector finds in pictures with boxes, and how good that is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations
from eyesmith.dense.detect.object_detector import AGNOSTIC, ObjectDetector
from eyesmith.dense.detect.predict import Source
from eyesmith.dense.rows import squares
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import decoders
from eyesmith.eval.located import Found, detect_rows
from eyesmith.eval.results.rows import ResultRow


class FoundInSet(NamedTuple):
    """data: the pictures that were read, where a class that the detector did not learn is novel; found: of each, by
    source and for `AGNOSTIC`.
    """

    data: Annotations
    found: Mapping[str, list[Found]]
    finder: ObjectDetector

    def rows(self, name: str, *, weights: str, has_masks: bool) -> list[ResultRow]:
        """Lines of task `detect`, source by source. name: of the model; weights: hash of the head's."""
        finder = self.finder
        run = {
            "weights": weights,
            "eye": finder.eye.identity(),
            "view": to_dict(finder.view),
            "predict": to_dict(finder.predict),
            "prompts": finder.prompts,
            "classes": len(self.data.categories),
            "decoders": decoders(),
            "precision": "fp32",
        }
        return [
            row
            for source, found in self.found.items()
            if source != AGNOSTIC
            for row in detect_rows(
                self.data,
                found,
                model=name,
                setting=source,
                agnostic=self.found[AGNOSTIC],
                masks=has_masks,
                per_image=finder.predict.per_image,
                run=run,
            )
        ]


def find_in_set(finder: ObjectDetector, data: Annotations, sources: tuple[Source, ...], *, most: int = 0) -> FoundInSet:
    """Look for the classes of a set in its pictures. most: pictures, spread evenly; 0 for all.

    Pictures that cannot be read are left out; DataError where all are.
    """
    seen = finder.use(data.names).seen(finder.trained).tolist()
    step = max(1, -(-len(data) // most)) if most else 1
    pictures, found = list[int](), {name: list[Found]() for name in (*sources, AGNOSTIC)}
    for places, pixels, how in squares(data, range(0, len(data), step), finder.view.side_px, finder.clip.image.mean):
        pictures += places
        for one in finder.search(pixels.to(finder.device), how, sources):
            for name, detections in one.items():
                found[name].append(detections.to_found())
    if not pictures:
        raise DataError(f"{data.name}: none of its pictures can be read")
    categories = [replace(one, is_novel=not known) for one, known in zip(data.categories, seen, strict=True)]
    chosen = replace(
        data,
        categories=tuple(categories),
        pictures=[data.pictures[place] for place in pictures],
        read=lambda place: data.objects(pictures[place]),
    )
    return FoundInSet(chosen, found, finder)
