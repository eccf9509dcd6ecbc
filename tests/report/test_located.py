"""The page of a located evaluation: every number and name on it, nothing loaded, nothing unescaped."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.annotations import open_annotations
from eyesmith.data.annotations.types import Annotations
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import DataError
from eyesmith.eval.located import Found, detect_rows, found, outcomes
from eyesmith.report.located import Cost, chosen_pictures, render_located, write_located


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, samples=6, size_px=48)

    found_here = open_annotations(folder, "unseen_combination")
    return replace(found_here, pictures=found_here.pictures[:20])


def guesses(truth: Annotations, *, masks: bool = False) -> list[Found]:
    """Every object, every third under the next name, every fourth not, and a box of nothing."""
    listed = []
    for index, objects in enumerate(truth):
        keep = (np.arange(len(objects)) + index) % 4 > 0
        labels = np.where((np.arange(len(objects)) + index) % 3 == 0, (objects.labels + 1) % 288, objects.labels)[keep]
        boxes = np.concatenate([objects.boxes[keep], [[0, 0, 3, 3]]])
        scores = np.linspace(0.9, 0.6, len(boxes))
        shapes = [*objects.masks[keep], np.eye(48, dtype=bool)] if masks else None
        listed.append(found(boxes, scores, np.append(labels, 5), shapes))
    return listed


class Checker(HTMLParser):
    """Open tags match closing ones; nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page(truth: Annotations, tmp_path: Path) -> None:
    detections = guesses(truth)
    rows = detect_rows(truth, detections, model="nano", setting="crop", replicates=20)
    costs = [Cost(setting="crop", seconds=0.21, peak_bytes=300 * 2**20), Cost(setting="dense")]
    path = write_located(
        tmp_path / "page.html", model="nano", truth=truth, found=detections, rows=rows, costs=costs, machine="2 cores"
    )
    html = path.read_text("utf-8")
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert all(one.startswith("data:image/webp;base64,") for one in checker.loaded)
    assert len(checker.loaded) == 12
    for row in rows:
        assert f"{100 * row.value:.1f}" in html
    assert "210" in html
    assert "300" in html
    assert "Measured on 2 cores" in html
    kinds = [
        one.kind for objects, seen in zip(truth, detections, strict=True) for one in outcomes(objects, seen, floor=0.6)
    ]
    shown = re.search(
        r"Of (\d+) objects in 20 pictures <strong>(\d+) are found.*?, (\d+) under another, (\d+) not", html
    )
    assert shown is not None
    assert int(shown[1]) == sum(len(one) for one in truth)
    assert int(shown[1]) == int(shown[2]) + int(shown[3]) + int(shown[4])
    assert set(kinds) == {"right", "confused", "missed", "wrong"}
    assert render_located("nano", truth, detections, rows, costs, machine="2 cores") == html


def test_masks_are_outlined(truth: Annotations) -> None:
    html = render_located("nano", truth, guesses(truth, masks=True), [], region="mask")
    assert html.count('class="shape mask"') > 20
    assert 'id="results"' not in html


def test_names_are_escaped(truth: Annotations) -> None:

    odd = replace(truth, name="<b>x", categories=tuple(replace(one, name="<i>" + one.name) for one in truth.categories))
    html = render_located("<script>", odd, guesses(truth), [])
    assert "<b>x" not in html
    assert "<i>" not in html
    assert "<script>" not in html


def test_pictures_are_chosen_between_best_and_worst(truth: Annotations) -> None:
    listed = [outcomes(objects, one) for objects, one in zip(truth, guesses(truth), strict=True)]
    chosen = chosen_pictures(listed, 5)
    shares = [sum(one.kind == "right" for one in listed[index]) / len(listed[index]) for index in chosen]
    assert len(set(chosen)) == 5
    assert shares == sorted(shares, reverse=True)
    assert chosen_pictures(listed, 50) == sorted(
        range(20), key=lambda i: (-sum(o.kind == "right" for o in listed[i]) / len(listed[i]), i)
    )
    assert chosen_pictures([[], []]) == []


def test_no_detections_and_no_pictures(truth: Annotations, tmp_path: Path) -> None:

    html = render_located("nano", truth, [found([], [], [])] * len(truth), [])
    assert "0 are found under their name" in html
    with pytest.raises(DataError, match="no pictures to show"):
        write_located(tmp_path / "x.html", model="m", truth=replace(truth, pictures=()), found=[], rows=[])
