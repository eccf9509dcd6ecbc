import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from eyesmith.report.content import Interval, ReportData, RunFacts
from eyesmith.report.render import render

VOID = {"img", "meta", "br", "hr", "input", "link"}


class Reader(HTMLParser):
    """Checks that tags balance, and notes what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def words(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(read(page).words))


def test_every_part_is_there_and_the_tags_balance(report: ReportData) -> None:
    reader = read(render(report))
    sections = [attributes["id"] for tag, attributes in reader.tags if tag == "section"]
    assert sections == ["results", "curves", "gallery", "styles", "search", "confusions", "making", "use", "sources"]
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a" and "rel" not in attributes]
    assert links == ["#main", *(f"#{section}" for section in sections)]
    assert sum(tag == "h1" for tag, _ in reader.tags) == 1
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    labels = {attributes["aria-labelledby"] for _, attributes in reader.tags if "aria-labelledby" in attributes}
    assert labels <= set(identifiers)


def test_text_from_outside_is_never_markup(report: ReportData) -> None:
    page = render(report)
    reader = read(page)
    assert not [tag for tag, _ in reader.tags if tag == "script"]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in words(page)  # shown as text
    assert "\x00" not in page
    assert "javascript:" not in "".join(attributes.get("href") or "" for _, attributes in reader.tags)


def test_the_page_loads_nothing(report: ReportData) -> None:
    page = render(report)
    reader = read(page)
    assert all(tag not in ("link", "iframe", "object", "script", "base") for tag, _ in reader.tags)
    for tag, attributes in reader.tags:
        assert tag == "a" or not any((attributes.get(name) or "").startswith("http") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")  # type: ignore[union-attr]
        assert "srcset" not in attributes
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_has_an_alternative_text_and_a_size(report: ReportData) -> None:
    pictures = [attributes for tag, attributes in read(render(report)).tags if tag == "img"]
    assert len(pictures) == 4
    assert all(one["alt"] and one["width"] == "72" and one["height"] == "72" for one in pictures)
    charts = [attributes for tag, attributes in read(render(report)).tags if tag == "svg"]
    assert len(charts) == 2
    assert all(one["role"] == "img" and one["aria-label"] for one in charts)


def test_numbers_are_those_of_the_data(report: ReportData) -> None:
    shown = words(render(report))
    for expected in ("38.2 %", "33.2 – 43.2", "6.5 %", "0.4 %", "5 min 36 s", "2.51 M", "101,790", "262", "Apache-2.0"):
        assert expected in shown, expected
    assert "99.9" not in shown


def test_the_main_number_is_of_unseen_drawings(report: ReportData) -> None:
    lead = words(render(report)).split("How good it is")[0]
    assert "On unseen drawings its first guess is right for 38.2 % of 262 pictures" in lead
    assert "ViT-Nano reaches 6.5 %" in lead


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        ({"cores": "2", "threads": "2"}, "in 5 min 36 s on 2 CPU cores."),
        ({"cores": "8", "threads": "4"}, "on 4 of 8 CPU cores."),
        ({"cores": "1"}, "on 1 CPU core."),
        ({"cores": "8", "accelerator": "NVIDIA H200"}, "in 5 min 36 s on NVIDIA H200."),
        ({}, "their texts in 5 min 36 s."),
    ],
)
def test_the_machine_is_named_as_the_log_has_it(report: ReportData, machine: dict[str, str], told: str) -> None:
    ours = replace(report.ours, machine=tuple(machine.items()))
    assert told in words(render(replace(report, ours=ours)))


def test_only_held_out_pictures_are_called_unseen(report: ReportData) -> None:
    assert "378 pictures that training never showed (unseen drawings)" in words(render(report))
    assert "never showed" not in words(render(replace(report, search_pool="")))


def test_hardest_style_comes_first(report: ReportData) -> None:
    shown = words(render(report)).split("Which style is hardest")[1]
    assert "Hardest is openmoji (25.0 % top-1), easiest noto (50.0 %)" in shown


def test_a_style_name_never_closes_the_style_sheet(report: ReportData) -> None:
    page = render(replace(report, search_pool="</style><script>x</script>"))
    assert page.count("</style>") == 1


@pytest.mark.parametrize("part", ["gallery", "baseline"])
def test_a_part_may_be_missing(report: ReportData, part: str) -> None:
    read(render(replace(report, **{part: None})))


def test_without_baseline_no_second_column(report: ReportData) -> None:
    shown = words(render(replace(report, baseline=None, curves=report.curves[:1])))
    assert "ViT-Nano" not in shown


def test_an_interrupted_run_says_so() -> None:
    facts = RunFacts(role="ours", name="x", folder="runs/x", is_finished=False, steps=30, planned_steps=100)
    page = render(ReportData(ours=facts, notices=("The run of x stopped at step 30",)))
    shown = words(page)
    assert "stopped at step 30" in shown
    assert "stopped at step 30 of 100" in shown
    assert "It has not been evaluated yet." in shown
    sections = [attributes["id"] for tag, attributes in read(page).tags if tag == "section"]
    assert sections == ["making", "use"]


def test_findings_of_the_health_rules_are_listed(report: ReportData) -> None:
    assert "looked wrong" not in render(report)
    ours = replace(report.ours, health=((1200, "the loss has stayed <script>"), (3000, "again")))
    page = render(replace(report, ours=ours))
    assert "spoke 2 times" in page
    assert "Step 1,200: the loss has stayed &lt;script&gt;" in page


def test_commands_in_notices_are_code(report: ReportData) -> None:
    page = render(replace(report, notices=("`eyesmith <resume>` goes on; a lone ` stays",)))
    assert "<li><code>eyesmith &lt;resume&gt;</code> goes on; a lone ` stays</li>" in page


def test_shell_commands_quote_what_a_shell_would_take_apart(report: ReportData) -> None:
    shown = words(render(report))
    assert """eyesmith verify 'runs/it'"'"'s here'""" in shown
    assert "eyesmith search 'runs/it'\"'\"'s here' data/emoji --split unseen_drawing '<script>" in shown


def test_what_pixels_reach_is_told_apart_from_the_models(report: ReportData) -> None:
    score = replace(report.scores[0], task="pixel_neighbour", split="unseen_drawing", metric="acc1")
    page = words(render(replace(report, scores=(*report.scores, replace(score, ours=Interval(value=0.2519))))))
    assert "pixel by pixel, without any model: top-1 25.2 % (unseen drawings)" in page
    assert "Pixel neighbour" not in page
