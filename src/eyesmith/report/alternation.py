"""The stages of an alternation side by side, as a table for the terminal and as a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from eyesmith.eval.results.rows import ResultRow
from eyesmith.files import write_atomic
from eyesmith.report.document import document
from eyesmith.report.markup import element
from eyesmith.report.words import duration, interval_text, percent, split_title

SHOWN = (("zero_shot", "acc1"), ("masked", "cosine"), ("masked", "explained"))
"""What stands in the table of each split; the other results are in results.jsonl."""


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage: its name, what its image tower started from, seconds of training, and its results."""

    name: str
    source: str
    train_s: float
    rows: Sequence[ResultRow]


def stage_table(stages: Sequence[StageRow]) -> Table:
    """A line a stage: what it started from, its training time, and its main result on each split."""
    splits, cells = _cells(stages)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("started from", overflow="fold")
    table.add_column("trained", justify="right", no_wrap=True)
    for split in splits:
        table.add_column(split_title(split), justify="right")
    for stage, row in zip(stages, cells, strict=True):
        table.add_row(stage.name, stage.source, duration(stage.train_s), *row)
    return table


def write_alternation(target: Path, stages: Sequence[StageRow]) -> Path:
    """Write the page of an alternation, whole or not at all; returns its path."""
    write_atomic(target, render_alternation(stages))
    return target


def render_alternation(stages: Sequence[StageRow]) -> str:
    """The page as one self-contained HTML document."""
    splits, cells = _cells(stages)
    header = element("tr", *(element("th", name, scope="col") for name in _columns(splits)))
    body = [
        element(
            "tr",
            element("th", stage.name, scope="row"),
            *(element("td", cell) for cell in (stage.source, duration(stage.train_s), *row)),
        )
        for stage, row in zip(stages, cells, strict=True)
    ]
    return document(
        "Alternation",
        element(
            "header",
            element("p", "eyesmith report", class_="eyebrow"),
            element("h1", "CLIP, masked images, CLIP"),
            element("p", _lead(stages), class_="lead"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "Stages"),
                element("div", element("table", element("thead", header), element("tbody", body)), class_="scroll"),
                element(
                    "p",
                    "CLIP stages: zero-shot top-1 with its 95 % interval. Masked stages: mean cosine with the "
                    "teacher's patch features where every second patch is hidden.",
                ),
            ),
        ),
    )


def _columns(splits: Sequence[str]) -> list[str]:
    return ["Stage", "Started from", "Trained", *map(split_title, splits)]


def _cells(stages: Sequence[StageRow]) -> tuple[list[str], list[list[str]]]:
    """Splits in order of appearance, and for each stage what is shown of each."""
    splits = list(dict.fromkeys(row.split for stage in stages for row in stage.rows))
    return splits, [[_shown(stage, split) for split in splits] for stage in stages]


def _shown(stage: StageRow, split: str) -> str:
    for task, metric in SHOWN:
        for row in stage.rows:
            if (row.task, row.metric, row.split) == (task, metric, split):
                bounds = interval_text(row)
                word = "" if task == "zero_shot" else f"{metric} "
                return f"{word}{percent(row.value)}" + (f" ({bounds})" if bounds else "")
    return "–"


def _lead(stages: Sequence[StageRow]) -> str:
    total = sum({stage.source + str(stage.train_s): stage.train_s for stage in stages}.values())
    return f"{len(stages)} stages, {duration(total)} of training in all."
