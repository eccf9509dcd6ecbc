"""A detector or segmenter measured on a set of its own or another's: result lines, and the page of them with costs."""

import os
import time
from pathlib import Path
from typing import Any

from eyesmith.data.annotations import Annotations
from eyesmith.dense.measuring import MeasuredFinder
from eyesmith.eval.results.rows import ResultRow
from eyesmith.report.located import Cost, main_metric, write_located
from eyesmith.runs.machine import machine_facts
from eyesmith.train.utilisation import added_memory_mib


def measure_finder(
    finder: MeasuredFinder[Any, Any],
    data: Annotations,
    page: str | os.PathLike[str],
    *,
    model: str,
    limit: int = 0,
    replicates: int = 500,
) -> list[ResultRow]:
    """The lines of each source, and the page at `page`, which shows the best of them and says which.

    data: boxes or masks for a detector; for a segmenter masks of things, of whole classes, or panoptic. Its names are
    what is looked for, and stay so; those that the finder was not trained on count as novel. model: what lines and page
    call it. limit: pictures, spread evenly; 0 for all. A cost is seconds a picture, reading it among them, and a
    segmenter's counting of pixels, and the memory that the search adds at most. Raises as `MeasuredFinder.search` does.
    """
    device, rows, costs = finder.finder.device, list[ResultRow](), list[Cost]()
    best, shown = -1.0, None
    for source in finder.sources:
        began = time.perf_counter()
        searched, peak = added_memory_mib(lambda source=source: finder.search(data, source, most=limit), device)
        seconds = (time.perf_counter() - began) / len(searched.truth)
        costs.append(Cost(setting=source, seconds=seconds, peak_bytes=int(peak * 2**20) or None))
        some = finder.rows(searched, model=model, replicates=replicates)
        main = main_metric(data.kind, some)
        reached = max((row.value for row in some if (row.metric, row.split) == (main, "all")), default=0.0)
        if reached > best:
            best, shown = reached, (source, searched)
        rows += some
    assert shown is not None, "one source at least"
    source, searched = shown
    facts = machine_facts()
    where = (
        facts["accelerator"]
        if device.type == "cuda"
        else f"{facts['processor']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    )
    write_located(
        Path(page),
        model=f"{model} {source}",
        truth=searched.truth,
        found=searched.found[source],
        rows=rows,
        costs=costs,
        region=finder.region,
        machine=f"{where}, fp32",
    )
    return rows
