"""The leaderboard page: one self-contained HTML file, sortable by a few lines of its own script."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources

from eyesmith.report.document import document
from eyesmith.report.leaderboard.board import Board, Entry, SuiteBoard
from eyesmith.report.leaderboard.differences import Difference, choose_pair, differences
from eyesmith.report.leaderboard.robustness import robustness_part
from eyesmith.report.leaderboard.scatter import Point, scatter
from eyesmith.report.leaderboard.tables import missing_notes, others_table, suite_table, task_table
from eyesmith.report.leaderboard.worst import WorstClass
from eyesmith.report.markup import Child, Markup, element, join
from eyesmith.report.pictures import image
from eyesmith.report.words import SPACE, count, percent

COSTS = {
    "gmacs": "billion multiply-adds, image and text tower",
    "params_m": "million parameters, image and text tower",
    "samples_b": "billion samples seen in training",
}
COST_TITLES = {"gmacs": "Accuracy and compute", "params_m": "Accuracy and size", "samples_b": "Accuracy and data"}


def render_leaderboard(
    board: Board, *, compare: Sequence[str] = (), worst: Mapping[str, Sequence[WorstClass]] | None = None
) -> str:
    """The complete HTML document. compare: labels of two models; worst: classes by model. What has no data is left out.

    Raises ConfigError when a model to compare is not there.
    """
    sections: list[tuple[str, str, Markup]] = []
    for one in board.suites:
        sections.append((one.suite.name, one.suite.title, _suite_section(one, compare)))
    if board.others:
        sections.append(("others", "Other sets", _others_section(board)))
    if worst and any(worst.values()):
        sections.append(("worst", "Worst classes", _worst_section(worst)))
    sections.append(("sources", "Sources", _sources_section(board)))
    script = _resource("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    # nothing but what the page carries itself, and of scripts only this very one
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in sections]
    return document(
        "Leaderboard",
        element("a", "Skip to the tables", href="#main", class_="skip"),
        element(
            "header",
            element("p", "eyesmith report", class_="eyebrow"),
            element("h1", "Leaderboard"),
            element("p", _lead(board), class_="lead"),
            element("nav", element("ul", links), aria_label="Parts of this page"),
        ),
        element("main", [section for _, _, section in sections], id="main"),
        element("footer", "Every number comes from the result files and printed tables named under Sources."),
        element("script", Markup(script)),
        policy=policy,
        style=_resource("leaderboard.css"),
    )


def _resource(name: str) -> str:
    return resources.files("eyesmith.report.leaderboard").joinpath(name).read_text(encoding="utf-8")


def _lead(board: Board) -> Markup:
    models = board.num_models
    tasks = len({key for model in board.models for key in model.records})
    parts: list[Child] = [f"{count(models)} {'model' if models == 1 else 'models'} measured on {count(tasks)} "]
    parts.append("set. " if tasks == 1 else "sets. ")
    for one in board.suites:
        name = one.suite.aggregates[0].name
        best = next((entry for entry in one.measured if name in entry.averages), None)
        if best is not None:
            score = percent(best.averages[name].value)
            ranked = [entry for entry in one.entries if name in entry.averages]
            place = "" if len(ranked) < 2 else f", place {count(ranked.index(best) + 1)} of {count(len(ranked))}"
            parts += [element("strong", best.label), f" reaches {score} on {one.suite.title}{place}. "]
            break
    return join(parts)


def _suite_section(board: SuiteBoard, compare: Sequence[str]) -> Markup:
    parts: list[Child] = [
        element("h2", board.suite.title, id=f"{board.suite.name}-title"),
        element("p", _suite_words(board)),
        suite_table(board),
        missing_notes(board),
        _plots(board),
        robustness_part(board),
        _differences(board, compare),
    ]
    tasks = task_table(board)
    if tasks is not None:
        parts += [element("h3", "Every task"), tasks]
    return element("section", parts, id=board.suite.name, aria_labelledby=f"{board.suite.name}-title")


def _suite_words(board: SuiteBoard) -> Markup:
    published = len(board.entries) - len(board.measured)
    parts: list[Child] = [
        "Per cent; an average is the plain mean of its tasks' main metrics, and stands only where none of them is "
        "missing. "
    ]
    if published:
        parts.append(f"Coloured lines were measured, the {count(published)} others are as printed in the papers. ")
    if any(cell.printed is not None for entry in board.entries for cell in entry.averages.values()):
        parts.append(
            "A number struck out is a slip of the print, with the value that the per-task numbers give beside it. "
        )
    if any(cell.low is not None for entry in board.measured for cell in entry.averages.values()):
        parts.append("Small: the 95 % interval. ")
    if board.suite.note:
        parts.append(f"{board.suite.note} ")
    parts.append("Press a column's head to sort.")
    return join(parts)


def _plots(board: SuiteBoard) -> Markup | None:
    """Score over each cost that at least two lines state; the score is the first average that a measured line has."""
    name = next(
        (
            one.name
            for one in board.suite.aggregates
            if not one.lower_is_better and any(one.name in entry.averages for entry in board.measured)
        ),
        None,
    )
    if name is None:
        return None
    title = next(one.title for one in board.suite.aggregates if one.name == name)
    panels = []
    for cost, words in COSTS.items():
        points = [point for entry in board.entries if (point := _point(entry, name, cost)) is not None]
        if len(points) < 2:
            continue
        chart = scatter(points, x_label=words, y_label=f"{title}, %", description=f"{title} over {words}")
        panels.append(element("figure", element("h3", COST_TITLES[cost]), chart, class_="panel"))
    if not panels:
        return None
    legend = element(
        "ul",
        element("li", "measured", class_="ours"),
        element("li", "published (point at a dot for its name)", class_="baseline"),
        class_="legend",
    )
    unplaced = [entry.label for entry in board.measured if not set(COSTS) & set(entry.facts)]
    hint = (
        element("p", f"Without costs in their info.json, and so not drawn: {', '.join(unplaced)}.", class_="soft")
        if unplaced
        else None
    )
    return join(element("div", panels, class_="panels"), legend, hint)


def _point(entry: Entry, average: str, cost: str) -> Point | None:
    x, cell = entry.facts.get(cost), entry.averages.get(average)
    if cell is None or not isinstance(x, int | float) or x <= 0:
        return None
    return Point(role="ours" if entry.role == "ours" else "baseline", label=entry.label, x=float(x), y=cell.value)


def _differences(board: SuiteBoard, compare: Sequence[str]) -> Markup | None:
    labels = {entry.label for entry in board.entries}
    named = compare if set(compare) <= labels else ()
    pair = choose_pair(board, named)
    if pair is None:
        return None
    found = differences(*pair)
    if len(found) < 2:
        return None
    one, two = pair
    won = sum(difference.gap > 0 for difference in found)
    lost = sum(difference.gap < 0 for difference in found)
    mean = sum(difference.gap for difference in found) / len(found)
    words = (
        f"{one.label} against {two.label}{' (published)' if two.role == 'published' else ''}: better on {count(won)} "
        f"of {count(len(found))} common tasks, worse on {count(lost)}; {100 * mean:+.1f} points on average over them. "
    )
    if any(difference.is_clear is False for difference in found):
        words += "Pale bars: the intervals of the two overlap."
    reach = max(max(abs(difference.gap) for difference in found), 1e-6)
    return join(
        element("h3", "Task by task"),
        element("p", words),
        element("div", [_gap_row(difference, reach) for difference in found], class_="gaps"),
    )


def _gap_row(difference: Difference, reach: float) -> Markup:
    classes = f"gap {'up' if difference.gap >= 0 else 'down'}{' vague' if difference.is_clear is False else ''}"
    fill = element("span", class_="fill", style=f"width:{50 * abs(difference.gap) / reach:.2f}%")
    fill = fill if difference.gap else None
    pair = f"{100 * difference.one:.1f}{SPACE}/{SPACE}{100 * difference.two:.1f}"
    return element(
        "div",
        element("span", difference.name),
        element("span", fill, class_="track", aria_hidden="true"),
        element("span", f"{100 * difference.gap:+.1f}", element("small", pair), class_="bar-value"),
        class_=classes,
    )


def _others_section(board: Board) -> Markup:
    return element(
        "section",
        element("h2", "Other sets", id="others-title"),
        element("p", "Sets that belong to no suite. Per cent; a set's main metric with its 95 % interval and chance."),
        others_table(board.others),
        id="others",
        aria_labelledby="others-title",
    )


def _worst_section(worst: Mapping[str, Sequence[WorstClass]]) -> Markup:
    parts: list[Child] = [
        element("h2", "Worst classes", id="worst-title"),
        element(
            "p",
            "Of each task the classes with the fewest images right at the first guess, with what they were taken for.",
        ),
    ]
    for model, classes in worst.items():
        if classes:
            parts += [element("h3", model), element("ul", [_worst_card(one) for one in classes], class_="worst")]
    return element("section", parts, id="worst", aria_labelledby="worst-title")


def _worst_card(one: WorstClass) -> Markup:
    taken = ", ".join(f"{name} ({count(times)})" for name, times in one.taken_for)
    pictures = [
        element("li", image(mistake.picture, f"{one.name}, taken for {mistake.guess}"), f"→ {mistake.guess}")
        for mistake in one.mistakes
        if mistake.picture is not None
    ]
    return element(
        "li",
        element("h4", one.name),
        element(
            "p",
            f"{one.task}: {count(one.right)} of {count(one.total)} right ({percent(one.recall)}). Taken for {taken}.",
        ),
        element("ul", pictures, class_="pics") if pictures else None,
    )


def _sources_section(board: Board) -> Markup:
    lines = [
        element("li", element("strong", model.full_name), f": {model.source}, {count(len(model.records))} sets")
        for model in board.models
    ]
    printed = " ".join(entry.source for one in board.suites for entry in one.entries if entry.role == "published")
    papers = []
    if "ViTamin" in printed:
        papers.append(element("li", "ViTamin, Table 3 (arXiv 2404.02132); multiply-adds by that paper's count"))
    if "EVA-02" in printed:
        papers.append(element("li", "EVA-02, Tables 6 and 9 to 12 (arXiv 2303.11331)"))
    notes = {entry.note: entry for one in board.suites for entry in one.entries if entry.note}
    return element(
        "section",
        element("h2", "Sources", id="sources-title"),
        element("ul", lines),
        element("h3", "Printed tables") if papers else None,
        element("ul", papers) if papers else None,
        element("h3", "Slips of the print", id="slips") if notes else None,
        element("ul", [element("li", element("strong", entry.label), f": {note}") for note, entry in notes.items()])
        if notes
        else None,
        id="sources",
        aria_labelledby="sources-title",
    )
