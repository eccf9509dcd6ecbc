"""Effective robustness of the measured models, against the line through the printed ones."""

from dataclasses import dataclass

from eyesmith.eval.statistics import RobustnessLine, fit_robustness_line
from eyesmith.report.leaderboard.board import Entry, SuiteBoard
from eyesmith.report.leaderboard.tables import head, number_cell, plain_table
from eyesmith.report.markup import Markup, element
from eyesmith.report.words import count

_FEWEST = 5  # printed models for a line
_WITHOUT, _SHIFTED = "imagenet", "shift"


@dataclass(frozen=True, kw_only=True)
class Robust:
    """accuracy: on ImageNet; shifted: mean of its shifts; expected: of a printed model of that accuracy; fractions."""

    label: str
    accuracy: float
    shifted: float
    expected: float


def robust_entries(board: SuiteBoard) -> tuple[RobustnessLine | None, list[Robust]]:
    """The line through the printed models, and the measured models against it; (None, []) without enough of either."""
    printed = [pair for entry in board.entries if entry.role == "published" and (pair := _pair(entry))]
    measured = [(entry.label, pair) for entry in board.measured if (pair := _pair(entry))]
    if len(printed) < _FEWEST or not measured:
        return None, []
    line = fit_robustness_line(printed)
    found = [
        Robust(label=label, accuracy=accuracy, shifted=shifted, expected=line.expected(accuracy))
        for label, (accuracy, shifted) in measured
    ]
    return line, found


def robustness_part(board: SuiteBoard) -> Markup | None:
    """A heading, what the numbers mean, and a line a measured model; None where there is nothing to say."""
    line, found = robust_entries(board)
    if line is None:
        return None
    words = (
        f"Expected is what a printed model of the same ImageNet accuracy has on the mean of the shifts, by the line "
        f"through {count(line.n)} of them on logit axes (R² {line.r2:.2f}); far from their accuracies it says little. "
        "Effective robustness is what a model has beyond that, in points."
    )
    heads = [
        head("Model", is_number=False),
        *(head(title) for title in ("ImageNet", "Shifts", "Expected", "Effective robustness")),
    ]
    rows = [
        element(
            "tr",
            element("th", one.label, scope="row"),
            *(number_cell(value, f"{100 * value:.1f}") for value in (one.accuracy, one.shifted, one.expected)),
            number_cell(one.shifted - one.expected, f"{100 * (one.shifted - one.expected):+.1f}"),
            class_="ours",
        )
        for one in found
    ]
    return element(
        "div",
        element("h3", "Robustness under shift"),
        element("p", words),
        plain_table(heads, rows, label="Effective robustness"),
    )


def _pair(entry: Entry) -> tuple[float, float] | None:
    cells = entry.averages.get(_WITHOUT), entry.averages.get(_SHIFTED)
    if cells[0] is None or cells[1] is None:
        return None
    values = cells[0].value, cells[1].value
    return values if all(0 < value < 1 for value in values) else None
