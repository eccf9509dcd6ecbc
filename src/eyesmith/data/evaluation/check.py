"""What is wrong with an evaluation set: everything that opening finds, every picture decoded, and its counts."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eyesmith.data.check import CheckReport
from eyesmith.data.check import check as check_source
from eyesmith.data.evaluation.evaluation_set import EvaluationSet, Layout
from eyesmith.data.evaluation.names import CLASS_FILE, TEMPLATE_FILE
from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.data.evaluation.tars import COUNT_FILE, TYPE_FILE
from eyesmith.data.sample import Finding
from eyesmith.data.shards import DATASET_FILE
from eyesmith.data.sources import split_names

_MOST_NAMED = 5


def is_evaluation_set(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has the layout of the hub's evaluation sets (and was not made by `data make`)."""
    folder = Path(path)
    if not folder.is_dir() or (folder / DATASET_FILE).is_file():
        return False
    has_names = any((folder / name).is_file() for name in (CLASS_FILE, TEMPLATE_FILE, TYPE_FILE))
    return has_names and (folder / "test").is_dir()


def holds_evaluation_sets(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one with a single split, or the folders directly below it are evaluation sets."""
    folder = Path(path)
    if is_evaluation_set(folder):
        return len(split_names(folder)) <= 1  # of several, leaks between them are looked for, as in training data
    if not folder.is_dir() or (folder / DATASET_FILE).is_file():
        return False
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]
    return bool(inside) and all(is_evaluation_set(entry) or (entry / DATASET_FILE).is_file() for entry in inside)


def check_evaluation_set(
    path: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    split: str = "test",
    size: int | None = None,
    num_classes: int | None = None,
    prompts: str = "",
    class_list: str = "",
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Open, read and decode a whole set and report what is wrong.

    size, num_classes: what the task's table says, None where nobody knows. The rest as `open_evaluation_set`.

    Errors beside those of `eyesmith.data.check.check`: missing_shard, extra_shard, bad_label, bad_metadata,
    missing_member, empty_class (a class folder without pictures), bad_row, wrong_size, wrong_classes.
    Warnings: unused_class (no sample has the label), equal_names (several classes have one name: their scores tie),
    empty_name. Raises DataError when the set cannot be opened at all: no nshards.txt, no names, one class.
    """
    found = open_evaluation_set(
        path, layout=layout, split=split, prompts=prompts, class_list=class_list, is_strict=False
    )
    report = check_source(found.source, num_workers=num_workers, on_progress=on_progress)
    known = set(report.findings)
    more = [problem for problem in found.problems if problem not in known]
    more += _classes(found, num_classes) + _size(found, size)
    return dataclasses.replace(report, path=os.fspath(path), findings=[*more, *report.findings])


def _classes(found: EvaluationSet, num_classes: int | None) -> list[Finding]:
    findings = []
    names = found.classes
    if num_classes is not None and names and len(names) != num_classes:
        detail = f"{len(names)} class names, the task has {num_classes}"
        findings.append(Finding("wrong_classes", "error", "", CLASS_FILE, detail))
    if len(names) == 1:
        findings.append(Finding("wrong_classes", "error", "", CLASS_FILE, "one class; classification needs two"))
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        detail = (
            f"{len(twice)} names stand for several classes, their scores always tie: {', '.join(twice[:_MOST_NAMED])}"
        )
        findings.append(Finding("equal_names", "warning", "", CLASS_FILE, detail))
    if "" in names:
        places = [str(place) for place, name in enumerate(names) if not name]
        detail = f"class {', '.join(places[:_MOST_NAMED])} has an empty name"
        findings.append(Finding("empty_name", "warning", "", CLASS_FILE, detail))
    counts = None
    if found.labels is not None and names:
        counts = np.bincount(found.labels[found.labels >= 0], minlength=len(names))
    elif found.multilabels is not None:
        counts = found.multilabels.sum(0)
    if counts is not None and not counts.all():
        unused = [names[place] for place in np.flatnonzero(counts == 0)[:_MOST_NAMED] if place < len(names)]
        detail = f"{int((counts == 0).sum())} of {len(names)} classes have no sample: {', '.join(map(repr, unused))}"
        findings.append(Finding("unused_class", "warning", "", "", detail))
    return findings


def _size(found: EvaluationSet, size: int | None) -> list[Finding]:
    # WinoGAViL counts instances, everything else images
    count, what = (len(found.instances), "instances") if found.layout == "winogavil" else (len(found), "images")
    if size is None or count == size:
        return []
    return [Finding("wrong_size", "error", "", COUNT_FILE, f"{count:,} {what} are usable, the task has {size:,}")]
