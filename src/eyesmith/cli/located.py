"""`eyesmith eval` of a detector: average precision on pictures with boxes, and a page of what was found."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from eyesmith.cli.output import console, print_json, say
from eyesmith.data.annotations import Annotations, open_annotations
from eyesmith.dense.detect import ObjectDetector, load_detector
from eyesmith.dense.detect.measure import find_in_set
from eyesmith.dense.detect.predict import Source
from eyesmith.dense.rows import squares
from eyesmith.errors import DataError
from eyesmith.eval.results.rows import ResultRow, as_line
from eyesmith.models.identity import weights_hash
from eyesmith.report.located import Cost, write_located
from eyesmith.report.terminal import splits_table
from eyesmith.runs.machine import machine_facts

_TIMED = 8  # pictures


def measure_detector(
    folder: str, path: str, splits: Sequence[str], page: Path, *, device: torch.device, limit: int | None, as_json: bool
) -> list[ResultRow]:
    """Every source of boxes that the eye can give, on each split; prints the lines and writes a page for each split.

    limit: pictures, spread evenly. Raises DataError for annotations without single objects.
    """
    finder = load_detector(folder, device=device)
    name, rows = Path(folder).resolve().name, list[ResultRow]()
    sources: tuple[Source, ...] = ("detector", "dense", "crop")
    if not finder.clip.image.is_mean_pooled:  # its map is in no space of texts
        sources = ("detector", "crop")
    for place, split in enumerate(splits or (None,)):
        data = open_annotations(path, split)
        if data.kind == "semantic":
            raise DataError(f"{path}: has whole classes, not single objects; a detector needs instances")
        found = find_in_set(finder, data, sources, most=limit or 0)
        some = found.rows(name, weights=weights_hash(finder.detector), has_masks=finder.detector.mask is not None)
        best = max((row for row in some if row.metric == "ap50" and row.split == "all"), key=lambda row: row.value)
        written = page if not place else page.with_stem(f"{page.stem}-{split}")
        write_located(
            written,
            model=name,
            truth=found.data,
            found=found.found[best.model.rpartition(" ")[2]],
            rows=some,
            costs=_costs(finder, found.data, sources),
            machine=_machine(),
        )
        if not as_json:
            for model in dict.fromkeys(row.model for row in some):
                console().print(splits_table([row for row in some if row.model == model]))
            say(f"what was found, picture by picture: {written}")
        rows += [replace(row, split=f"{split}:{row.split}") for row in some] if place else some
    if as_json:
        print_json([as_line(row) for row in rows])
    return rows


def _costs(finder: ObjectDetector, data: Annotations, sources: Sequence[Source]) -> list[Cost]:
    """Seconds of one picture alone, from its pixels on: the median of some, the first left out."""
    places = list(range(0, len(data), max(1, len(data) // (_TIMED + 1))))[: _TIMED + 1]
    return [Cost(setting=source, seconds=statistics.median(_times(finder, data, places, source))) for source in sources]


def _times(finder: ObjectDetector, data: Annotations, places: Sequence[int], source: Source) -> Iterator[float]:
    for number, place in enumerate(places):
        for _, pixels, how in squares(data, [place], finder.view.side_px, finder.clip.image.mean):
            began = time.perf_counter()
            finder.search(pixels.to(finder.device), how, (source,))
            if number or len(places) == 1:
                yield time.perf_counter() - began


def _machine() -> str:
    facts = machine_facts()
    return facts["accelerator"] or f"{facts['processor']}, {facts['threads']} threads"
