import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from eyesmith.lab.page import write_page
from eyesmith.lab.page.samples import choose_cells


@pytest.fixture(scope="module")
def page(results) -> str:
    path = write_page(results)
    assert path == results.folder / "index.html"
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Headings, anchors and what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        if tag == "a":
            self.links.append(values.get("href") or "")
        if "src" in values:
            self.sources.append(values["src"] or "")


def test_the_page_carries_all_it_shows(page) -> None:
    outline = Outline()
    outline.feed(page)
    assert all(link.startswith("#") and link[1:] in outline.ids for link in outline.links)
    assert len(outline.sources) == 10  # three costs, data, size, resolution, three changes, correlation
    assert all(source.startswith("data:image/svg+xml;base64,") for source in outline.sources)
    assert "<script" not in page


def test_findings_come_first(page) -> None:
    lead = page.index('class="lead"')
    assert page.index("At equal size and budget", lead) - lead < 100
    assert page.index("rank correlation") < page.index("<nav")


def test_every_cell_says_how_to_make_it_again(results, page) -> None:
    out = results.folder.parent.name
    for cell in results.cells:
        assert f"eyesmith lab run synthetic/plan.json --only {cell.id} --out {out}" in page
    assert str(results.folder.parent) not in page  # no home is told


def test_what_failed_is_told_as_text(page) -> None:
    assert "the loss is not finite at step 12 &lt;nan&gt;" in page
    assert "convnext-nano-200k-lab_ltt-s1" in page
    assert "No cell kept its weights" in page


def test_numbers_lie_beside_the_page(results, page) -> None:
    names = {path.name for path in results.folder.iterdir()}
    assert {"answers.json", "results.csv", "data.svg", "data.png", "data.csv"} <= names
    assert json.loads((results.folder / "answers.json").read_text())["answers"]["data"]["fits"]
    figures = re.findall(r"<code>([\w-]+)\.svg, \.png, \.csv</code>", page)
    assert sorted(figures) == sorted(
        [
            *("cost-multiply-adds", "cost-latency", "cost-memory", "data", "size", "resolution"),
            *("block", "ltt", "quality", "correlation"),
        ]
    )
    for name in figures:
        assert {f"{name}.svg", f"{name}.png", f"{name}.csv"} <= names
        with Image.open(results.folder / f"{name}.png") as image:
            assert image.width == 660


def test_a_plan_without_results_has_a_page(results, tmp_path) -> None:
    path = write_page(replace(results, cells=(), measured=(), failed=(), folder=tmp_path / "none"))
    assert "No cell is finished yet" in path.read_text(encoding="utf-8")


def test_the_best_cell_is_shown_beside_a_plain_one(results, tmp_path) -> None:
    from eyesmith.lab.answers import Metric

    metric = Metric(split="unseen_drawing")
    assert choose_cells(results.cells, metric) == []
    grid = [cell for cell in results.cells if cell.level == 2 and cell.seed == 0 and "grid" in cell.groups]
    kept = []
    for cell in grid:
        folder = tmp_path / cell.id / "run"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        kept.append(replace(cell, folder=folder.parent))
    best, plain = choose_cells(kept, metric)
    assert best.value("unseen_drawing") == max(cell.value("unseen_drawing") for cell in kept)
    assert (plain.family, plain.size) == ("ViT", best.size)
