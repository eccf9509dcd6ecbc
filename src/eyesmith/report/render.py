"""The page: report data in, one self-contained HTML document out. Pure: no file, clock, model or network."""

import re

from eyesmith.report.content import ReportData
from eyesmith.report.document import document
from eyesmith.report.facts import making_section, sources_section, use_section
from eyesmith.report.markup import Child, Markup, element, join
from eyesmith.report.measured import curves_section, main_score, results_section, styles_section
from eyesmith.report.pictures import confusions_section, gallery_section, search_section
from eyesmith.report.words import SPACE, count, duration, interval_text, percent, split_title


def render(data: ReportData) -> str:
    """The complete HTML document of a report. Parts without data are left out."""
    named = [
        ("results", "Results", results_section(data)),
        ("curves", "Learning", curves_section(data)),
        ("gallery", "Pictures", gallery_section(data)),
        ("styles", "Styles", styles_section(data)),
        ("search", "Search", search_section(data)),
        ("confusions", "Confusions", confusions_section(data)),
        ("making", "Making", making_section(data)),
        ("use", "Use", use_section(data)),
        ("sources", "Sources", sources_section(data)),
    ]
    present = [(anchor, title, section) for anchor, title, section in named if section is not None]
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in present]
    name = _title(data)
    return document(
        name,
        element("a", "Skip to the results", href="#main", class_="skip"),
        element(
            "header",
            element("p", "eyesmith report", class_="eyebrow"),
            element("h1", name),
            element("p", _lead(data), class_="lead"),
            _notices(data),
            element("nav", element("ul", links), aria_label="Parts of this page"),
        ),
        element("main", [section for _, _, section in present], id="main"),
        _footer(data),
    )


def _title(data: ReportData) -> str:
    return f"{data.ours.name}, trained on {data.data.name}" if data.data.name else data.ours.name


def _lead(data: ReportData) -> Markup:
    ours, score = data.ours, main_score(data)
    train = next((split for split in data.data.splits if split.name == "train"), None)
    learned = "This model was trained"
    if train is not None and train.num_samples is not None:
        learned = f"This model learned from {count(train.num_samples)} pictures and their texts"
    if ours.train_time_s is not None:
        learned += f" in {duration(ours.train_time_s)}"
    parts: list[Child] = [f"{learned}{_place(dict(ours.machine))}. "]
    if score is None or score.ours is None:
        return join(parts, "It has not been evaluated yet.")
    interval = interval_text(score.ours)
    parts += [
        f"On {split_title(score.split).lower()} its first guess is right for ",
        element("strong", percent(score.ours.value)),
        f" of {count(score.num_samples)} pictures" if score.num_samples is not None else " of the pictures",
        f" (95{SPACE}% interval {interval})" if interval else None,
    ]
    if score.chance is not None:
        parts.append(f", where chance is {percent(score.chance)}")
    if score.baseline is not None and data.baseline is not None:
        parts += [
            " and " if score.chance is not None else ", where ",
            element("span", f"{data.baseline.name} reaches {percent(score.baseline.value)}", class_="vs"),
        ]
    return join(parts, ".")


def _place(machine: dict[str, str]) -> str:
    """Where it was trained: " on NVIDIA H200", " on 2 CPU cores", " on 1 of 2 CPU cores", or nothing."""
    if "accelerator" in machine:
        return f" on {machine['accelerator']}"
    cores, threads = machine.get("cores", ""), machine.get("threads", "")
    if not cores.isdigit():
        return ""
    used = f"{threads} of " if threads.isdigit() and int(threads) < int(cores) else ""
    return f" on {used}{cores} CPU {'core' if cores == '1' else 'cores'}"


def _notices(data: ReportData) -> Markup | None:
    if not data.notices:
        return None
    return element(
        "div",
        element("ul", [element("li", _with_code(notice)) for notice in data.notices]),
        class_="notices",
        role="note",
        aria_label="What is missing on this page",
    )


def _with_code(sentence: str) -> Markup:
    """What stands between two backticks as code."""
    parts = re.split(r"`([^`]+)`", sentence)  # every second part was between backticks
    return join(element("code", part) if place % 2 else part for place, part in enumerate(parts))


def _footer(data: ReportData) -> Markup:
    version = next((SPACE + value for key, value in data.ours.versions if key == "eyesmith"), "")
    return element(
        "footer",
        f"From the run folder {data.ours.folder}, trained with eyesmith{version}. ",
        "Every number comes from its log, results and config, or was computed from its weights.",
    )
