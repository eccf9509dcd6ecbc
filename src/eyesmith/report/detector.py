"""A detector measured on a set of its own or another's: result lines, and the page of them with what each one costs."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations
from eyesmith.dense.detect import ObjectDetector
from eyesmith.dense.detect.predict import Source
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import decoders
from eyesmith.eval.located import detect_rows
from eyesmith.eval.results.rows import ResultRow
from eyesmith.models.identity import weights_hash
from eyesmith.report.located import Cost, write_located
from eyesmith.runs.machine import machine_facts
from eyesmith.tasks.detect import found_in, searched
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
    """The lines of `detect_rows` for each source, and the page at `page`, which shows what the first of them found.

    data: boxes, or boxes and masks; its names are what is looked for, and stay so. Those that the detector was not
    trained on count as novel. model: what lines and page call it. limit: pictures, spread evenly; 0 for all. A cost is
    seconds a picture, reading it among them, and the memory that the search adds at most. Raises DataError for whole
    classes in place of objects, and where no picture can be read.
    """
    if data.kind == "semantic":
        raise DataError(f"{data.name}: has whole classes, not single objects; a detector needs instances")
    seen = finder.use(data.names).seen(finder.trained).tolist()
    run = {
        "weights": weights_hash(finder.detector),
        "eye": finder.eye.identity(),
        "view": to_dict(finder.view),
        "predict": to_dict(finder.predict),
        "prompts": finder.prompts,
        "classes": len(data.categories),
        "data": data.name,
        "decoders": decoders(),
        "precision": "fp32",
    }
    rows, costs, shown = list[ResultRow](), list[Cost](), None
    for source in sources:
        began = time.perf_counter()
        (pictures, found), peak = added_memory_mib(
            lambda source=source: found_in(finder, data, (source,), most=limit), finder.device
        )
        seconds = (time.perf_counter() - began) / len(pictures)
        costs.append(Cost(setting=source, seconds=seconds, peak_bytes=int(peak * 2**20) or None))
        truth = searched(data, pictures, seen)
        shown = shown or (truth, found[source])
        rows += detect_rows(
            truth,
            found[source],
            model=model,
            setting=source,
            agnostic=found["agnostic"],
            masks=finder.detector.mask is not None,
            per_image=finder.predict.per_image,
            replicates=replicates,
            run=run,
        )
    assert shown is not None, "one source at least"
    facts = machine_facts()
    where = (
        facts["accelerator"] if finder.device.type == "cuda" else f"{facts['processor']}, {facts['threads']} threads"
    )
    write_located(
        Path(page), model=model, truth=shown[0], found=shown[1], rows=rows, costs=costs, machine=f"{where}, fp32"
    )
    return rows
