"""The table and the page of `lab vlm`."""

from pathlib import Path

from eyesmith.files import write_atomic
from eyesmith.lab.vlm import EyeScore, VlmResult
from eyesmith.report.charts import Bar, bar_rows
from eyesmith.report.document import document
from eyesmith.report.markup import element


def vlm_table(found: VlmResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows, the best eye first, what saw nothing last."""
    columns = ("eye", "macro", "of seeds", "over blind", "wrong image", "behind the best", *found.kinds)
    rows = [
        (
            one.name,
            _percent(one.macro),
            f"{_percent(min(one.each))} to {_percent(max(one.each))}",
            _points(one.gain),
            _percent(one.wrong),
            "" if one is found.eyes[0] else _points(one.behind),
            *(_percent(one.kinds[kind]) for kind in found.kinds),
        )
        for one in found.eyes
    ]
    blind = sum(found.blind) / len(found.blind)
    spread = f"{_percent(min(found.blind))} to {_percent(max(found.blind))}"
    return columns, [*rows, ("blind", _percent(blind), spread, *[""] * (len(columns) - 3))]


def vlm_sentence(found: VlmResult) -> str:
    """What the table says, in one sentence."""
    best, second = found.eyes[:2]
    lead = f"{best.name} leads {second.name} by {_points(second.behind)}"
    is_apart = second.behind[1] > 0
    return f"{lead}: {'told apart' if is_apart else 'not told apart'} on {found.questions:,} questions a seed."


def write_vlm_page(found: VlmResult, target: Path) -> Path:
    """Write the page, whole or not at all."""
    columns, rows = vlm_table(found)
    header = element("tr", *(element("th", name, scope="col") for name in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    page = document(
        "Eyes of a language model",
        element(
            "header",
            element("p", "eyesmith lab", class_="eyebrow"),
            element("h1", "One language model, several eyes"),
            element("p", vlm_sentence(found), class_="lead"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "Right answers, mean over kinds of questions"),
                bar_rows([_bar(one) for one in found.eyes], maximum=1.0),
                element("p", "The whisker spans the seeds."),
            ),
            element(
                "section",
                element("h2", "By kind"),
                element("div", element("table", element("thead", header), element("tbody", body)), class_="scroll"),
                element(
                    "p",
                    "Over blind, behind the best: points, with 95 % intervals by drawing pictures anew, of the mean "
                    f"over {len(found.blind)} seeds. Blind: an equal run that is shown no picture. Wrong image: the "
                    "same model asked about the picture of another scene.",
                ),
            ),
        ),
    )
    write_atomic(target, page)
    return target


def _bar(one: EyeScore) -> Bar:
    return Bar(
        role="ours", label=one.name, value=one.macro, low=min(one.each), high=max(one.each), shown=_percent(one.macro)
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(found: tuple[float, float, float]) -> str:
    value, low, high = (100 * one for one in found)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
