"""The page of a located evaluation: scores of base and novel classes, pictures with what was found, and costs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from eyesmith.data.annotations import Annotations
from eyesmith.data.annotations.types import Kind
from eyesmith.errors import DataError
from eyesmith.eval.located import Found, Matches, Outcome, best_floor, match, outcomes, without_void, worst_classes
from eyesmith.eval.located.outcomes import ClassScore
from eyesmith.eval.located.precision import Region
from eyesmith.eval.results.rows import ResultRow
from eyesmith.files import write_atomic
from eyesmith.report.charts import Bar, bar_rows
from eyesmith.report.document import document
from eyesmith.report.markup import Child, Markup, element, join
from eyesmith.report.scenes import KINDS, scene
from eyesmith.report.words import SPACE, count, duration, interval_text, percent

NUM_PICTURES, NUM_WORST = 12, 12
_SAID = {
    "right": "found under its name",
    "confused": "found, under another name",
    "missed": "not found",
    "wrong": "overlaps nothing by half",
}
_NOUNS: dict[Kind, str] = {"instances": "objects", "panoptic": "segments", "semantic": "regions"}
_FOUND: dict[Region, str] = {"box": "detections", "mask": "found segments"}
_SPLITS = ("base", "novel", "all", "agnostic")
_METRICS = {"ap50": "box AP50", "mask_ap50": "mask AP50", "pq": "PQ", "miou": "mIoU"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one picture costs in a setting. setting: as at the end of the rows' `model`; None where it is not known."""

    setting: str
    seconds: float | None = None
    peak_bytes: int | None = None


def write_located(
    target: str | os.PathLike[str],
    *,
    model: str,
    truth: Annotations,
    found: Sequence[Found],
    rows: Sequence[ResultRow],
    costs: Sequence[Cost] = (),
    region: Region = "box",
    machine: str = "",
) -> Path:
    """Write the page, whole or not at all; returns its path.

    found: the detections that are shown, of each picture of `truth`. rows: result lines of any settings. machine:
    where the costs were measured. The pictures are chosen by a rule without chance. Raises DataError without pictures.
    """
    if not len(truth):
        raise DataError(f"{truth.name}: no pictures to show")
    path = Path(target)
    write_atomic(path, render_located(model, truth, found, rows, costs, region, machine))
    return path


def render_located(
    model: str,
    truth: Annotations,
    found: Sequence[Found],
    rows: Sequence[ResultRow],
    costs: Sequence[Cost] = (),
    region: Region = "box",
    machine: str = "",
) -> str:
    """The page as one self-contained HTML document."""
    counted, matches, listed, floor = _compared(truth, found, region)
    named = [
        ("results", "Results", _results(truth.kind, rows, costs, machine)),
        ("pictures", "Pictures", _pictures(truth, found, listed, floor, region)),
        (
            "classes",
            "Classes",
            _classes(truth, worst_classes(truth, counted, matches, num=NUM_WORST, floor=floor), listed, region),
        ),
    ]
    present = [(anchor, name, section) for anchor, name, section in named if section is not None]
    title = f"{model} on {truth.name.replace('_', ' ')}"
    links = [element("li", element("a", name, href=f"#{anchor}")) for anchor, name, _ in present]
    return document(
        title,
        element("a", "Skip to the results", href="#main", class_="skip"),
        element(
            "header",
            element("p", "eyesmith report", class_="eyebrow"),
            element("h1", title),
            element("p", _lead(truth, listed, rows, region), class_="lead"),
            element("nav", element("ul", links), aria_label="Parts of this page"),
        ),
        element("main", [section for _, _, section in present], id="main"),
        element("footer", "Every number comes from the result lines or was counted from the detections shown here."),
        style=resources.files("eyesmith.report").joinpath("located.css").read_text(encoding="utf-8"),
    )


def _compared(
    truth: Annotations, found: Sequence[Found], region: Region
) -> tuple[list[Found], Matches, list[list[Outcome]], float]:
    """Detections as they are compared, what they match, the outcomes of each picture, and the score these begin at.

    As in panoptic quality, the void that a mask covers counts for nothing, and one that lies there by more than half is
    not wrong.
    """
    counted, in_void = list(found), [np.zeros(len(one), np.bool_) for one in found]
    for index, one in enumerate(found):
        void = truth.void(index) if region == "mask" else None
        if void is not None:
            counted[index], in_void[index] = without_void(one, void)
    matches = match(truth, counted, region=region)
    places = zip(matches.picture.tolist(), matches.place.tolist(), strict=True)
    excused = np.array([in_void[picture][place] for picture, place in places], np.bool_)
    matches = replace(matches, ignored=matches.ignored | (excused & ~matches.right))
    floor = best_floor(matches)
    listed = [
        [
            one
            for one in outcomes(objects, seen, floor=floor, region=region)
            if one.kind != "wrong" or not void[one.detection]
        ]
        for objects, seen, void in zip(truth, counted, in_void, strict=True)
    ]
    return counted, matches, listed, floor


def _lead(truth: Annotations, listed: Sequence[Sequence[Outcome]], rows: Sequence[ResultRow], region: Region) -> Markup:
    kinds = [one.kind for each in listed for one in each]
    wrong = kinds.count("wrong")
    total = len(kinds) - wrong
    main = main_metric(truth.kind, rows)
    novel = [row for row in rows if row.split == "novel" and row.metric == main]
    best = max(novel, key=lambda row: row.value, default=None)
    number = int(truth.novel.sum())
    parts: list[Child] = [
        f"Of {_many(total, _NOUNS[truth.kind])} in {_many(len(truth), 'pictures')} ",
        element("strong", f"{count(kinds.count('right'))} are found under their name"),
        f", {count(kinds.count('confused'))} under another, {count(kinds.count('missed'))} not at all; "
        f"{_many(wrong, _FOUND[region])} overlap{'s' * (wrong == 1)} nothing by half.",
    ]
    if best is not None and best.value:
        span = interval_text(best)
        parts.append(
            f" On the {number} classes that training never showed, {_METRICS[main]} reaches {percent(best.value)}"
            + (f" (95{SPACE}% interval {span})" if span else "")
            + f", with {best.model.rpartition(' ')[2]}."
        )
    elif best is not None:
        parts.append(f" On the {number} classes that training never showed, {_METRICS[main]} is 0 in every setting.")
    return join(parts)


def _many(number: int, noun: str) -> str:
    return f"{count(number)} {noun[:-1] if number == 1 else noun}"


def main_metric(kind: Kind, rows: Sequence[ResultRow]) -> str:
    """What is told first: of boxes where there are any, else of segments, of pixels where classes are marked whole."""
    if any(row.metric == "ap50" for row in rows):
        return "ap50"
    return "miou" if kind == "semantic" else "pq"


def _splits(rows: Sequence[ResultRow]) -> list[str]:
    """Those that are there, without `all` where it is `novel` again."""
    found = [name for name in _SPLITS if any(row.split == name for row in rows)]
    return [name for name in found if name != "all" or "base" in found or "novel" not in found]


def _results(kind: Kind, rows: Sequence[ResultRow], costs: Sequence[Cost], machine: str) -> Markup | None:
    if not rows:
        return None
    models, shown = list(dict.fromkeys(row.model for row in rows)), _splits(rows)
    named = [name for name in shown if name != "agnostic"]
    panels = []
    for metric in [name for name in _METRICS if any(row.metric == name for row in rows)]:
        of_metric = [row for row in rows if row.metric == metric]
        maximum = max(0.05, *(row.high or row.value for row in of_metric if row.split != "agnostic"))
        parts: list[Child] = []
        for split in named:
            bars = [
                _bar(row, maximum) for model in models for row in of_metric if (row.model, row.split) == (model, split)
            ]
            if bars:
                title = element("h4", split.capitalize()) if len(named) > 1 else None
                parts += [title, bar_rows(bars, maximum=maximum)]
        panels.append(element("div", element("h3", _METRICS[metric]), parts, class_="panel"))
    if "base" in named:
        title = "Base and novel classes"
        text = "Base classes were marked in training, novel ones were not: only the frozen encoder knows their names. "
    elif "novel" in named:
        title = "Novel classes"
        text = "Training marked none of these classes: only the frozen encoder knows their names. "
    else:
        title, text = "All classes", ""
    return element(
        "section",
        element("h2", title),
        element("p", f"{text}Lines on the bars are 95{SPACE}% intervals over pictures."),
        element("div", panels, class_="panels"),
        _score_table(rows, models),
        _cost_table(costs, rows, main_metric(kind, rows), machine) if costs else None,
        id="results",
    )


def _bar(row: ResultRow, maximum: float) -> Bar:
    setting = row.model.rpartition(" ")[2] or row.model
    role = {"detector": "chance", "head": "chance", "dense": "baseline"}.get(setting, "ours")
    low, high = (None, None) if row.low is None or row.high is None else (row.low, min(row.high, maximum))
    return Bar(role=role, label=setting, value=row.value, low=low, high=high, shown=percent(row.value))


def _score_table(rows: Sequence[ResultRow], models: Sequence[str]) -> Markup:
    metrics, splits = [name for name in _METRICS if any(row.metric == name for row in rows)], _splits(rows)
    body = []
    for model in models:
        for metric in metrics:
            cells = {row.split: row for row in rows if (row.model, row.metric) == (model, metric)}
            if not cells:
                continue
            body.append(
                element(
                    "tr",
                    element("th", model, scope="row"),
                    element("td", _METRICS[metric]),
                    [_cell(cells.get(split)) for split in splits],
                )
            )
    head = [element("th", name, scope="col") for name in ("Model and setting", "Metric")]
    head += [element("th", name, scope="col", class_="n") for name in splits]
    return _table("Scores by split", head, body, f"Small figures: 95{SPACE}% interval over pictures.")


def _cell(row: ResultRow | None) -> Markup:
    span = interval_text(row)
    value = "–" if row is None else percent(row.value)
    return element("td", value, element("small", span) if span else None, class_="n")


def _cost_table(costs: Sequence[Cost], rows: Sequence[ResultRow], main: str, machine: str) -> Markup:
    splits = [name for name in _splits(rows) if name in ("novel", "all")]

    def value(setting: str, split: str) -> Markup:
        found = [row for row in rows if row.metric == main and row.split == split]
        return _cell(next((row for row in found if row.model.rpartition(" ")[2] == setting), None))

    body = [
        element(
            "tr",
            element("th", one.setting, scope="row"),
            [value(one.setting, split) for split in splits],
            element("td", "–" if one.seconds is None else _milliseconds(one.seconds), class_="n"),
            element("td", "–" if one.peak_bytes is None else f"{one.peak_bytes / 2**20:,.0f}{SPACE}MiB", class_="n"),
        )
        for one in costs
    ]
    head = [element("th", "Setting", scope="col")]
    names = (*(f"{split}, {_METRICS[main]}" for split in splits), "a picture", "peak memory")
    head += [element("th", name, scope="col", class_="n") for name in names]
    return _table("Accuracy beside its cost", head, body, f"Measured on {machine}." if machine else "")


def _milliseconds(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.0f}{SPACE}ms"


def _table(title: str, head: Sequence[Markup], body: Sequence[Markup], note: str) -> Markup:
    table = element("table", element("thead", element("tr", head)), element("tbody", body), aria_label=title)
    return element(
        "figure",
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label=title),
        element("figcaption", f"{title}. {note}".strip()),
    )


def _pictures(
    truth: Annotations,
    found: Sequence[Found],
    listed: Sequence[Sequence[Outcome]],
    floor: float,
    region: Region,
) -> Markup:
    legend = [
        element("li", element("b", kind, class_=kind), f" {_SAID[kind]}", class_=kind)
        for kind in KINDS
        if any(one.kind == kind for each in listed for one in each)
    ]
    chosen = chosen_pictures(listed)
    scenes = [scene(truth, index, found[index], listed[index], region) for index in chosen]
    is_part = len(chosen) < sum(map(bool, listed))
    is_any_right = any(one.kind == "right" for each in listed for one in each)
    said = [
        f"{_FOUND[region].capitalize()} with a score of at least {floor:.2f}, where F1 over all pictures is highest."
        if is_any_right
        else f"{_FOUND[region].capitalize()} of every score, as none of them is right.",
        "The pictures stand evenly between the best and the worst of the set."
        if is_part
        else "All pictures that hold anything, the best first.",
    ]
    if truth.kind == "semantic":
        said.append("A region is all pixels of a class in a picture.")
    return element(
        "section",
        element("h2", "Pictures"),
        element("p", " ".join(said)),
        element("ul", legend, class_="legend"),
        element("ul", scenes, class_="scenes"),
        id="pictures",
    )


def chosen_pictures(listed: Sequence[Sequence[Outcome]], num: int = NUM_PICTURES) -> list[int]:
    """Places of pictures with objects or detections, evenly between the best share of right ones and the worst."""

    def share(index: int) -> float:
        return sum(one.kind == "right" for one in listed[index]) / len(listed[index])

    order = sorted((index for index in range(len(listed)) if listed[index]), key=lambda index: (-share(index), index))
    if len(order) <= num:
        return order
    return [order[(2 * place + 1) * len(order) // (2 * num)] for place in range(num)]


def _classes(
    truth: Annotations, worst: Sequence[ClassScore], listed: Sequence[Sequence[Outcome]], region: Region
) -> Markup | None:
    if not worst:
        return None
    score = _METRICS["mask_ap50" if region == "mask" else "ap50"]
    missed = [one.truth for each in listed for one in each if one.kind == "missed"]
    names, has_splits, noun = truth.names, truth.novel.any(), _NOUNS[truth.kind]
    body = [
        element(
            "tr",
            element("th", names[one.label], scope="row"),
            element("td", "novel" if truth.novel[one.label] else "base") if has_splits else None,
            element("td", percent(one.ap50), class_="n"),
            element("td", count(one.num_objects), class_="n"),
            element("td", count(missed.count(one.label)), class_="n"),
            element("td", ", ".join(f"{names[guess]} ({number})" for guess, number in one.confused_with) or "–"),
        )
        for one in worst
    ]
    head = [element("th", name, scope="col") for name in (("Class", "Split") if has_splits else ("Class",))]
    head += [element("th", name, scope="col", class_="n") for name in (score, noun, "missed")]
    head.append(element("th", "taken for", scope="col"))
    return element(
        "section",
        element("h2", "The worst classes"),
        _table(f"Classes with the lowest {score}", head, body, f"Among equals, those with more {noun} first."),
        id="classes",
    )
