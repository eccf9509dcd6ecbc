"""Accuracy against cost, differences to a base, and our order beside the paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyesmith.lab.answers.ablation import AblationAnswer
from eyesmith.lab.answers.answer import amount
from eyesmith.lab.answers.correlation import CorrelationAnswer, PairRow
from eyesmith.lab.answers.hybrid import CostRow, HybridAnswer
from eyesmith.lab.answers.published import SCORES
from eyesmith.lab.figures.style import (
    INK,
    Chart,
    drawing,
    error_bars,
    fill_words,
    legend_below,
    look,
    name_encoders,
    sizes_in_order,
    write_chart,
)

COST_AXES = {
    "gmacs": ("multiply-adds", "billion multiply-adds, one image"),
    "latency_ms": ("latency", "milliseconds for one image, this machine"),
    "peak_mib": ("memory", "MiB a batch adds, this machine"),
}


def cost_charts(folder: Path, answer: HybridAnswer) -> list[Chart]:
    """Accuracy against each cost that was measured of two encoders at least."""
    charts = []
    for cost, (name, axis) in COST_AXES.items():
        rows: list[CostRow] = [row for row in answer.rows if getattr(row, cost) is not None]
        if len(rows) < 2:
            continue
        charts.append(_cost_chart(folder, rows, cost, name, axis))
    return charts


def _cost_chart(folder: Path, rows: Sequence[CostRow], cost: str, name: str, axis: str) -> Chart:
    sizes = sizes_in_order(rows)
    known = [row.family for row in rows]
    with drawing(2.5) as (figure, axes):
        panel = axes[0][0]
        front = sorted((row for row in rows if cost in row.front), key=lambda row: getattr(row, cost))
        panel.plot(
            [getattr(row, cost) for row in front], [100 * row.value for row in front], color="#999999", linewidth=0.8,
            drawstyle="steps-post", zorder=1,
        )  # fmt: skip
        for row in rows:
            style = look(row.encoder, row.family, known)
            x = getattr(row, cost)
            spread = None
            if cost == "latency_ms" and row.latency_low is not None and row.latency_high is not None:
                spread = error_bars(x, row.latency_low, row.latency_high, 1.0)
            panel.errorbar(
                x, 100 * row.value, yerr=error_bars(row.value, row.low, row.high), xerr=spread, fmt=style.marker,
                color=style.color, elinewidth=0.8, capsize=1.5,
                markerfacecolor=style.color if row.size == sizes[-1] else "white",
            )  # fmt: skip
        name_encoders(panel, rows, known)
        low, high = (pick(getattr(row, cost) for row in rows) for pick in (min, max))
        if high > 3 * low > 0:
            panel.set_xscale("log")
            _plain_log_ticks(panel, low, high)
        panel.set_xlabel(axis)
        panel.set_ylabel("top-1 accuracy, %")
        legend_below(figure, panel)
        return write_chart(
            folder,
            f"cost-{name}",
            figure,
            rows,
            caption=f"Accuracy against {axis}, after {amount(max(row.samples for row in rows))} images. The grey step "
            "is what none beats at no higher cost, by the means; bars are 95 % intervals"
            + (", across quartiles of repeated timing." if cost == "latency_ms" else ".")
            + fill_words(sizes),
            alt=f"Scatter chart of accuracy against {name} for each encoder and size.",
        )


def ablation_chart(folder: Path, answer: AblationAnswer) -> Chart | None:
    """Differences to the base, one line a variant and setting, with their mean; None without rows."""
    if not answer.rows:
        return None
    lines: list[tuple[str, float, float, float, bool]] = []
    for effect in answer.effects:
        mine = [row for row in answer.rows if row.variant == effect.variant]
        if len(mine) > 1:
            lines.append((effect.variant, effect.difference, effect.low, effect.high, True))
        for row in mine:
            where = f"{row.encoder} {row.size}, {amount(row.samples)}" if row.axis != "encoder" else ""
            where = where or f"{row.size} {amount(row.samples)}"
            label = f"  {where}" if len(mine) > 1 else f"{row.variant}, {where}"
            lines.append((label, row.difference, row.low, row.high, len(mine) == 1))
    if answer.capacity is not None:
        one = answer.capacity
        lines.append((f"{one.variant} for {one.base}", one.difference, one.low, one.high, True))
    base = answer.rows[0].base
    with drawing(0.75 + 0.2 * len(lines)) as (figure, axes):
        panel = axes[0][0]
        for place, (_, value, low, high, is_mean) in enumerate(lines):
            color = "#D55E00" if is_mean else "#0072B2"
            panel.errorbar(
                100 * value, place, xerr=error_bars(value, low, high), fmt="D" if is_mean else "o", color=color,
                elinewidth=1.2 if is_mean else 0.8, capsize=2, markersize=4.2 if is_mean else 3.2,
            )  # fmt: skip
        panel.axvline(0, color=INK, linewidth=0.7)
        panel.set_yticks(range(len(lines)), [label for label, *_ in lines])
        for tick, line in zip(panel.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if line[4] else "normal")
        panel.set_ylim(len(lines) - 0.5, -0.5)
        panel.grid(visible=False, axis="y")
        panel.set_xlabel(f"points of accuracy over {base}")
        return write_chart(
            folder,
            answer.name,
            figure,
            answer.rows,
            caption=f"Accuracy less that of {base}, everything else equal, paired by seed. Bars are 95 % intervals; "
            "diamonds are means over settings or single settings.",
            alt=f"Point chart of differences to {base}.",
        )


def correlation_chart(folder: Path, answer: CorrelationAnswer) -> Chart | None:
    """Our accuracy over the published one, a point a setting; None without rows."""
    rows: list[PairRow] = list(answer.rows)
    if not rows:
        return None
    sizes = sizes_in_order(rows)
    known = [row.family for row in rows]
    levels = sorted({row.level for row in rows})
    with drawing(2.7) as (figure, axes):
        panel = axes[0][0]
        for family, size in dict.fromkeys((row.encoder, row.size) for row in rows):
            mine = sorted((row for row in rows if (row.encoder, row.size) == (family, size)), key=lambda row: row.level)
            style = look(mine[0].encoder, mine[0].family, known)
            panel.plot(
                [100 * row.imagenet for row in mine], [100 * row.value for row in mine], color=style.color,
                linestyle=style.line, linewidth=0.7, marker=style.marker,
                markerfacecolor=style.color if size == sizes[-1] else "white",
            )  # fmt: skip
            for row in mine:
                panel.errorbar(
                    100 * row.imagenet, 100 * row.value, yerr=error_bars(row.value, row.low, row.high), fmt="none",
                    ecolor=style.color, elinewidth=0.7,
                )  # fmt: skip
        name_encoders(panel, rows, known, with_lines=True)
        panel.set_xlabel(f"{SCORES['imagenet']} in the paper, %")
        panel.set_ylabel("top-1 accuracy here, %")
        legend_below(figure, panel)
        return write_chart(
            folder,
            "correlation",
            figure,
            rows,
            caption=f"Accuracy here over the paper's ImageNet accuracy of the model that an encoder stands for; each "
            f"line joins the {len(levels)} amounts of training samples, fewest at its left. Bars are 95 % intervals."
            + fill_words(sizes),
            alt="Scatter chart of our accuracy over the published accuracy.",
        )


def _plain_log_ticks(panel: Any, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written as numbers."""
    ticks = [
        step * 10.0**power
        for power in range(-4, 8)
        for step in (1, 2, 5)
        if 0.8 * low <= step * 10.0**power <= 1.25 * high
    ]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
