"""Results out of any file or folder that we know: ours, DataComp's, CLIP_benchmark's, open_clip's."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eyesmith.errors import DataError
from eyesmith.eval.published.tables import FACTS
from eyesmith.eval.results.clip_benchmark import is_run, read_run, read_runs_csv
from eyesmith.eval.results.datacomp import (
    CONFIG_FILE,
    EVAL_RESULTS_FILE,
    origin,
    read_eval_results,
    read_info,
    read_result_folder,
)
from eyesmith.eval.results.lines import read_bytes, read_objects, read_table
from eyesmith.eval.results.models import ModelResults, TaskRecord, key_of, merge, plain_keys, told_apart
from eyesmith.eval.results.open_clip import is_open_clip_header, read_open_clip_csv
from eyesmith.eval.results.rows import ResultRow, read_rows
from eyesmith.eval.sets import TASKS
from eyesmith.eval.sets.made import WHOLE
from eyesmith.files import load_json

RESULTS_FILE = "results.jsonl"
OWN = "own:"  # of the keys of a user's own sets
KINDS = (
    "eval_results.jsonl, results.jsonl, a CLIP_benchmark JSON or CSV, an open_clip CSV, or a folder with any of them"
)
# tasks for which the last word of a line's name says how the model was used: its map, crops, pictures of others
USED = ("boxes", "chat", "detect", "segment")
# the main metric of a set that is no task of a suite: the first of these that it has
PREFERRED = ("acc1", "mean_recall@1", "image_retrieval_recall@1", "group_score", "accuracy")


def read_results(paths: Sequence[str | os.PathLike[str]]) -> list[ModelResults]:
    """The models of all files and folders, in the order they come; what several files say of one model is joined.

    A folder is read with everything in it that is a result file, but not the folders below it. Sets of one name whose
    samples differ, such as two folders called `test`, are told apart by a mark behind it. Raises DataError for a path
    that is not there, holds no result, or is damaged.
    """
    found: list[ModelResults] = []
    for path in paths:
        found += _read(Path(path))
    return told_apart(plain_keys(merge(found)))


def read_result(path: str | os.PathLike[str]) -> list[ModelResults]:
    """The models of one file or folder. Raises DataError as `read_results` does."""
    return plain_keys(_read(Path(path)))


def _read(path: Path) -> list[ModelResults]:
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".csv":
        header, _ = read_table(path)
        return read_open_clip_csv(path) if is_open_clip_header(header) else read_runs_csv(path)
    if path.suffix == ".json":
        return [read_run(path)]
    if path.suffix == ".jsonl":
        return _read_lines(path)
    read_bytes(path)  # says so when there is no such file
    raise DataError(f"{path}: expected {KINDS}")


def _read_folder(folder: Path) -> list[ModelResults]:
    found: list[ModelResults] = []
    if (folder / RESULTS_FILE).is_file():
        found += _read_own(folder / RESULTS_FILE)
    if (folder / EVAL_RESULTS_FILE).is_file():
        named = read_result_folder(folder)
        if len({one.model for one in found}) == 1 and "model" not in read_info(folder):
            named = replace(named, model=found[0].model)
        found.append(named)
    found = merge(found)
    foreign: list[ModelResults] = []
    for path in sorted(folder.glob("*.json")):
        if is_run(_json(path)):
            foreign.append(read_run(path))
    for path in sorted(folder.glob("*.csv")):
        header, _ = read_table(path)
        if is_open_clip_header(header):
            foreign += read_open_clip_csv(path)
        elif {"dataset", "model", "pretrained", "task"} <= set(header):
            foreign += read_runs_csv(path)
    ours = found[0] if len(found) == 1 else None
    found += [
        replace(one, identity=ours.identity, home=ours.home) if ours and ours.full_name == one.full_name else one
        for one in foreign
    ]  # other programs' files beside ours are of our model
    if not found:
        raise DataError(f"{folder}: holds no result file; expected {KINDS}")
    return merge(found)


def _name_of_run(folder: Path) -> str | None:
    """The name of the model in a run folder's config; None where there is none."""
    config = _json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else None
    model = config.get("model") if isinstance(config, dict) else None
    name = model.get("name") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def _json(path: Path) -> object:
    try:
        return load_json(read_bytes(path))
    except ValueError:  # a folder may hold other things
        return None


def _read_lines(path: Path) -> list[ModelResults]:
    first = next(read_objects(path), None)
    if first is None:
        raise DataError(f"{path}: is empty")
    if "dataset" in first[1]:
        return [
            read_result_folder(path.parent)
            if path.name == EVAL_RESULTS_FILE
            else ModelResults(model=path.stem, source=str(path), records=read_eval_results(path))
        ]
    return _read_own(path)


def _read_own(path: Path) -> list[ModelResults]:
    """Models of a `results.jsonl`; of a (model, set, split, metric) that comes twice, the last line."""
    info = read_info(path.parent)
    grouped: dict[tuple[str, str], dict[tuple[str, str], ResultRow]] = {}
    origins: dict[tuple[str, str], dict[str, str]] = {}
    for row in read_rows(path):
        found = _as_used(row, origin(path, {"model": row.model, **(row.run or {})}, info))
        who = row.model, found["identity"]
        origins[who] = found
        rows = grouped.setdefault(who, {})
        rows.pop((_key(row), row.metric), None)  # the last line, in the place of the last
        rows[_key(row), row.metric] = row
    facts = {name: info[name] for name in FACTS if info.get(name) is not None}
    models = []
    for who, rows in grouped.items():
        tasks: dict[str, list[ResultRow]] = {}
        for row in rows.values():
            tasks.setdefault(_key(row), []).append(row)
        # of several names without weights only that of the run itself is the folder's
        is_other = len(grouped) > 1 and not who[1] and who[0] != _name_of_run(path.parent)
        models.append(
            ModelResults(
                model=who[0],
                pretrained=info.get("pretrained", "") if info.get("model") == who[0] else "",
                source=str(path),
                facts=facts if len(grouped) == 1 else {},
                records={key: _record(key, own) for key, own in tasks.items()},
                **(origins[who] | ({"home": "", "label": ""} if is_other else {})),
            )
        )
    return models


def _as_used(row: ResultRow, found: dict[str, str]) -> dict[str, str]:
    """Where a line is from, so that one model used in two ways is two: neither has the other's numbers."""
    if row.task not in USED or not found["identity"]:
        return found
    words = row.model.split()
    identity = hashlib.sha256(f"{found['identity']} {row.model}".encode()).hexdigest()[:24]
    variant = ", ".join(part for part in (words[-1] if len(words) > 1 else "", found["variant"]) if part)
    return found | {"identity": identity, "variant": variant}


def _key(row: ResultRow) -> str:
    """As `eval_results.jsonl` calls the task, so that a set which both files have is one."""
    is_whole = row.task.startswith(OWN) and row.split in ("test", WHOLE)
    return key_of(row.task if row.task in TASKS or is_whole else f"{row.task}/{row.split}", row.run)[0]


def _record(key: str, rows: Sequence[ResultRow]) -> TaskRecord:
    by_metric = {row.metric: row for row in rows}
    wanted = (
        TASKS[key].metric if key in TASKS else next((name for name in PREFERRED if name in by_metric), rows[0].metric)
    )
    main = by_metric.get(wanted or "")
    images = (rows[-1].run or {}).get("images")
    return TaskRecord(
        key=key,
        name=TASKS[key].name if key in TASKS else key,
        metrics={metric: row.value for metric, row in by_metric.items()},
        main_metric=wanted if main else None,
        main=main.value if main else None,
        low=main.low if main else None,
        high=main.high if main else None,
        counts={metric: row.n for metric, row in by_metric.items()},
        chance=main.chance if main else None,
        images=images if isinstance(images, int) else None,
        data=key_of(key, rows[-1].run)[1],
    )
