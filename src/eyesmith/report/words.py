"""Numbers and names as a reader sees them."""

import math
import unicodedata

from eyesmith.eval.results.rows import ResultRow
from eyesmith.report.content import Interval

SPACE = "\N{NO-BREAK SPACE}"

SPLIT_TITLES = {
    "unseen_drawing": "Unseen drawings",
    "unseen_concept": "Unseen concepts",
    "unseen_style": "Unseen style",
    "unseen_drawing_wide": "Unseen drawings, further names",
    "unseen_concept_wide": "Unseen concepts, further drawings",
    "unseen_style_wide": "Unseen style, further names",
    "choose_drawing": "Drawings to choose by",
    "choose_concept": "Concepts to choose by",
    "unseen_combination": "Unseen combinations",
    "test": "Test pictures",
    "train": "Training pictures",
    "all": "All pictures",
}
NAME_TITLES = {"base": "Base names", "novel": "Novel names", "all": "All names", "agnostic": "Anything at all"}
"""Splits of what is located: by which names count."""
SPLIT_MEANINGS = {
    "unseen_drawing": "things the model knows, in a drawing it never saw",
    "unseen_concept": "things that no training picture showed at all",
    "unseen_style": "things the model knows, by an artist whose style it never saw",
    "unseen_drawing_wide": "things the model knows beside those of the small world, in a drawing it never saw",
    "unseen_concept_wide": "things that no training picture showed, in further styles, or beside the small world's",
    "unseen_style_wide": "things beside those of the small world, by an artist whose style it never saw",
    "choose_drawing": "things the model knows, in a drawing it never saw; recipes are chosen by these: read the others",
    "choose_concept": "things that no training picture showed; recipes are chosen by these: read the others",
    "unseen_combination": "a colour and a shape that training never showed together",
    "test": "new pictures of things the model knows",
    "train": "what the model was trained on",
}
TASK_TITLES = {
    "zero_shot": "naming",
    "boxes": "naming boxes",
    "zero_shot_all": "naming, all",
    "retrieval": "search, own",
    "retrieval_label": "search, same",
}
METRIC_TITLES = {
    "acc1": "top-1",
    "acc5": "top-5",
    "image_retrieval_recall@1": "image R@1",
    "image_retrieval_recall@5": "image R@5",
    "image_retrieval_recall@10": "image R@10",
    "text_retrieval_recall@1": "text R@1",
    "text_retrieval_recall@5": "text R@5",
    "text_retrieval_recall@10": "text R@10",
}


def split_title(split: str, task: str = "") -> str:
    """`unseen_drawing` -> "Unseen drawings"; a name we do not know reads as its words."""
    if task in ("detect", "segment"):
        of, _, names = split.rpartition(":")
        title = NAME_TITLES.get(names, names)
        return f"{split_title(of)}: {title[:1].lower()}{title[1:]}" if of else title
    return SPLIT_TITLES.get(split, split.replace("_", " ").capitalize())


def metric_title(metric: str) -> str:
    """`image_retrieval_recall@5` -> "image R@5"; a name we do not know stays."""
    return METRIC_TITLES.get(metric, metric)


def percent(fraction: float | None) -> str:
    """0.3817 -> "38.2 %"; None or NaN -> a dash."""
    if fraction is None or math.isnan(fraction):
        return "–"
    return f"{100 * fraction:.1f}{SPACE}%"


def interval_text(interval: Interval | ResultRow | None) -> str:
    """The 95 % interval: "32.5 – 44.2", or nothing where there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{100 * interval.low:.1f}{SPACE}–{SPACE}{100 * interval.high:.1f}"


def count(number: int | None) -> str:
    """12345 -> "12,345"; None -> a dash."""
    return "–" if number is None else f"{number:,}"


def params(number: int | None) -> str:
    """2512345 -> "2.51 M"; None -> a dash."""
    if number is None:
        return "–"
    if number >= 1_000_000:
        return f"{number / 1e6:.2f}{SPACE}M"
    return f"{number / 1e3:.1f}{SPACE}k" if number >= 1000 else str(number)


def duration(seconds: float | None) -> str:
    """336.2 -> "5 min 36 s"; None -> a dash."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{seconds:.0f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h {minutes}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if rest else f"{minutes}{SPACE}min"


def shorten(value: str, length: int = 90) -> str:
    """At most `length` characters on one line; a cut is marked by an ellipsis."""
    line = " ".join(value.split())
    if len(line) <= length:
        return line
    cut = length - 1
    while cut > 1 and (unicodedata.combining(line[cut]) or line[cut] in "\u200d\ufe0f"):
        cut -= 1  # never cut between a character and what modifies it
    return line[:cut].rstrip() + "…"
