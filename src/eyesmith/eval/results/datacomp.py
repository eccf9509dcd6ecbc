"""DataComp's `eval_results.jsonl`, and `info.json` beside it.

One object a line, added as each task finishes: `key`, `dataset` (the shown name), `metrics` with the reference's names
and `main_metric` (a fraction or null). The reference keeps the model's name in `info.pkl`; a pickle runs code when it
is read, so we neither read nor write it: `info.json` holds the name and facts of the model.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyesmith.errors import DataError
from eyesmith.eval.published.tables import FACTS, TEXT_FACTS
from eyesmith.eval.results.lines import append_objects, read_bytes, read_objects
from eyesmith.eval.results.models import ModelResults, TaskRecord, key_of, number
from eyesmith.eval.sets import TASKS
from eyesmith.files import load_json, write_json

EVAL_RESULTS_FILE = "eval_results.jsonl"
INFO_FILE = "info.json"
MAIN = "main_metric"
CONFIG_FILE = "config.json"  # of a run folder
_VARIANTS = {"precision": "fp32", "wording": None, "limit": None}  # of one model, with what is usual


def append_eval_result(
    path: str | os.PathLike[str], *, key: str, name: str, metrics: Mapping[str, float | None], main: float | None
) -> None:
    """Add one task's line to `eval_results.jsonl`, whole or not at all. NaN and infinity are written as null."""
    written: dict[str, Any] = {metric: _json_number(value) for metric, value in metrics.items() if metric != MAIN}
    append_objects(path, [{"key": key, "dataset": name, "metrics": written | {MAIN: _json_number(main)}}])


def read_eval_results(path: str | os.PathLike[str]) -> dict[str, TaskRecord]:
    """Records of an `eval_results.jsonl` by task key; of a key that comes twice, the last.

    A half last line is left out. Raises DataError for a line of another form.
    """
    records: dict[str, TaskRecord] = {}
    for line_number, entry in read_objects(path):
        where = f"{path}: line {line_number}"
        metrics = entry.get("metrics")
        if not isinstance(entry.get("dataset"), str) or not isinstance(metrics, dict):
            raise DataError(f"{where}: expected an object with key, dataset and metrics; got {', '.join(entry)}")
        name = entry["dataset"]
        key = entry.get("key") if isinstance(entry.get("key"), str) else None
        key = key or next((task.key for task in TASKS.values() if task.name == name), name)
        numbers = {
            metric: number(value, f"{where}, {metric}")
            for metric, value in metrics.items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        }
        main = numbers.pop(MAIN, None)
        run = entry.get("run")  # ours: what the numbers depend on
        images = run.get("images") if isinstance(run, dict) else None
        key, data = key_of(key, run if isinstance(run, dict) else None)
        records.pop(key, None)
        records[key] = TaskRecord(
            key=key,
            name=key if data else name,
            metrics=numbers,
            main_metric=_main_metric(key, main, numbers),
            main=main,
            images=images if isinstance(images, int) else None,
            data=data,
        )
    return records


def _main_metric(key: str, main: float | None, metrics: Mapping[str, float | None]) -> str | None:
    """Of a set that is no task of ours, the first metric with the main one's value."""
    if key in TASKS or main is None:
        return TASKS[key].metric if main is not None else None
    return next((name for name, value in metrics.items() if value == main), None)


def write_info(folder: str | os.PathLike[str], *, model: str, pretrained: str = "", **facts: float | str) -> Path:
    """Write `info.json` into a result folder: the model's name, the tag of its weights, and facts for plots.

    facts: any of image_px, image_params_m, text_params_m, image_gmacs, text_gmacs, samples_b, data, precision; or
    params_m and gmacs of both towers together. Raises DataError for another name.
    """
    unknown = [name for name in facts if name not in FACTS]
    if unknown:
        raise DataError(f"{INFO_FILE}: unknown fact {unknown[0]!r}; there are: {', '.join(FACTS)}")
    target = Path(folder) / INFO_FILE
    write_json(target, {"model": model, "pretrained": pretrained, **facts})
    return target


def read_info(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of `info.json`; {} where there is none. Raises DataError for one that is damaged."""
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        return {}
    try:
        info = load_json(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error}); remove it, or write it anew") from None
    if not isinstance(info, dict):
        raise DataError(f"{path}: expected an object with model and facts, got {type(info).__name__}")
    for name in ("model", "pretrained", *TEXT_FACTS):
        if name in info and not isinstance(info[name], str):
            raise DataError(f"{path}: {name!r} must be text, got {info[name]!r}")
    for name in set(FACTS) - set(TEXT_FACTS):
        if name in info:
            number(info[name], f"{path}: {name!r}")
    return info


def read_result_folder(folder: str | os.PathLike[str]) -> ModelResults:
    """The model of a folder with an `eval_results.jsonl`: named by `info.json`, else by the lines, else by the folder.

    The reference's lines name no model; ours say what they depend on in `run`.
    """
    folder = Path(folder)
    path = folder / EVAL_RESULTS_FILE
    info, run = read_info(folder), _run_of_lines(path)
    model = run.get("model") if isinstance(run.get("model"), str) else None
    return ModelResults(
        model=info.get("model") or model or folder.resolve().name,
        pretrained=info.get("pretrained", ""),
        source=str(path),
        **origin(path, run, info),
        facts={name: info[name] for name in FACTS if info.get(name) is not None},
        records=read_eval_results(path),
    )


def origin(path: Path, run: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """identity, variant, home and label of the model of a result file, as `ModelResults` has them.

    run: what the file says was measured, {} for nothing. The home is the run folder that the file says, or lies in. A
    line is called by the user's label, the name and tag a user wrote into info.json, or its home.
    """
    source = str(run.get("source") or "")
    folder = path.parent
    beside = next((place for place in (folder, folder.parent) if (place / CONFIG_FILE).is_file()), None)
    home = str(Path(source)) if source and not source.startswith("hf:") else source
    home = home or ("" if beside is None else str(beside if str(beside) != "." else beside.resolve().name))
    found = {"identity": "", "variant": "", "home": home, "label": ""}
    if isinstance(run.get("weights"), str):
        facts = [run.get(name) for name in ("weights", "architecture", "preprocess", *_VARIANTS)]
        found["identity"] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        unusual = [f"{name} {run[name]}" for name, usual in _VARIANTS.items() if run.get(name) not in (None, usual)]
        found["variant"] = ", ".join(unusual)
    is_named = bool(info.get("pretrained")) or info.get("model") not in (None, "", run.get("model"))
    is_folder = beside is not None or Path(source).is_dir()
    found["label"] = str(run.get("label") or "") or ("" if is_named or not is_folder else home)
    return found


def _run_of_lines(path: Path) -> dict[str, Any]:
    """What the last line says was measured; {} for files of others."""
    runs = [entry["run"] for _, entry in read_objects(path) if isinstance(entry.get("run"), dict)]
    return runs[-1] if runs else {}


def _json_number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
