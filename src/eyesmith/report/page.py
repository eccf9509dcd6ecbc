"""The report of a run: one HTML file that needs nothing else."""

from pathlib import Path

from eyesmith.files import write_atomic
from eyesmith.report.gather import gather
from eyesmith.report.render import render

REPORT_FILE = "report.html"


def write_report(run: Path, *, baseline: Path | None, data: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder and return its path: `out`, or report.html in the run folder.

    baseline: the run folder to compare with; data: the data set both were evaluated on. The file appears whole or not
    at all. Works for runs without baseline, results or weights: the page says what is missing. Raises EyesmithError
    when there is no folder `run`.
    """
    target = out if out is not None else run / REPORT_FILE
    write_atomic(target, render(gather(run, baseline=baseline, data=data)))
    return target
