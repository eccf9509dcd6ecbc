"""The comparison of two models as a table and a few sentences."""

from collections.abc import Sequence

from eyesmith.eval.heads import PromptSetResult
from eyesmith.eval.results.compare import ModelComparison

COLUMNS = ("task", "metric", "A", "B", "B - A", "95 %", "p", "adjusted p", "n", "")


def comparison_table(found: ModelComparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and one row a task, in percent and percentage points; * marks an adjusted p-value below 0.05."""
    rows = []
    for one in found.tasks:
        result, gap = one.result, one.result.difference
        notes = [f"{one.left_out} samples of one side left out"] if one.left_out else []
        rows.append(
            (
                one.task,
                one.metric,
                f"{100 * result.left:.1f}",
                f"{100 * result.right:.1f}",
                f"{100 * gap.value:+.2f}",
                f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}",
                p_text(result.p),
                p_text(one.p_holm) + ("*" if one.is_significant else " "),
                f"{result.n:,}",
                "; ".join([*notes, one.note] if one.note else notes),
            )
        )
    return COLUMNS, rows


def comparison_lines(found: ModelComparison) -> list[str]:
    """The summary under the table."""
    better = sum(one.is_significant and one.result.difference.value > 0 for one in found.tasks)
    worse = sum(one.is_significant and one.result.difference.value < 0 for one in found.tasks)
    number = len(found.tasks)
    gap = found.average
    lines = [
        f"B is better on {better}, worse on {worse}, not distinguishable on {number - better - worse} of {number} "
        f"task{'s' if number > 1 else ''} (adjusted p below 0.05)."
    ]
    if number > 1:
        span = f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}"
        lines.append(f"Mean over these tasks: {100 * gap.value:+.2f} points (95 %: {span}).")
    if found.without:
        lines.append(f"Without a main metric: {', '.join(found.without)}.")
    return lines


def prompt_sets_table(found: Sequence[PromptSetResult]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and one row a set of sentences, each against the first; as `comparison_table`."""
    rows = []
    for one in found:
        value, gap = one.accuracy, one.against_first
        cells = (one.name, f"{100 * value.value:.1f}", f"{100 * value.low:.1f} to {100 * value.high:.1f}")
        if gap is None or one.p_holm is None:
            rows.append((*cells, "", "", "", ""))
            continue
        span = f"{100 * gap.difference.low:+.2f} to {100 * gap.difference.high:+.2f}"
        adjusted = p_text(one.p_holm) + ("*" if one.p_holm < 0.05 else " ")
        rows.append((*cells, f"{100 * gap.difference.value:+.2f}", span, p_text(gap.p), adjusted))
    return ("sentences", "top-1", "95 %", "against first", "95 % of it", "p", "adjusted p"), rows


def p_text(p: float) -> str:
    """A p-value with three digits after the point, or as less than 0.001."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
