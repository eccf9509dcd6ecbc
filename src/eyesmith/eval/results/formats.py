"""The results of a run in the files of other evaluators, beside our own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.eval.published.tables import FACTS
from eyesmith.eval.results import (
    read_info,
    read_result_folder,
    run_task,
    write_info,
    write_results_csv,
    write_retrieval_csv,
    write_run,
    write_runs_csv,
)
from eyesmith.eval.results.datacomp import INFO_FILE
from eyesmith.eval.results.task_result import TaskResult
from eyesmith.eval.sets import TASKS
from eyesmith.models.clip import Clip
from eyesmith.models.cost import model_cost

Format = Literal["clip_benchmark", "open_clip"]

RUNS, RUNS_CSV = "clip_benchmark", "clip_benchmark.csv"
RESULTS_CSV, RETRIEVAL_CSV = "openclip_results.csv", "openclip_retrieval_results.csv"


def write_formats(
    out: Path, formats: Sequence[Format], results: Sequence[TaskResult], *, note: Callable[[str], None]
) -> list[Path]:
    """Write `results`, whose own files lie in the folder `out`, in other formats too; returns what was written.

    clip_benchmark: a JSON file a task below `out`/clip_benchmark, and the table of its `build`. open_clip: the tables
    of 38 data sets and of retrieval. note: told of a table that has to be left out, and what is lacking.
    """
    written: list[Path] = []
    model = read_result_folder(out)
    if "clip_benchmark" in formats:
        runs = []
        for result in results:
            task = TASKS.get(result.key)
            if not result.is_measured or task is None:
                continue
            language = str((result.facts or {}).get("wording") or "en").partition(":")[0]
            runs.append(
                write_run(
                    out / RUNS,
                    dataset=f"wds/{result.key}",
                    model=model.model,
                    pretrained=model.pretrained,
                    task=run_task(task),
                    metrics=result.metrics,
                    language=language,
                )
            )
        if runs:
            write_runs_csv(out / RUNS_CSV, runs)
            written += [out / RUNS, out / RUNS_CSV]
    if "open_clip" in formats:
        for file, write in ((RESULTS_CSV, write_results_csv), (RETRIEVAL_CSV, write_retrieval_csv)):
            try:
                write(out / file, [model])
            except DataError as error:
                note(f"no {file}: {error}")
            else:
                written.append(out / file)
    return written


def write_model_info(out: Path, clip: Clip, *, name: str, precision: str) -> None:
    """Write `info.json` with what plots need of the model; facts that a user added before (samples_b, data) stay."""
    known = read_info(out)
    if known.get("model", name) != name:
        known = {}
    facts: dict[str, Any] = {key: known[key] for key in FACTS if known.get(key) is not None}
    if isinstance(clip, Clip):
        facts |= {
            "image_px": max(clip.preprocess.image_size),
            "image_params_m": sum(one.numel() for one in clip.image.parameters()) / 1e6,
            "text_params_m": sum(one.numel() for one in clip.text.parameters()) / 1e6,
            **_macs(clip),
        }
    content = {"model": name, "pretrained": known.get("pretrained", ""), **facts, "precision": precision}
    if content != known or not (out / INFO_FILE).is_file():
        write_info(out, **content)


def _macs(clip: Clip) -> dict[str, float]:
    # by the ViTamin paper's count, as its printed lines, which stand beside them
    try:
        cost = model_cost(clip.config)
    except MissingDependencyError:
        return {}
    towers = {"image_gmacs": cost.image and cost.image.tower, "text_gmacs": cost.text}
    return {name: tower.macs_paper / 1e9 for name, tower in towers.items() if tower is not None}
