import itertools
import math
import re

import pytest

from eyesmith.report.charts import (
    BOTTOM,
    HEIGHT,
    LABEL_GAP,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    Line,
    bar_rows,
    line_chart,
    thin,
    ticks,
)


def chart(lines: list[Line], chance: float | None = None) -> str:
    return line_chart(
        lines, x_label="minutes", y_label="loss", description="d", y_format=lambda y: f"{y:.1f}", chance=chance
    )


def points_of(svg: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]*)"', svg)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


def test_thin_keeps_the_mean_and_the_limit() -> None:
    points = [(float(i), float(i % 7)) for i in range(1400)]
    few = thin(points, 200)
    assert len(few) == 200
    assert sum(y for _, y in few) / 200 == pytest.approx(sum(y for _, y in points) / 1400)
    assert thin([(0.0, math.nan), (1.0, 2.0), (2.0, math.inf)]) == [(1.0, 2.0)]
    assert thin([]) == []


def test_ticks_are_round_and_cover_the_range() -> None:
    assert ticks(0.0, 5.6, 7) == [0, 1, 2, 3, 4, 5, 6]
    assert ticks(0.0, 0.38) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert ticks(0.0, 40.0) == [0, 10, 20, 30, 40]
    assert ticks(3.0, 3.0) == [3.0]


def test_higher_values_are_drawn_higher_and_inside() -> None:
    points = points_of(chart([Line(role="ours", label="a", points=[(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)])]))
    assert points[0][1] > points[1][1] > points[2][1]
    assert points[0][0] == LEFT
    assert points[-1][0] == WIDTH - RIGHT
    assert all(0 <= y <= HEIGHT for _, y in points)


@pytest.mark.parametrize("values", [(-0.5, -0.2), (-0.5, 0.2), (0.0, 0.0), (-0.3,)])
def test_values_below_zero_are_drawn_inside(values: tuple[float, ...]) -> None:
    points = points_of(chart([Line(role="ours", label="a", points=list(enumerate(values)))]))
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in points)


def test_a_chance_above_all_values_is_drawn_inside() -> None:
    svg = chart([Line(role="ours", label="a", points=[(0.0, 0.1), (1.0, 0.2)])], chance=0.9)
    (height,) = re.findall(r'class="curve chance"[^>]* y1="([-\d.]+)"', svg)
    assert TOP <= float(height) <= HEIGHT - BOTTOM


def test_labels_stand_at_the_ends_and_apart() -> None:
    lines = [
        Line(role="ours", label="first", points=[(0.0, 1.0)]),
        Line(role="baseline", label="second", points=[(0.0, 1.0)]),
    ]
    svg = chart(lines, chance=1.0)
    heights = sorted(float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 3
    assert all(after - before >= LABEL_GAP - 0.2 for before, after in itertools.pairwise(heights))
    assert heights[-1] < HEIGHT
    assert svg.count("1.0</tspan>") == 3


def test_a_chart_without_points_has_axes() -> None:
    assert "polyline" not in chart([Line(role="ours", label="a", points=[])])


def test_bars_never_leave_their_track() -> None:
    bars = bar_rows(
        [
            Bar(role="ours", label="<b>", value=1.7, low=-0.1, high=2.0, shown="170 %"),
            Bar(role="x", label="y", value=None),
        ]
    )
    assert "width:100.00%" in bars
    assert "left:0.00%" in bars
    assert "&lt;b&gt;" in bars
    assert bars.count('class="fill"') == 1
