"""A detector measured on a set of its own or another's: result lines, and the page of them with what each one costs."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from eyesmith.data.annotations import Annotations
from eyesmith.dense.detect import ObjectDetector
from eyesmith.dense.detect.measure import rows_of, search
from eyesmith.dense.detect.predict import Source
from eyesmith.eval.results.rows import ResultRow
from eyesmith.report.located import Cost, write_located
from eyesmith.runs.machine import machine_facts
from eyesmith.train.utilisation import added_memory_mib


def measure_detector(
    finder: ObjectDetector,
    data: Annotations,
    page: str | os.PathLike[str],
    *,
    model: str,
    sources: Sequence[Source],
    limit: int = 0,
    replicates: int = 500,
) -> list[ResultRow]:
    """The lines of `detect_rows` for each source, and the page at `page`, which shows the best of them and says which.

    data: boxes, or boxes and masks; its names are what is looked for, and stay so. Those that the detector was not
    trained on count as novel. model: what lines and page call it. limit: pictures, spread evenly; 0 for all. A cost is
    seconds a picture, reading it among them, and the memory that the search adds at most. Raises DataError for whole
    classes in place of objects, and where no picture can be read.
    """
    rows, costs = list[ResultRow](), list[Cost]()
    best, shown = -1.0, None
    for source in sources:
        began = time.perf_counter()
        searched, peak = added_memory_mib(
            lambda source=source: search(finder, data, (source,), most=limit), finder.device
        )
        seconds = (time.perf_counter() - began) / len(searched.truth)
        costs.append(Cost(setting=source, seconds=seconds, peak_bytes=int(peak * 2**20) or None))
        some = rows_of(finder, searched, model=model, replicates=replicates)
        reached = max((row.value for row in some if (row.metric, row.split) == ("ap50", "all")), default=0.0)
        if reached > best:
            best, shown = reached, (f"{model} {source}", searched.truth, searched.found[source])
        rows += some
    assert shown is not None, "one source at least"
    name, truth, found = shown
    facts = machine_facts()
    where = (
        facts["accelerator"] if finder.device.type == "cuda" else f"{facts['processor']}, {facts['threads']} threads"
    )
    write_located(Path(page), model=name, truth=truth, found=found, rows=rows, costs=costs, machine=f"{where}, fp32")
    return rows
