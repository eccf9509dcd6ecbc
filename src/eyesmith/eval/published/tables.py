"""Result tables of the two papers as data: ViTamin's Table 3, EVA-02's Tables 6 and 9 to 12.

The numbers stand in the .tsv files beside this one, as printed. Columns: `model`; facts of the model; a task's key (its
main metric) or `key:metric`; `=name` for an average as the paper prints it; `corrected` for what a number should be
where the print has a known slip; `note`. Scores are printed in per cent and read as fractions.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from eyesmith.config import closest
from eyesmith.errors import ConfigError

FACTS = (
    "image_px",
    "image_params_m",
    "text_params_m",
    "image_gmacs",
    "text_gmacs",
    "params_m",
    "gmacs",
    "samples_b",
    "data",
    "precision",
)
TEXT_FACTS = ("data", "precision")


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """Where a table was printed and which suite's tasks or averages it holds."""

    name: str
    paper: str
    title: str
    suite: str


TABLES: dict[str, PublishedTable] = {
    table.name: table
    for table in (
        PublishedTable(name="vitamin-3", paper="ViTamin", title="ViTamin, Table 3", suite="datacomp"),
        PublishedTable(name="eva02-6", paper="EVA-02", title="EVA-02, Table 6", suite="imagenet-variants"),
        PublishedTable(name="eva02-9", paper="EVA-02", title="EVA-02, Table 9", suite="eva02"),
        PublishedTable(name="eva02-10", paper="EVA-02", title="EVA-02, Table 10", suite="eva02"),
        PublishedTable(name="eva02-11", paper="EVA-02", title="EVA-02, Table 11", suite="video"),
        PublishedTable(name="eva02-12", paper="EVA-02", title="EVA-02, Table 12", suite="retrieval"),
    )
}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One printed line.

    model: as the paper calls it. facts: numbers (millions of parameters, 1e9 multiply-adds by the paper's count, 1e9
    samples seen, pixels) and words. values: main metric by task key; metrics: further metrics by task key and metric;
    printed: averages by name; all as fractions and as printed. corrected: what a printed number should be, under the
    name of its column; note: why.
    """

    table: PublishedTable
    model: str
    facts: Mapping[str, float | str]
    values: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]
    printed: Mapping[str, float]
    corrected: Mapping[str, float]
    note: str

    @property
    def mended(self) -> dict[str, float]:
        """The printed averages with the corrected ones in their place."""
        return {name: self.corrected.get(f"={name}", value) for name, value in self.printed.items()}


@lru_cache
def published_table(name: str) -> tuple[PublishedRow, ...]:
    """The rows of a table, in print order. Raises ConfigError for an unknown name."""
    if name not in TABLES:
        raise ConfigError(f"unknown published table {name!r}{closest(name, TABLES)}")
    path = resources.files("eyesmith.eval.published").joinpath(f"{name.replace('-', '_')}.tsv")
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(_row(TABLES[name], line) for line in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def published_rows(suite: str | None = None) -> Iterator[PublishedRow]:
    """Rows of every table, or of those that belong to one suite."""
    for name, table in TABLES.items():
        if suite in (None, table.suite):
            yield from published_table(name)


def _row(table: PublishedTable, line: dict[str, str]) -> PublishedRow:
    facts: dict[str, float | str] = {}
    values: dict[str, float] = {}
    metrics: dict[str, dict[str, float]] = {}
    printed: dict[str, float] = {}
    for column, text in line.items():
        if not text or column in ("model", "note", "corrected"):
            continue
        if column in FACTS:
            facts[column] = text if column in TEXT_FACTS else float(text)
        elif column.startswith("="):
            printed[column[1:]] = _fraction(text)
        elif ":" in column:
            key, _, metric = column.partition(":")
            metrics.setdefault(key, {})[metric] = _fraction(text)
        else:
            values[column] = _fraction(text)
    for key, known in metrics.items():
        values[key] = (known["text_retrieval_recall@1"] + known["image_retrieval_recall@1"]) / 2
    corrected = dict(part.rsplit(":", 1) for part in (line.get("corrected") or "").split())
    return PublishedRow(
        table=table,
        model=line["model"],
        facts=facts,
        values=values,
        metrics=metrics,
        printed=printed,
        corrected={name: float(text) if name in FACTS else _fraction(text) for name, text in corrected.items()},
        note=line.get("note") or "",
    )


def _fraction(text: str) -> float:
    return round(float(text) / 100, 6)  # 70.1 per cent is 0.701, not 0.7009999999999999
