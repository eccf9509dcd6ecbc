"""A detector or segmenter measured on a set of its own or another's: result lines, and the page of them with costs."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eyesmith.data.annotations import Annotations
from eyesmith.dense.detect import ObjectDetector
from eyesmith.dense.detect import measure as detecting
from eyesmith.dense.detect.predict import Source as DetectSource
from eyesmith.dense.segment import PictureSegmenter
from eyesmith.dense.segment import measure as segmenting
from eyesmith.dense.segment.picture_segmenter import Source as SegmentSource
from eyesmith.eval.located import Found
from eyesmith.eval.located.precision import Region
from eyesmith.eval.results.rows import ResultRow
from eyesmith.report.located import Cost, write_located
from eyesmith.runs.machine import machine_facts
from eyesmith.train.utilisation import added_memory_mib


class _Looked(NamedTuple):
    """By one source: the pictures that were read, what was found in each of them, and what makes lines of it."""

    truth: Annotations
    found: Sequence[Found]
    lines: Callable[[], list[ResultRow]]


def measure_detector(
    finder: ObjectDetector,
    data: Annotations,
    page: str | os.PathLike[str],
    *,
    model: str,
    sources: Sequence[DetectSource],
    limit: int = 0,
    replicates: int = 500,
) -> list[ResultRow]:
    """The lines of `detect_rows` for each source, and the page at `page`, which shows the best of them and says which.

    data: boxes, or boxes and masks; its names are what is looked for, and stay so. Those that the detector was not
    trained on count as novel. model: what lines and page call it. limit: pictures, spread evenly; 0 for all. A cost is
    seconds a picture, reading it among them, and the memory that the search adds at most. Raises DataError for whole
    classes in place of objects, and where no picture can be read.
    """

    def look(source: DetectSource) -> _Looked:
        searched = detecting.search(finder, data, (source,), most=limit)
        lines = partial(detecting.rows_of, finder, searched, model=model, replicates=replicates)
        return _Looked(searched.truth, searched.found[source], lines)

    return _with_page(look, sources, Path(page), model=model, shown_by="ap50", region="box", device=finder.device)


def measure_segmenter(
    finder: PictureSegmenter,
    data: Annotations,
    page: str | os.PathLike[str],
    *,
    model: str,
    sources: Sequence[SegmentSource],
    limit: int = 0,
    replicates: int = 500,
) -> list[ResultRow]:
    """The same for a segmenter: the lines of `segment_rows`, and the page of its segments.

    data: masks of things, of whole classes, or panoptic. A cost is with the counting of pixels.
    """

    def look(source: SegmentSource) -> _Looked:
        searched = segmenting.search(finder, data, (source,), most=limit, keep=True)
        lines = partial(segmenting.rows_of, finder, searched, model=model, replicates=replicates)
        return _Looked(searched.truth, searched.found[source], lines)

    return _with_page(look, sources, Path(page), model=model, shown_by="pq", region="mask", device=finder.device)


def _with_page(
    look: Callable[[Any], _Looked],
    sources: Sequence[str],
    page: Path,
    *,
    model: str,
    shown_by: str,
    region: Region,
    device: torch.device,
) -> list[ResultRow]:
    """look: searches all pictures by a source, which is what costs. shown_by: the metric whose value on all classes
    decides which source is shown.
    """
    rows, costs = list[ResultRow](), list[Cost]()
    best, shown = -1.0, None
    for source in sources:
        began = time.perf_counter()
        looked, peak = added_memory_mib(lambda source=source: look(source), device)
        seconds = (time.perf_counter() - began) / len(looked.truth)
        costs.append(Cost(setting=source, seconds=seconds, peak_bytes=int(peak * 2**20) or None))
        some = looked.lines()
        reached = max((row.value for row in some if (row.metric, row.split) == (shown_by, "all")), default=0.0)
        if reached > best:
            best, shown = reached, (f"{model} {source}", looked)
        rows += some
    assert shown is not None, "one source at least"
    name, looked = shown
    facts = machine_facts()
    where = (
        facts["accelerator"]
        if device.type == "cuda"
        else f"{facts['processor']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    )
    write_located(
        page,
        model=name,
        truth=looked.truth,
        found=looked.found,
        rows=rows,
        costs=costs,
        region=region,
        machine=f"{where}, fp32",
    )
    return rows
