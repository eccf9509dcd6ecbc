import csv
import re
from dataclasses import replace

import pytest
from PIL import Image

from eyesmith.lab.answers import answer_all
from eyesmith.lab.figures import (
    ablation_chart,
    correlation_chart,
    cost_charts,
    data_chart,
    resolution_chart,
    size_chart,
)
from eyesmith.lab.figures.style import LOOKS, OTHERS, RULES, look


@pytest.fixture(scope="module")
def answers(results):
    return answer_all(results)


def test_a_figure_comes_in_three_files(answers, tmp_path) -> None:
    chart = data_chart(tmp_path, answers.data)  # all of them: tests/lab/test_page.py
    assert chart is not None
    assert chart.caption
    assert chart.alt
    with Image.open(tmp_path / "data.png") as image:
        assert image.width == 660  # 3.3 inches at 200 dots
    assert (tmp_path / "data.svg").read_bytes() == chart.svg
    assert b"<text" not in chart.svg  # shapes: no reader's fonts are needed
    with (tmp_path / "data.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["encoder"], float(line["value"])) for line in lines] == [
        (row.encoder, pytest.approx(row.value, rel=1e-5)) for row in answers.data.rows
    ]
    again = data_chart(tmp_path / "again", answers.data)
    assert again is not None
    assert again.svg == chart.svg


def test_nothing_to_draw_is_no_figure(answers, tmp_path) -> None:
    assert data_chart(tmp_path, replace(answers.data, rows=())) is None
    assert size_chart(tmp_path, replace(answers.size, rows=())) is None
    assert resolution_chart(tmp_path, replace(answers.resolution, rows=())) is None
    assert cost_charts(tmp_path, replace(answers.hybrid, rows=answers.hybrid.rows[:1])) == []
    assert ablation_chart(tmp_path, replace(answers.ablations[0], rows=())) is None
    assert correlation_chart(tmp_path, replace(answers.correlation, rows=())) is None


def test_no_type_is_smaller_than_seven_points() -> None:
    assert min(value for key, value in RULES.items() if key.endswith("size") and "marker" not in key) >= 7


def test_families_differ_in_more_than_colour() -> None:
    looks = [*LOOKS.values(), *OTHERS]
    assert len({one.color for one in looks}) == len(looks)
    assert len({one.marker for one in looks}) == len(looks)
    assert all(re.fullmatch("#[0-9A-F]{6}", one.color) for one in looks)
    assert look("mine", "mine", ["ViT", "mine", "timm"]) != look("timm:x", "timm", ["ViT", "mine", "timm"])


def test_colours_stay_apart_for_the_colour_blind() -> None:
    # matrices of Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    matrices = {
        "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
        "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    }
    colors = {name: [int(one.color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for name, one in LOOKS.items()}
    for rows in matrices.values():
        seen = {}
        for name, color in colors.items():
            linear = [part**2.2 for part in color]
            seen[name] = [
                min(max(sum(a * b for a, b in zip(row, linear, strict=True)), 0.0), 1.0) ** (1 / 2.2) for row in rows
            ]
        names = list(seen)
        for place, one in enumerate(names):
            for other in names[:place]:
                assert sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5 > 0.12
