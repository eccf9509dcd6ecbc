"""Run folders and a data set in, report data out. What is missing or broken becomes a notice, never a traceback."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyesmith.data.shards import DATASET_FILE
from eyesmith.data.sources import open_source
from eyesmith.errors import EyesmithError
from eyesmith.eval.results.reading import USED
from eyesmith.eval.results.rows import ResultRow, read_rows
from eyesmith.eval.sets.made import WHOLE, choose_splits
from eyesmith.files import load_json
from eyesmith.hub.load import load_clip
from eyesmith.hub.run_folder import CONFIG_FILE, MODEL_FILE
from eyesmith.models.clip import Clip
from eyesmith.report import predictions as predicting
from eyesmith.report.content import (
    Curve,
    DataFacts,
    Interval,
    ReportData,
    Role,
    RunFacts,
    Score,
    SourceFacts,
    SplitFacts,
)
from eyesmith.report.measured import splits_in_order
from eyesmith.report.run_log import RunLog, read_log
from eyesmith.report.words import split_title

RESULTS_FILE = "results.jsonl"
SOFTWARE = ("python", "torch")  # what the log keeps with the machine and is none of it
# asked of every model of a kind of data, chosen before any was trained; most are no class name
QUERIES: dict[str, tuple[str, ...]] = {
    "emoji": (
        "something you can drink",
        "an animal that lives in the sea",
        "a bird",
        "a sweet dessert",
        "a yellow fruit",
        "an insect",
        "a dangerous animal",
        "cat",
    ),
    "scenes": (
        "a red circle",
        "something with stripes",
        "a star and nothing else",
        "two things side by side",
        "a small thing above a large thing",
    ),
}
NUM_CLASS_QUERIES = 4  # for other data: as many of its class names, evenly spaced


def gather(run: Path, *, baseline: Path | None, data: Path) -> ReportData:
    """Everything the report shows.

    run, baseline: run folders, finished or not; data: the data set they were evaluated on. Only a missing run folder
    is an error (DataError of the reading functions, or EyesmithError); all else that cannot be had is left out and
    told in `notices`.
    """
    if not run.is_dir():
        raise EyesmithError(f"{run}: no such run folder; give the folder that `eyesmith train` wrote")
    notices: list[str] = []
    ours, ours_log, clip = _run_facts(run, "ours", notices)
    other: RunFacts | None = None
    other_log, other_clip = RunLog(), None
    if baseline is None:
        notices.append("No baseline was trained, so there is nothing but chance to compare with.")
    elif not baseline.is_dir():
        notices.append(f"The baseline {baseline.name} is not there, so there is nothing but chance to compare with.")
    else:
        other, other_log, other_clip = _run_facts(baseline, "baseline", notices)
    facts, description = _data_facts(data, notices)
    rows = _of_run(_rows(run, notices), ours.name, notices)
    if not rows:
        notices.append("This run has no evaluation results yet: `eyesmith eval` writes them.")
    others = (
        _of_run(_rows(baseline, notices), other.name, notices) if other is not None and baseline is not None else []
    )
    scores = _scores(*_of_one_set(rows, others, data, notices))
    pairs = [(ours, ours_log)] + ([(other, other_log)] if other is not None else [])
    report: dict[str, Any] = {
        "ours": ours,
        "baseline": other,
        "data": facts,
        "scores": scores,
        "curves": tuple(_curve(run_facts, log) for run_facts, log in pairs),
    }
    if clip is not None:
        try:
            report |= _pictures(clip, other_clip, data, description)
        except EyesmithError as error:
            notices.append(f"The pictures could not be shown: {error}")
    return ReportData(**report, notices=tuple(notices))


def _run_facts(run: Path, role: Role, notices: list[str]) -> tuple[RunFacts, RunLog, Clip | None]:
    """Facts, log and (when the run is finished and its weights are whole) the model of one run folder."""
    config = _json(run / CONFIG_FILE, notices)
    log = read_log(run)
    if log.num_broken:
        notices.append(f"{log.num_broken} lines of the log of {run.name} cannot be read and were left out.")
    name = str(_at(config, "model", "name") or run.name)
    is_finished = (run / MODEL_FILE).is_file()
    clip: Clip | None = None
    if is_finished:
        try:
            clip = load_clip(run)
        except EyesmithError as error:
            notices.append(f"{name} could not be loaded, so what it sees is not shown: {error}")
    else:
        at = f" at step {log.steps:,}" if log.steps else ""
        notices.append(
            f"The run of {name} stopped{at} before its end and has no weights yet; `eyesmith resume` goes on."
        )
    settings = config.get("train")
    if log.skipped:
        notices.append(f"{name}: {log.skipped:,} training samples could not be used and were left out.")
    machine = [(key, value) for key, value in _flat(log.start.get("machine")) if value != "none"]
    versions = [("eyesmith", str(config["eyesmith_version"]))] if "eyesmith_version" in config else []
    versions += [pair for pair in machine if pair[0] in SOFTWARE]
    facts = RunFacts(
        role=role,
        name=name,
        folder=_shown_path(run),
        is_finished=is_finished,
        is_loaded=clip is not None,
        train_time_s=log.time_s,
        steps=log.steps,
        planned_steps=_whole(log.start.get("steps")),
        samples=log.samples,
        epochs=log.epochs,
        images_per_s=log.images_per_s,
        resumes=log.resumes,
        health=tuple(log.health),
        versions=tuple(versions),
        machine=tuple(pair for pair in machine if pair[0] not in SOFTWARE),
        settings=_flat(settings),
        **_parameters(clip, log.start.get("parameters")),
    )
    return facts, log, clip


def _parameters(clip: Clip | None, logged: object) -> dict[str, Any]:
    """Counts from the model itself, or from the log of a run without one. A frozen text tower is not trained."""
    if clip is None:
        counts = logged if isinstance(logged, Mapping) else {}
        return {f"{part}_params": _whole(counts.get(part)) for part in ("image", "text", "trained")}
    image = sum(parameter.numel() for parameter in clip.image.parameters())
    text = sum(parameter.numel() for parameter in clip.text.parameters())
    text_trained = sum(parameter.numel() for parameter in clip.text.parameters() if parameter.requires_grad)
    is_locked = clip.config.lock_text or text_trained == 0
    return {
        "image_params": image,
        "text_params": text,
        "trained_params": image + clip.logit_scale.numel() + (0 if is_locked else text_trained),
        "text_tower": "frozen" if is_locked else "trained too",
        "image_size_px": tuple(clip.preprocess.image_size),
    }


def _rows(run: Path, notices: list[str]) -> list[ResultRow]:
    if not (run / RESULTS_FILE).is_file():
        return []
    try:
        return read_rows(run / RESULTS_FILE)
    except EyesmithError as error:
        notices.append(f"The results of {run.name} cannot be read: {error}")
        return []


def _of_run(rows: list[ResultRow], name: str, notices: list[str]) -> list[ResultRow]:
    """Without the lines of other models where the run's own has one of the same task, split and metric."""
    own = {_said(row) for row in rows if _whose(row) == name}
    kept = [row for row in rows if _whose(row) == name or _said(row) not in own]
    if len(kept) < len(rows):
        notices.append(f"{len(rows) - len(kept)} results of other models in the folder of {name} were left out.")
    return kept


def _said(row: ResultRow) -> tuple[str, str, str]:
    """What a line is of. A model that is used in several ways says by the last word of its name in which."""
    way = f"_by_{row.model.rpartition(' ')[2]}" if row.task in USED and " " in row.model else ""
    return row.task + way, row.split, row.metric


def _whose(row: ResultRow) -> str:
    return row.model.rpartition(" ")[0] or row.model if row.task in USED else row.model


def _of_one_set(
    rows: list[ResultRow], others: list[ResultRow], data: Path, notices: list[str]
) -> tuple[list[ResultRow], list[ResultRow]]:
    """Both without the lines of other sets, where lines of one task and split are of several: those of `data` stay, of
    others the last of the run. A line that does not say its samples stays."""
    last: dict[tuple[str, str], str] = {}
    several: set[tuple[str, str]] = set()
    for row in (*others, *rows):
        samples = _samples(row)
        if samples and last.setdefault((row.task, row.split), samples) != samples:
            several.add((row.task, row.split))
            last[row.task, row.split] = samples
    if not several:
        return rows, others
    here = {split: _fingerprint(data, split) for split in {split for _, split in several}}
    said = {(row.task, row.split, _samples(row)) for row in (*rows, *others)}

    def is_kept(row: ResultRow) -> bool:
        key = row.task, row.split
        if key not in several or not _samples(row):
            return True
        wanted = here[row.split] if (*key, here[row.split]) in said else last[key]
        return _samples(row) == wanted

    kept = [row for row in rows if is_kept(row)], [row for row in others if is_kept(row)]
    lost = len(rows) + len(others) - len(kept[0]) - len(kept[1])
    notices.append(f"{lost} results of other data with splits of the same names were left out.")
    return kept


def _samples(row: ResultRow) -> str:
    return str((row.run or {}).get("samples") or "")


def _fingerprint(data: Path, split: str) -> str:
    """Of the samples of a split as they lie there now, "" where they cannot be opened."""
    try:
        return open_source(data, split=None if split == WHOLE else split, require_text=False).fingerprint()
    except EyesmithError:
        return ""


def _scores(rows: list[ResultRow], baseline_rows: list[ResultRow]) -> tuple[Score, ...]:
    """Rows of both, joined; of rows that say the same thing the last one holds."""
    ours = {_said(row): row for row in rows}
    other = {_said(row): row for row in baseline_rows}
    return tuple(
        Score(
            task=key[0],
            split=row.split,
            metric=row.metric,
            ours=Interval(value=row.value, low=row.low, high=row.high),
            baseline=Interval(value=other[key].value, low=other[key].low, high=other[key].high)
            if key in other
            else None,
            chance=row.chance,
            num_samples=row.n,
        )
        for key, row in ours.items()
    )


def _curve(facts: RunFacts, log: RunLog) -> Curve:
    evaluations = {key: tuple(points) for key, points in log.evaluations.items()}
    return Curve(role=facts.role, name=facts.name, loss=tuple(log.loss), evaluations=evaluations)


def _pictures(clip: Clip, baseline: Clip | None, data: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the report that need the loaded models."""
    ordered = splits_in_order([name for name in choose_splits(data) if name is not None])
    main = ordered[0] if ordered else None  # None: data without splits
    found: dict[str, Any] = {}
    predictions = predicting.predict(clip, data, main)
    names: tuple[str, ...] = ()
    if predictions is not None:
        names = predictions.names
        other = predicting.predict(baseline, data, main) if baseline is not None else None
        confusions, num_confusions = predicting.confusions(predictions, data)
        found = {
            "gallery": predicting.gallery(predictions),
            "styles": predicting.styles(predictions, other),
            "style_split": predictions.split,
            "confusions": confusions,
            "num_confusions": num_confusions,
        }
    queries = QUERIES.get(str(description.get("maker", ""))) or _class_queries(names)
    if queries:
        searches, searched, size = predicting.search(clip, data, queries, known=predictions)
        pool = " and ".join(split_title(name).lower() for name in searched)
        found |= {"searches": searches, "search_pool": pool, "search_pool_size": size}
    return found


def _class_queries(names: tuple[str, ...]) -> tuple[str, ...]:
    num = min(NUM_CLASS_QUERIES, len(names))
    return tuple(names[(2 * place + 1) * len(names) // (2 * num)] for place in range(num))


def _data_facts(data: Path, notices: list[str]) -> tuple[DataFacts, dict[str, Any]]:
    """dataset.json of a made data set; only the folder's name for others."""
    if not (data / DATASET_FILE).is_file():
        return DataFacts(name=data.name, folder=_shown_path(data)), {}
    content = _json(data / DATASET_FILE, notices)
    splits = content.get("splits") if isinstance(content.get("splits"), dict) else {}
    sources = content.get("sources") if isinstance(content.get("sources"), list) else []
    classes, templates = content.get("classes"), content.get("templates")
    return (
        DataFacts(
            name=str(content.get("name", data.name)),
            folder=_shown_path(data),
            maker=str(content.get("maker", "")),
            maker_version=str(content.get("maker_version", "")),
            size_px=_whole(content.get("size_px")),
            num_classes=len(classes) if isinstance(classes, list) else None,
            split_rule=str(content.get("split_rule", "")),
            splits=tuple(
                SplitFacts(
                    name=str(name),
                    num_samples=_whole(facts.get("samples")),
                    num_classes=len(facts["classes"]) if isinstance(facts.get("classes"), list) else None,
                )
                for name, facts in (splits or {}).items()
                if isinstance(facts, dict)
            ),
            sources=tuple(
                SourceFacts(**{key: str(source.get(key) or "") for key in SourceFacts.__dataclass_fields__})
                for source in sources or []
                if isinstance(source, dict)
            ),
            templates=tuple(map(str, templates)) if isinstance(templates, list) else (),
        ),
        content,
    )


def _json(path: Path, notices: list[str]) -> dict[str, Any]:
    try:
        content = load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        notices.append(f"{path.name} of {path.parent.name} is missing or cannot be read.")
        return {}
    return content


def _at(content: Mapping[str, Any], *keys: str) -> Any:
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _flat(value: object, prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Nested mappings as (dotted name, text) pairs; lists and scalars are leaves."""
    if not isinstance(value, Mapping):
        return ()
    pairs: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(inner, Mapping):
            pairs += _flat(inner, name)
        elif isinstance(inner, str) and Path(inner).is_absolute():
            pairs.append((name, Path(inner).name))  # a page that is passed on tells nothing of its writer's machine
        elif isinstance(inner, str | int | float | bool):
            pairs.append((name, f"{inner:g}" if isinstance(inner, float) else str(inner)))
        elif inner is None:
            pairs.append((name, "none"))
        else:
            pairs.append((name, json.dumps(inner, ensure_ascii=False)))
    return tuple(pairs)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown_path(folder: Path) -> str:
    """The folder as a user would type it from here; its name alone when it lies elsewhere, so that no home is told."""
    try:
        return folder.resolve().relative_to(Path(os.getcwd()).resolve()).as_posix()
    except ValueError:
        return folder.name
