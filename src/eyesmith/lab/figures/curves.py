"""Accuracy and gain over what is scaled: samples, size, stride."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyesmith.lab.answers.answer import Answer, amount
from eyesmith.lab.answers.data import DataAnswer, DataRow
from eyesmith.lab.answers.resolution import StrideRow
from eyesmith.lab.answers.size import GainRow
from eyesmith.lab.figures.style import (
    INK,
    Chart,
    drawing,
    error_bars,
    legend_below,
    look,
    name_encoders,
    sizes_in_order,
    write_chart,
)


def data_chart(folder: Path, answer: DataAnswer) -> Chart | None:
    """Accuracy over images seen, one panel a size, with the fitted power laws; None without rows."""
    rows: list[DataRow] = list(answer.rows)
    if not rows:
        return None
    sizes = list(dict.fromkeys(row.size for row in rows))
    known = [row.family for row in rows]
    with drawing(2.5, columns=len(sizes), sharey=True) as (figure, axes):
        for place, (panel, size) in enumerate(zip(axes[0], sizes, strict=True)):
            for encoder in dict.fromkeys(row.encoder for row in rows if row.size == size):
                mine = sorted((row for row in rows if (row.encoder, row.size) == (encoder, size)), key=_samples)
                style = look(encoder, mine[0].family, known)
                fit = next((fit for fit in answer.fits if (fit.encoder, fit.size) == (encoder, size)), None)
                if fit is not None:
                    xs = np.geomspace(mine[0].samples, mine[-1].samples, 50)
                    ys = 100 * (1 - np.array([fit.error(x) for x in xs]))
                    panel.plot(xs, ys, color=style.color, linestyle=style.line)
                for row in mine:
                    panel.errorbar(
                        row.samples, 100 * row.value, yerr=error_bars(row.value, row.low, row.high), fmt="none",
                        ecolor=style.color, elinewidth=0.8, capsize=1.5,
                    )  # fmt: skip
                panel.plot(
                    [row.samples for row in mine], [100 * row.value for row in mine], style.marker, color=style.color
                )
            chance = next((row.chance for row in rows if row.size == size and row.chance is not None), None)
            if chance is not None:
                panel.axhline(100 * chance, color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
                panel.text(0.98, 100 * chance, "chance", ha="right", va="bottom", transform=panel.get_yaxis_transform())
            _sample_axis(panel, [row.samples for row in rows if row.size == size])
            panel.set_title(size or "one size")
            panel.set_xlabel("images seen in training")
            if place == 0:
                panel.set_ylabel("top-1 accuracy, %")
                name_encoders(panel, rows, known, with_lines=True)
        legend_below(figure, axes[0][0])
        return write_chart(
            folder,
            "data",
            figure,
            rows,
            caption="Accuracy over images seen in training, one panel a size. Lines are the fitted power laws of the "
            "error, bars 95 % intervals over seeds and test images.",
            alt="Line chart of accuracy over images seen for each encoder and size; the table beneath has its numbers.",
        )


def size_chart(folder: Path, answer: Answer) -> Chart | None:
    """Gain of the large size over the small one at each budget; None without rows."""
    rows: list[GainRow] = list(answer.rows)
    if not rows:
        return None
    encoders = list(dict.fromkeys(row.encoder for row in rows))
    levels = sorted({row.level for row in rows})
    known = [row.family for row in rows]
    with drawing(2.3) as (figure, axes):
        panel = axes[0][0]
        for place, encoder in enumerate(encoders):
            mine = sorted((row for row in rows if row.encoder == encoder), key=lambda row: row.level)
            style = look(encoder, mine[0].family, known)
            shift = 0.6 * ((place + 0.5) / len(encoders) - 0.5)
            for row in mine:
                panel.errorbar(
                    levels.index(row.level) + shift, 100 * row.gain, yerr=error_bars(row.gain, row.low, row.high),
                    fmt=style.marker, color=style.color, elinewidth=1, capsize=2,
                    label=encoder if row is mine[0] else None,
                )  # fmt: skip
        panel.axhline(0, color=INK, linewidth=0.7)
        shown = [amount(next(row.samples for row in rows if row.level == level)) for level in levels]
        panel.set_xticks(range(len(levels)), shown)
        panel.set_xlim(-0.5, len(levels) - 0.5)
        panel.grid(visible=False, axis="x")
        panel.set_xlabel("images seen in training")
        panel.set_ylabel(f"{rows[0].large} less {rows[0].small}, points")
        legend_below(figure, panel)
        return write_chart(
            folder,
            "size",
            figure,
            rows,
            caption=f"What {rows[0].large} gives over {rows[0].small}, in points of accuracy, at each number of images "
            "seen. Bars are 95 % intervals; one that crosses zero tells nothing apart.",
            alt="Point chart of the gain from the small to the large size by encoder and budget.",
        )


def resolution_chart(folder: Path, answer: Answer) -> Chart | None:
    """Accuracy over stride, a line for each family, size and budget; None without rows."""
    rows: list[StrideRow] = list(answer.rows)
    if not rows:
        return None
    levels = sorted({row.level for row in rows})
    sizes = sizes_in_order(rows)
    known = [row.family for row in rows]
    with drawing(2.3) as (figure, axes):
        panel = axes[0][0]
        for family, size, level in dict.fromkeys((row.family, row.size, row.level) for row in rows):
            mine = [row for row in rows if (row.family, row.size, row.level) == (family, size, level)]
            style = look(family, family, known)
            samples = next(row.samples for row in mine)
            label = " ".join(
                (family, *([size] if len(sizes) > 1 else []), *([amount(samples)] if len(levels) > 1 else []))
            )
            panel.plot(
                [row.stride for row in mine], [100 * row.value for row in mine], marker=style.marker,
                color=style.color, linestyle=style.line, label=label, alpha=0.55 + 0.45 * (level == levels[-1]),
                markerfacecolor=style.color if size == sizes[-1] else "white",
            )  # fmt: skip
            for row in mine:
                panel.errorbar(
                    row.stride, 100 * row.value, yerr=error_bars(row.value, row.low, row.high), fmt="none",
                    ecolor=style.color, elinewidth=0.8, capsize=1.5,
                )  # fmt: skip
        strides = sorted({row.stride for row in rows})
        panel.set_xscale("log", base=2)
        panel.set_xticks(strides, [str(stride) for stride in strides])
        panel.minorticks_off()
        panel.set_xlabel("stride, pixels between features (finer to the left)")
        panel.set_ylabel("top-1 accuracy, %")
        legend_below(figure, panel, columns=3)
        return write_chart(
            folder,
            "resolution",
            figure,
            rows,
            caption="Accuracy over the distance between neighbouring features, everything else equal. Bars are 95 % "
            "intervals.",
            alt="Line chart of accuracy over stride.",
        )


def _samples(row: DataRow) -> int:
    return row.samples


def _sample_axis(panel: Any, samples: Sequence[int]) -> None:
    """A logarithmic axis with a tick at each budget that has room."""
    known = sorted(set(samples))
    panel.set_xscale("log")
    ticks = [known[0]]
    for value in known[1:]:
        if value / ticks[-1] > 1.8:
            ticks.append(value)
    panel.set_xticks(ticks, [amount(value) for value in ticks])
    panel.minorticks_off()
    panel.margins(x=0.08)
