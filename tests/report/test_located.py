"""The page of a located evaluation: every number and name on it, nothing loaded, nothing unescaped."""

import itertools
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.annotations import open_annotations
from eyesmith.data.annotations.masks import mask_box, mask_to_runs
from eyesmith.data.annotations.pictures import FolderPictures
from eyesmith.data.annotations.types import Annotations, Category, Kind, Objects, Picture
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import DataError
from eyesmith.eval.located import Found, detect_rows, found, outcomes
from eyesmith.eval.results.rows import ResultRow
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


def whole(folder: Path, kind: Kind) -> Annotations:
    """A picture of 40 x 40 pixels: sky above, a cat in grass below, void at the bottom."""
    sky, cat, grass, void = (np.zeros((40, 40), np.bool_) for _ in range(4))
    sky[:20], cat[24:32, 20:30], void[36:] = True, True, True
    grass[20:36] = ~cat[20:36]
    masks = (sky, cat, grass)
    objects = Objects(
        xywh=np.array([mask_box(mask) for mask in masks], np.float64),
        labels=np.arange(3),
        crowd=np.zeros(3, np.bool_),
        area=np.array([mask.sum() for mask in masks], np.float64),
        ids=np.arange(1, 4),
        shapes=tuple(mask_to_runs(mask) for mask in masks),
        height=40,
        width=40,
    )
    Image.new("RGB", (40, 40), "white").save(folder / "one.png")
    return Annotations(
        name="whole",
        kind=kind,
        form="made",
        path=folder,
        categories=tuple(Category(id=place, name=name) for place, name in enumerate(("sky", "cat", "grass"))),
        pictures=(Picture(id=1, file="one.png", width=40, height=40),),
        read=lambda _: objects,
        images=FolderPictures((folder,)),
        void=lambda _: void,
    )


def row(split: str, metric: str, value: float) -> ResultRow:
    return ResultRow(
        model="m head", task="segment", split=split, metric=metric, value=value, low=0.1, high=0.9, n=1, chance=None
    )


def test_what_is_found_in_void_is_not_called_wrong(tmp_path: Path) -> None:
    """Nor does the void that a segment covers cost it its match: a cat with all that is below is the cat."""
    truth = whole(tmp_path, "panoptic")
    sky, cat, grass = truth.objects(0).masks
    rows = np.arange(40)[:, None] + np.zeros((40, 40))

    def said(other: np.ndarray) -> str:
        masks = [sky, cat | (rows >= 36), grass, other]
        seen = found([[0, 0, 40, 40]] * 4, [0.9, 0.8, 0.7, 0.95], [0, 1, 2, 1], masks)
        return render_located("m", truth, [seen], [], region="mask")

    right = "Of 3 segments in 1 picture <strong>3 are found under their name</strong>, 0 under another, 0 not at all; "
    assert f"{right}0 found segments overlap nothing by half." in said(rows >= 35)
    assert f"{right}1 found segment overlaps nothing by half." in said(rows < 4), "in the sky"


def test_numbers_stand_in_their_masks_and_apart(tmp_path: Path) -> None:
    truth = whole(tmp_path, "panoptic")
    html = render_located("m", truth, [found([], [], [], [])], [], region="mask")
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', html)]
    assert len(places) == 3
    assert [int(truth.segments(0)[int(y), int(x)]) for x, y in places] == [0, 1, 2]
    both = [found([[0, 0, 40, 40]] * 3, [0.9, 0.8, 0.7], [1, 1, 1], [truth.objects(0).masks[0]] * 3)]
    html = render_located("m", truth, both, [], region="mask")
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', html)]
    assert min(math.dist(one, other) for one, other in itertools.combinations(places, 2)) > 2


@pytest.mark.parametrize(("kind", "noun", "metric"), [("semantic", "regions", "mIoU"), ("panoptic", "segments", "PQ")])
def test_a_set_is_told_by_what_it_marks(tmp_path: Path, kind: Kind, noun: str, metric: str) -> None:
    truth = whole(tmp_path, kind)
    rows = [
        ResultRow(
            model="m head", task="segment", split="all", metric=name, value=value, low=0.1, high=0.9, n=1, chance=None
        )
        for name, value in (("pq", 0.25), ("miou", 0.75))
    ]
    costs = [Cost(setting="head", seconds=0.1)]
    html = render_located("m head", truth, [found([], [], [], [])], rows, costs, region="mask")
    assert f"Of 3 {noun} in 1 picture " in html
    assert f"all, {metric}" in html
    assert ("A region is all pixels of a class" in html) == (kind == "semantic")
    assert "ovel" not in html, "no class of the set is"


def test_a_set_of_new_names_alone_is_told_so(tmp_path: Path) -> None:
    truth = whole(tmp_path, "panoptic")
    truth = replace(truth, categories=tuple(replace(one, is_novel=True) for one in truth.categories))
    rows = [
        ResultRow(
            model="m head", task="segment", split=split, metric="pq", value=0.25, low=0.1, high=0.9, n=1, chance=None
        )
        for split in ("novel", "all")
    ]
    html = render_located("m head", truth, [found([], [], [], [])], rows, [Cost(setting="head")], region="mask")
    assert "On the 3 classes that training never showed, PQ reaches 25.0" in html
    assert "Training marked none of these classes" in html
    assert "all, PQ" not in html, "the same again"
    assert html.count('class="bar ') == 1
    html = render_located("m head", truth, [found([], [], [], [])], [row("novel", "pq", 0.0)], region="mask")
    assert "On the 3 classes that training never showed, PQ is 0 in every setting." in html


def test_names_are_escaped(truth: Annotations) -> None:

    odd = replace(truth, name="<b>x", categories=tuple(replace(one, name="<i>" + one.name) for one in truth.categories))
    html = render_located("<script>", odd, guesses(truth), [])
    assert "<b>x" not in html
    assert "<i>" not in html
    assert "<script>" not in html


def test_of_a_hundred_wrong_detections_the_surest_are_drawn_and_the_others_counted(truth: Annotations) -> None:
    one = replace(truth, pictures=truth.pictures[:1])
    boxes, scores = np.tile([[0.0, 0.0, 2.0, 2.0]], (100, 1)), np.linspace(0.2, 0.1, 100)
    html = render_located("nano", one, [found(boxes, scores, np.zeros(100, np.int64))], ())
    assert html.count(", wrong</span>") == 10
    assert "and 90 more, wrong" in html
    assert ">0.20<" in html
    assert ">0.10<" not in html
    assert "100 detections overlap nothing" in html
    assert "of every score, as none of them is right" in html
    assert "F1" not in html


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
