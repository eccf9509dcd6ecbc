"""Charts as inline SVG and as HTML bars; colours come from the page's style sheet, so both colour schemes work."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eyesmith.report.markup import Markup, element, join

WIDTH, HEIGHT = 460, 300  # SVG units; the page scales a chart to the width of its column
LEFT, RIGHT, TOP, BOTTOM = 46, 116, 26, 44
LABEL_GAP = 34  # least distance between two labels at line ends: each has two lines of text
MAX_POINTS = 240


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve. points: (x, y) in data units, x ascending; role picks the colour: ours, baseline or chance."""

    role: str
    label: str
    points: Sequence[tuple[float, float]]
    has_dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar. value, low, high in the units of the group's maximum; `shown` is the value as text."""

    role: str
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    shown: str = ""


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: the means of equally long runs of neighbours (the last run may be shorter).

    Points that are not finite are left out.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = max(1, math.ceil(len(finite) / limit))
    runs = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def ticks(low: float, high: float, num: int = 5) -> list[float]:
    """Round numbers that span low..high, about `num` of them: the steps are 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / num
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    description: str,
    y_format: Callable[[float], str],
    chance: float | None = None,
) -> Markup:
    """Curves over a common x axis from zero, each labelled at its end with its name and last value.

    y starts at zero, or below where a value is. chance: a dashed line at that y. description: what a reader who cannot
    see the chart is told.
    Curves without a finite point are left out; with none left the axes are drawn alone.
    """
    curves = [(line, thin(line.points)) for line in lines]
    curves = [(line, points) for line, points in curves if points]
    x_high = max((points[-1][0] for _, points in curves), default=1.0) or 1.0  # the axis ends with the longest run
    x_ticks = ticks(0.0, x_high, 7)
    ys = [0.0, chance or 0.0, *(y for _, points in curves for _, y in points)]
    y_ticks = ticks(min(ys), max(ys) if any(ys) else 1.0)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at_x(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / x_high

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_low) / (y_high - y_low)

    parts = frame(
        [(tick, at_x(tick)) for tick in x_ticks if tick <= x_high * 1.001],
        [(tick, at_y(tick)) for tick in y_ticks],
        right=RIGHT,
        height=HEIGHT,
        x_label=x_label,
        y_label=y_label,
    )
    ends: list[tuple[float, str, str, str]] = []
    for line, points in curves:
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        parts.append(element("polyline", class_=f"curve {line.role}", points=path))
        for x, y in points if line.has_dots else points[-1:]:
            parts.append(element("circle", class_=f"dot {line.role}", cx=f"{at_x(x):.1f}", cy=f"{at_y(y):.1f}", r=3))
        ends.append((at_y(points[-1][1]), line.role, line.label, y_format(points[-1][1])))
    if chance is not None:
        y = round(at_y(chance), 1)
        parts.append(element("line", class_="curve chance", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        ends.append((y, "chance", "chance", y_format(chance)))
    for (_, role, label, shown), y in zip(sorted(ends), _spread([end[0] for end in sorted(ends)]), strict=True):
        x = WIDTH - RIGHT + 10
        name = element("tspan", label if len(label) <= 14 else label[:13] + "…", class_="name", x=x, y=round(y - 1, 1))
        value = element("tspan", shown, class_="value", x=x, y=round(y + 14, 1))
        parts.append(element("text", name, value, class_=f"label {role}"))
    return element("svg", parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)


def frame(
    x_ticks: Sequence[tuple[float, float]],
    y_ticks: Sequence[tuple[float, float]],
    *,
    right: int,
    height: int,
    x_label: str,
    y_label: str,
    has_columns: bool = False,
) -> list[Markup]:
    """Grid lines, numbers and names of the axes. Ticks: (number, place); right: the margin; has_columns: lines at x."""
    parts: list[Markup] = []
    for tick, place in y_ticks:
        y = round(place, 1)
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - right, y1=y, y2=y))
        parts.append(element("text", f"{tick:g}", class_="tick", x=LEFT - 8, y=y + 4, text_anchor="end"))
    for tick, place in x_ticks:
        x = round(place, 1)
        if has_columns:
            parts.append(element("line", class_="grid", x1=x, x2=x, y1=TOP, y2=height - BOTTOM))
        parts.append(element("text", f"{tick:g}", class_="tick", x=x, y=height - BOTTOM + 18, text_anchor="middle"))
    middle = (LEFT + WIDTH - right) / 2
    parts.append(element("text", y_label, class_="axis", x=0, y=12))
    parts.append(element("text", x_label, class_="axis", x=middle, y=height - 6, text_anchor="middle"))
    return parts


def _spread(heights: Sequence[float]) -> list[float]:
    """Heights, ascending, moved to be at least LABEL_GAP apart with the lowest label inside the chart."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, TOP + 4, placed[-1] + LABEL_GAP if placed else -math.inf))
    limit = HEIGHT - BOTTOM - 8.0
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - LABEL_GAP
    return placed


def bar_rows(bars: Sequence[Bar], *, maximum: float = 1.0) -> Markup:
    """Horizontal bars with a whisker for the interval; a bar without a value shows its text only."""
    return element("div", [_bar_row(bar, maximum) for bar in bars], class_="bars")


def _bar_row(bar: Bar, maximum: float) -> Markup:
    def share(value: float) -> str:
        return f"{100 * min(max(value / maximum, 0.0), 1.0):.2f}%"

    marks: list[Markup] = []
    if bar.value is not None:
        marks.append(element("span", class_="fill", style=f"width:{share(bar.value)}"))
        if bar.low is not None and bar.high is not None:
            width = f"calc({share(bar.high)} - {share(bar.low)})"
            marks.append(element("span", class_="whisker", style=f"left:{share(bar.low)};width:{width}"))
    return element(
        "div",
        element("span", bar.label, class_="bar-label"),
        element("span", join(marks), class_="track", aria_hidden="true"),
        element("span", bar.shown, class_="bar-value"),
        class_=f"bar {bar.role}",
    )
