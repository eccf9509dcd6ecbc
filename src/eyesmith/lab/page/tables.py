"""The tables of the lab's page."""

import math
from collections.abc import Iterable, Sequence

from eyesmith.lab.answers.ablation import AblationAnswer
from eyesmith.lab.answers.answer import Answer, amount
from eyesmith.lab.answers.correlation import CorrelationAnswer
from eyesmith.lab.answers.data import DataAnswer
from eyesmith.lab.answers.hybrid import HybridAnswer
from eyesmith.lab.answers.published import SCORES
from eyesmith.lab.answers.spread import Metric, has
from eyesmith.lab.result import CellResult
from eyesmith.report.markup import Child, Markup, element
from eyesmith.report.words import SPACE, count, duration, params

OVER_WORDS = {
    "all": "all settings",
    "within": "within a size and budget, mean",
    "families": "means of the encoders",
}


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], label: str, *, words: int = 1) -> Markup:
    """A table that scrolls sideways on a phone. words: how many of the first columns hold text, not numbers."""
    top = [element("th", name, scope="col", class_="n" if place >= words else None) for place, name in enumerate(head)]
    body = [
        element(
            "tr",
            [
                element("th", cell, scope="row") if place == 0 else element("td", cell, class_="n" * (place >= words))
                for place, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    inner = element("table", element("thead", element("tr", top)), element("tbody", body))
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label=label)


def with_range(value: float, low: float, high: float, *, signed: bool = False, points: bool = True) -> list[Child]:
    """A value with its interval beneath; points: in hundredths. A dash where there is no value (nan)."""
    if math.isnan(value):
        return ["–"]
    factor, places = (100, 1) if points else (1, 2)
    sign = "+" if signed else ""
    least = 0.5 * 10**-places
    value, low, high = (0.0 if abs(factor * one) < least else one for one in (value, low, high))  # no "-0.0"
    shown = f"{factor * value:{sign}.{places}f}"
    return [shown, element("small", f"{factor * low:.{places}f}{SPACE}to{SPACE}{factor * high:.{places}f}")]


def tables_of(answer: Answer) -> list[Markup]:
    """The tables under an answer's figure."""
    if isinstance(answer, HybridAnswer):
        return _hybrid_tables(answer)
    if isinstance(answer, DataAnswer):
        return _data_tables(answer)
    if isinstance(answer, AblationAnswer):
        return _ablation_tables(answer)
    if isinstance(answer, CorrelationAnswer):
        return _correlation_tables(answer)
    if answer.name == "size" and answer.rows:
        return [_size_table(answer)]
    return []


def _data_tables(answer: DataAnswer) -> list[Markup]:
    levels = sorted({row.level for row in answer.rows})
    known = {(row.encoder, row.size, row.level): row for row in answer.rows}
    fits = {(fit.encoder, fit.size): fit for fit in answer.fits}
    heads = [amount(next(row.samples for row in answer.rows if row.level == level)) for level in levels]
    has_floor = any(fit.floor is not None for fit in answer.fits)
    lines: list[list[Child]] = []
    for encoder, size in dict.fromkeys((row.encoder, row.size) for row in answer.rows):
        line: list[Child] = [f"{encoder} {size}"]
        for level in levels:
            row = known.get((encoder, size, level))
            line.append("not run" if row is None else with_range(row.value, row.low, row.high))
        fit = fits.get((encoder, size))
        line.append("–" if fit is None else with_range(fit.exponent, fit.exponent_low, fit.exponent_high, points=False))
        if has_floor:
            floor = None if fit is None or fit.floor is None else (fit.floor, fit.floor_low, fit.floor_high)
            line.append("–" if floor is None else with_range(floor[0], floor[1] or 0.0, floor[2] or 0.0))
        lines.append(line)
    tail = ["exponent b", *(["floor of the error, %"] if has_floor else [])]
    return [table(["Top-1 accuracy, %, at images seen", *heads, *tail], lines, "Accuracy by samples")] if lines else []


def _size_table(answer: Answer) -> Markup:
    levels = sorted({row.level for row in answer.rows})
    known = {(row.encoder, row.level): row for row in answer.rows}
    heads = [amount(next(row.samples for row in answer.rows if row.level == level)) for level in levels]
    lines = [
        [
            encoder,
            *(
                "not run"
                if (row := known.get((encoder, level))) is None
                else with_range(row.gain, row.low, row.high, signed=True)
                for level in levels
            ),
        ]
        for encoder in dict.fromkeys(row.encoder for row in answer.rows)
    ]
    return table(["Gain in points, at images seen", *heads], lines, "Gain by size")


def _hybrid_tables(answer: HybridAnswer) -> list[Markup]:
    found = []
    if answer.contrasts:
        lines = [
            [
                f"{one.hybrid} against {one.pure}",
                with_range(one.difference, one.low, one.high, signed=True),
                f"{one.ahead} / {one.settings - one.ahead - one.behind} / {one.behind}",
            ]
            for one in answer.contrasts
        ]
        head = ["Mean over sizes and budgets", "points", "settings ahead / not told apart / behind"]
        found.append(table(head, lines, "Hybrids against encoders of one kind"))
    if answer.rows:
        lines = [
            [
                row.name,
                with_range(row.value, row.low, row.high),
                params(row.parameters),
                f"{row.gmacs:.3g}",
                "–" if row.latency_ms is None else f"{row.latency_ms:.1f}{SPACE}ms",
                "–" if row.batch_ms is None else f"{row.batch_ms:.0f}{SPACE}ms",
                "–" if row.peak_mib is None else f"{row.peak_mib:.0f}{SPACE}MiB",
                duration(row.train_s),
            ]
            for row in answer.rows
        ]
        head = ["At the largest budget", "top-1, %", "parameters", "GMAC", "one image", "a batch", "memory", "training"]
        found.append(table(head, lines, "Accuracy and cost"))
    return found


def _ablation_tables(answer: AblationAnswer) -> list[Markup]:
    lines = [
        [
            f"{row.variant} for {row.base}",
            f"{row.size if row.axis == 'encoder' else f'{row.encoder} {row.size}'}, {amount(row.samples)}",
            with_range(row.difference, row.low, row.high, signed=True),
            f"{100 * row.variant_value:.1f} / {100 * row.base_value:.1f}",
            count(row.seeds),
        ]
        for row in answer.rows
    ]
    head = ["Change", "in", "points", "top-1, %: changed / base", "seeds"]
    return [table(head, lines, "Differences to the base", words=2)] if lines else []


def _correlation_tables(answer: CorrelationAnswer) -> list[Markup]:
    lines = [
        [
            f"{SCORES[row.score]}: {OVER_WORDS.get(row.over) or f'{row.size}, budget {(row.level or 0) + 1}'}",
            with_range(row.spearman, row.spearman_low, row.spearman_high, points=False),
            f"{row.spearman_p:.2g}",
            with_range(row.kendall, row.kendall_low, row.kendall_high, points=False),
            f"{row.kendall_p:.2g}",
            count(row.pairs),
        ]
        for row in answer.correlations
        if row.over != "block" or row.score == "imagenet"
    ]
    head = ["Rank correlation with the paper's", "Spearman", "p", "Kendall", "p", "pairs"]
    return [table(head, lines, "Rank correlations")] if lines else []


def cells_table(cells: Sequence[CellResult], metric: Metric | None, command: str) -> Markup:
    """Every cell with the command that makes it again. command: with `ID` where the cell's name goes."""
    lines: list[list[Child]] = []
    for cell in cells:
        row = cell.row(metric.split, metric.metric, metric.task) if metric and has(cell, metric) else None
        lines.append(
            [
                f"{cell.encoder} {cell.size}",
                amount(cell.samples),
                count(cell.seed),
                cell.recipe,
                "–" if row is None else f"{100 * row.value:.1f}",
                f"{cell.loss:.3f}",
                duration(cell.train_s),
                element("code", command.replace("ID", cell.id)),
            ]
        )
    head = ["Cell", "images seen", "seed", "recipe", "top-1, %", "loss", "training", "again"]
    return table(head, lines, "Cells")
