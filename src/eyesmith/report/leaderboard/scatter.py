"""A scatter chart as inline SVG: score over cost on a logarithmic axis, measured models in front of published ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eyesmith.report.charts import BOTTOM, LEFT, TOP, WIDTH, frame, ticks
from eyesmith.report.markup import Markup, element

HEIGHT, RIGHT = 320, 16  # SVG units
LETTER, LINE = 6.4, 14.0  # width of a letter and height of a line of the labels' type


@dataclass(frozen=True, kw_only=True)
class Point:
    """x: a positive cost; y: a fraction. role: "ours" or "baseline", as the page's colours are named."""

    role: str
    label: str
    x: float
    y: float


def scatter(points: Sequence[Point], *, x_label: str, y_label: str, description: str) -> Markup:
    """Points with a label where there is room, measured models first; the pointer shows every point's name.

    y is drawn in per cent between the least and the greatest value, not from zero. Needs at least one point.
    """
    low_x, high_x = _log_range([point.x for point in points])
    y_ticks = ticks(100 * min(point.y for point in points), 100 * max(point.y for point in points) + 1e-9)
    if len(y_ticks) == 1:
        y_ticks = [y_ticks[0] - 1, y_ticks[0] + 1]

    def at_x(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(x) - low_x) / (high_x - low_x)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (100 * y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    parts = frame(
        [(tick, at_x(tick)) for tick in _log_ticks(low_x, high_x)],
        [(tick, at_y(tick / 100)) for tick in y_ticks],
        right=RIGHT,
        height=HEIGHT,
        x_label=x_label,
        y_label=y_label,
        has_columns=True,
    )
    ordered = sorted(points, key=lambda point: (point.role != "ours", -point.y))
    placed = [(at_x(point.x), at_y(point.y)) for point in ordered]
    for point, (x, y) in reversed(list(zip(ordered, placed, strict=True))):
        title = element("title", f"{point.label}: {100 * point.y:.1f} % at {point.x:g}")
        radius = 5 if point.role == "ours" else 3.5
        parts.append(element("circle", title, class_=f"dot {point.role}", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius))
    parts += _labels(ordered, placed)
    return element("svg", parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)


def _labels(points: Sequence[Point], placed: Sequence[tuple[float, float]]) -> list[Markup]:
    """Names beside their points, right or left of them, as long as they cover no other name and no point."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in placed]
    names: list[Markup] = []
    for point, (x, y) in zip(points, placed, strict=True):
        width = LETTER * len(point.label)
        for anchor, left in (("start", x + 8), ("end", x - 8 - width)):
            box = (left, y - LINE / 2, left + width, y + LINE / 2)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - 8
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                at = round(x + 8 if anchor == "start" else x - 8, 1)
                label = element("tspan", point.label, class_="name")
                names.append(
                    element("text", label, class_=f"label {point.role}", x=at, y=round(y + 4, 1), text_anchor=anchor)
                )
                break
    return names


def _meet(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    """The natural logarithms of the axis' ends: a little beyond the values on both sides."""
    low, high = math.log(min(values)), math.log(max(values))
    margin = max(0.06 * (high - low), 0.15)
    return low - margin, high + margin


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers 1, 2 and 5 times powers of ten within the axis; fewer when there would be more than eight."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        first, last = math.floor(low / math.log(10)), math.ceil(high / math.log(10))
        found = [
            round(factor * 10.0**power, 10)
            for power in range(first, last + 1)
            for factor in factors
            if low <= math.log(factor * 10.0**power) <= high
        ]
        if len(found) <= 8:
            break
    return found
