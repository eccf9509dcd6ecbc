"""How the lab's figures look, and how they are written: 3.3 inches wide, half a page, no type below 7 points.

Colours are those of Okabe and Ito 2008, told apart with the usual colour blindnesses; marker and line style repeat what
the colour says, filled markers are the larger size.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyesmith.files import write_atomic
from eyesmith.lab.answers.answer import listed
from eyesmith.lab.answers.every import rows_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 3.3
PNG_DPI = 200
INK, GRID = "#222222", "#d9d9d9"


@dataclass(frozen=True)
class Look:
    """Of one family, wherever it appears."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


LOOKS = {
    "ViT": Look("#0072B2", "o", "-"),
    "ConvNeXt": Look("#E69F00", "s", "--"),
    "CoAtNet": Look("#009E73", "^", "-."),
    "ViTamin": Look("#D55E00", "D", "-"),
    "TrV": Look("#CC79A7", "v", ":"),
}
OTHERS = (
    Look("#000000", "P", (0, (4, 1, 1, 1, 1, 1))),
    Look("#56B4E9", "X", (0, (1, 1))),
    Look("#7F7F7F", "*", (0, (6, 2))),
    Look("#8C4A00", "p", (0, (2, 2))),
)
RULES: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 8.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.2,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "svg.fonttype": "path",  # the same shapes wherever it is opened
    "svg.hashsalt": "eyesmith",
    "axes.unicode_minus": True,
}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure of the page. alt: what it shows, for who cannot see it."""

    name: str
    caption: str
    alt: str
    svg: bytes


def look(encoder: str, family: str, known: Sequence[str] = ()) -> Look:
    """The look of an encoder's family; unknown families take turns, in the order of `known`."""
    if family in LOOKS:
        return LOOKS[family]
    names = list(dict.fromkeys(name for name in known if name not in LOOKS)) or [encoder]
    key = encoder if encoder in names else family
    return OTHERS[(names.index(key) if key in names else 0) % len(OTHERS)]


@contextmanager
def drawing(height_in: float, *, rows: int = 1, columns: int = 1, **options: Any) -> Iterator[tuple["Figure", Any]]:
    """(figure, [rows, columns] axes) in our style, whatever the user's matplotlib settings are."""
    import matplotlib
    from matplotlib.figure import Figure

    rules: Any = {**matplotlib.rcParamsDefault, **RULES}
    with matplotlib.rc_context(rules):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        for one in axes.flat:
            one.grid(visible=True, color=GRID, linewidth=0.5)
            one.set_axisbelow(True)
        yield figure, axes


def write_chart(folder: Path, name: str, figure: "Figure", rows: Sequence[Any], *, caption: str, alt: str) -> Chart:
    """Write NAME.svg, NAME.png and NAME.csv (what is drawn) to `folder`. Call it inside `drawing`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    write_atomic(folder / f"{name}.svg", svg.getvalue())
    write_atomic(folder / f"{name}.png", png.getvalue())
    write_atomic(folder / f"{name}.csv", rows_csv(rows))
    return Chart(name=name, caption=caption, alt=alt, svg=svg.getvalue())


def legend_below(figure: "Figure", axes: "Axes", *, columns: int = 4) -> None:
    """One legend under all panels, each label once, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    longest = max(map(len, once), default=0)
    fitting = max(1, min(columns, int(66 / (longest + 8))))
    if len(once) > 1:
        figure.legend(
            once.values(), once.keys(), loc="outside lower center", ncols=min(fitting, len(once)), columnspacing=0.8,
            handletextpad=0.5, borderaxespad=0.2,
        )  # fmt: skip


def name_encoders(panel: "Axes", rows: Sequence[Any], known: Sequence[str], *, with_lines: bool = False) -> None:
    """A sample of every encoder for the legend, filled; nothing is drawn."""
    for encoder, family in dict.fromkeys((row.encoder, row.family) for row in rows):
        style = look(encoder, family, known)
        line = style.line if with_lines else "none"
        panel.plot([], [], marker=style.marker, color=style.color, linestyle=line, label=encoder)


def fill_words(sizes: Sequence[str]) -> str:
    """What filled and open markers mean, for a caption."""
    return f" Filled: {sizes[-1]}; open: {listed(sizes[:-1])}." if len(sizes) > 1 else ""


def sizes_in_order(rows: Sequence[Any]) -> list[str]:
    """Sizes of rows with an accuracy, the one with the least accurate best encoder first."""
    return sorted({row.size for row in rows}, key=lambda size: max(row.value for row in rows if row.size == size))


def error_bars(value: float, low: float, high: float, scale: float = 100.0) -> list[list[float]]:
    """What `errorbar` takes, from the ends of an interval."""
    return [[max(scale * (value - low), 0.0)], [max(scale * (high - value), 0.0)]]
