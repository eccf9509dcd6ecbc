"""The page and its CSV: self-contained, escaped, sortable, and whole from real result folders."""

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results import append_eval_result, write_info
from eyesmith.eval.results.lines import append_objects
from eyesmith.eval.results.rows import ResultRow, append_rows
from eyesmith.eval.sets import SUITES
from eyesmith.hub import save_model
from eyesmith.models import create
from eyesmith.report.leaderboard import write_leaderboard
from eyesmith.report.leaderboard.scatter import Point, scatter
from eyesmith.report.leaderboard.worst import read_predictions, worst_classes


class Balance(HTMLParser):
    """Raises where an element is closed that was not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write_model(folder: Path, name: str, value: float, *, suite: str = "datacomp") -> Path:
    for place, task in enumerate(SUITES[suite].tasks):
        if task.metric is None:
            continue
        main = value + place / 1000
        append_eval_result(
            folder / "eval_results.jsonl", key=task.key, name=task.name, metrics={task.metric: main}, main=main
        )
    write_info(folder, model=name, image_gmacs=5.5, text_gmacs=1.6, samples_b=1.28)
    return folder


def write_mnist(folder: Path) -> None:
    append_eval_result(folder / "eval_results.jsonl", key="mnist", name="MNIST", metrics={"acc1": 0.5}, main=0.5)


def write_predictions(folder: Path) -> None:
    """CIFAR-10: class 0 always wrong and taken for 3, class 1 half right, class 2 all right; class 9 has one image."""
    targets = np.array([0, 0, 0, 1, 1, 2, 2, 9], np.int32)
    guesses = np.array([3, 3, 1, 1, 4, 2, 2, 0], np.int32)
    top = np.stack([guesses, targets], 1)
    ranks = np.where(targets == guesses, 0, 1).astype(np.int32)
    (folder / "predictions").mkdir()
    keys = np.array([f"s{place:07d}" for place in range(8)])
    np.savez(folder / "predictions" / "cifar10.npz", keys=keys, targets=targets, ranks=ranks, top=top)


def test_a_page_from_two_models(tmp_path: Path) -> None:
    folders = [write_model(tmp_path / "a", "ViTamin <S>", 0.4), write_model(tmp_path / "b", "other", 0.3)]
    out = tmp_path / "out" / "board.html"
    board = write_leaderboard(folders, out)
    page = out.read_text()
    assert [one.suite.name for one in board.suites] == ["datacomp", "retrieval"]
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "ViTamin <S>" not in page
    assert "ViTamin &lt;S&gt;" in page
    for title in ("Accuracy and compute", "Accuracy and size", "Accuracy and data", "Task by task", "Every task"):
        assert title in page
    assert "<del" in page  # the slip of Table 3
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing from elsewhere
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"sha256-{digest}" in page  # the one script that the page's policy lets run


def test_every_sortable_cell_has_the_value_it_shows(tmp_path: Path) -> None:
    out = tmp_path / "board.html"
    write_leaderboard([write_model(tmp_path / "a", "m", 0.4)], out)
    table = re.search(r"<table[^>]*aria-label=\"DataComp, 38 tasks\".*?</table>", out.read_text(), re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table[0], re.DOTALL)
    heads = len(re.findall(r"<th ", rows[0]))
    for row in rows[1:]:
        cells = re.findall(r"<t[hd][^>]*>.*?</t[hd]>", row, re.DOTALL)
        assert len(cells) == heads
        for cell in cells[1:6]:
            value = re.search(r'data-value="([\d.]+)"', cell)
            shown = re.search(r">([\d.]+)<", re.sub("<del.*?</del>", "", cell))
            assert value is not None
            assert shown is not None
            assert float(shown[1]) == pytest.approx(100 * float(value[1]), abs=0.051)


def test_the_csv_has_every_number(tmp_path: Path) -> None:
    out = tmp_path / "board.html"
    write_leaderboard([write_model(tmp_path / "a", "=cmd()", 0.4)], out)
    lines = list(csv.DictReader(io.StringIO(out.with_suffix(".csv").read_text())))
    mine = next(line for line in lines if line["role"] == "ours" and line["suite"] == "datacomp")
    assert mine["model"] == "'=cmd()"  # a name that a spreadsheet would run
    assert float(mine["imagenet"]) == pytest.approx(0.411)
    assert float(mine["vtab/dtd"]) == pytest.approx(0.406)
    siglip = next(line for line in lines if line["model"] == "ViT-L/16 SigLIP 256")
    assert (siglip["vtab"], siglip["vtab_printed"]) == ("0.629", "0.625")
    assert sum(line["suite"] == "datacomp" for line in lines) == 29


def test_without_published_rows_and_with_a_users_own_set(tmp_path: Path) -> None:
    row = ResultRow(
        model="mine", task="zero_shot", split="test", metric="acc1", value=0.5, low=0.4, high=0.6, n=80, chance=0.1
    )
    recall = dataclasses.replace(row, metric="image_retrieval_recall@1", value=0.25, n=417)
    other = dataclasses.replace(row, metric="acc5", value=0.9, chance=0.4321)
    append_rows(tmp_path / "results.jsonl", [row, other, recall])
    board = write_leaderboard([tmp_path / "results.jsonl"], tmp_path / "b.html", with_published=False)
    assert board.suites == ()
    page = (tmp_path / "b.html").read_text()
    assert "zero_shot/test" in page
    assert "40.0\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}60.0" in page
    assert "Table 3" not in page
    assert "90.0" in page
    shown = re.findall(r'data-value="(\d+)"[^>]*>\1</td></tr>', page)
    assert shown == ["80", "80", "417"]  # of how many queries each number is the mean, not the main one for all
    assert "43.2" not in page  # the chance of another metric than the main one


def test_missing_sets_are_named_on_the_page(tmp_path: Path) -> None:
    write_mnist(tmp_path / "m")
    write_leaderboard([tmp_path / "m"], tmp_path / "b.html")
    page = (tmp_path / "b.html").read_text()
    assert "Sets without a result" in page
    assert all(task.name in page for task in SUITES["datacomp"].tasks if task.metric is not None)


def test_worst_classes_by_recall_then_by_number(tmp_path: Path) -> None:
    write_predictions(tmp_path)
    (predictions,) = read_predictions(tmp_path)
    worst = worst_classes(predictions)
    assert [(one.name, one.right, one.total) for one in worst] == [("class 0", 0, 3), ("class 1", 1, 2)]
    assert worst[0].taken_for == (("class 3", 2), ("class 1", 1))
    assert worst[0].recall == 0.0
    assert worst[0].mistakes == ()


def test_pictures_of_the_worst_classes_come_from_the_data(tmp_path: Path) -> None:
    from eyesmith.data.evaluation import open_evaluation_set
    from eyesmith.data.make import make_miniatures

    folder = make_miniatures(tmp_path / "data", ["cifar10"])["cifar10"]
    found = open_evaluation_set(folder, layout="classification")
    assert found.labels is not None
    targets = found.labels.astype(np.int32)
    top = ((targets + 1) % len(found.classes))[:, None].astype(np.int32)
    model = tmp_path / "m"
    append_eval_result(model / "eval_results.jsonl", key="cifar10", name="CIFAR-10", metrics={"acc1": 0.0}, main=0.0)
    (model / "predictions").mkdir()
    np.savez(
        model / "predictions" / "cifar10.npz",
        keys=np.array(found.source.keys),
        targets=targets,
        ranks=np.ones_like(targets),
        top=top,
    )
    write_leaderboard([model], tmp_path / "b.html", data=tmp_path / "data")
    page = (tmp_path / "b.html").read_text()
    assert "Worst classes" in page
    assert found.classes[0] in page
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert pictures
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        assert max(picture.size) <= 96


def test_a_damaged_prediction_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "cifar10.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"cifar10\.npz: cannot be read as a prediction file"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": "page.pdf"}, "ends in .html"),
        ({"compare": ("m",)}, "expected two models, got 1"),
        ({"compare": ("m", "nobody")}, "no model 'nobody'"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict, message: str) -> None:
    folder = write_model(tmp_path / "m", "m", 0.4)
    out = tmp_path / arguments.pop("out", "b.html")
    with pytest.raises(ConfigError, match=message):
        write_leaderboard([folder], out, **arguments)
    assert not out.exists()


@pytest.mark.slow
def test_sizes_of_a_named_model_are_filled_in(tmp_path: Path) -> None:
    write_mnist(tmp_path / "m")
    write_info(tmp_path / "m", model="ViTamin-S")
    board = write_leaderboard([tmp_path / "m"], tmp_path / "b.html")
    facts = board.suites[0].measured[0].facts
    assert facts["image_gmacs"] == pytest.approx(5.50, abs=0.01)  # the paper's, with its own count
    assert facts["params_m"] == pytest.approx(22.03 + 40.44, abs=0.02)


def test_sizes_and_samples_of_a_run_folder_are_filled_in(tmp_path: Path) -> None:
    clip = create("ViTamin-Nano")
    save_model(tmp_path, clip)
    (tmp_path / "log.jsonl").write_text('{"event": "start"}\n{"step": 5, "samples": 640, "loss": 1.0, "time_s": 2.0}\n')
    write_mnist(tmp_path)
    facts = write_leaderboard([tmp_path], tmp_path / "b.html").suites[0].measured[0].facts
    assert facts["image_params_m"] == pytest.approx(sum(one.numel() for one in clip.image.parameters()) / 1e6)
    assert facts["samples_b"] == 640e-9
    (tmp_path / "config.json").write_text("[]")  # another program's file
    facts = write_leaderboard([tmp_path], tmp_path / "b.html").suites[0].measured[0].facts
    assert "image_params_m" not in facts


def test_a_run_folder_gives_its_sizes_to_no_other_model_measured_into_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_model(run, create("ViTamin-Nano"))
    (run / "log.jsonl").write_text('{"event": "start"}\n{"step": 5, "samples": 640, "loss": 1.0, "time_s": 2.0}\n')
    row = ResultRow(
        model="own", task="imagenet1k", split="test", metric="acc1", value=0.5, low=0.4, high=0.6, n=9, chance=0.001
    )
    others = {"own": str(run), "theirs": "hf:someone/theirs", "another": str(tmp_path / "another"), "none": None}
    rows = [
        dataclasses.replace(row, model=name, run=place and {"weights": name, "source": place})
        for name, place in others.items()
    ]
    append_rows(run / "results.jsonl", rows)
    board = write_leaderboard([run], tmp_path / "b.html", with_published=False)
    facts = {model.model: dict(model.facts) for model in board.models}
    assert set(facts) == set(others)
    assert "image_params_m" in facts["own"]
    assert facts["own"]["samples_b"] == 640e-9
    assert all(not facts[name] for name in ("theirs", "another", "none"))


def test_the_worst_classes_of_a_folder_are_of_the_model_that_was_measured_there(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    run = {"weights": "own", "source": "hf:someone/own", "model": "own"}
    append_objects(
        folder / "eval_results.jsonl",
        [{"key": "cifar10", "dataset": "CIFAR-10", "metrics": {"acc1": 0.5, "main_metric": 0.5}, "run": run}],
    )
    write_predictions(folder)
    row = ResultRow(
        model="theirs", task="mnist", split="test", metric="acc1", value=0.5, low=0.4, high=0.6, n=9, chance=0.1
    )
    rows = [row, dataclasses.replace(row, model="own", run=run)]
    append_rows(folder / "results.jsonl", rows)
    out = tmp_path / "b.html"
    board = write_leaderboard([folder], out, with_published=False)
    assert {model.line for model in board.models} == {"own", "theirs"}
    worst = out.read_text().partition('id="worst"')[2]
    assert worst.count("class 0") == 1


def test_a_scatter_keeps_its_points_inside_and_its_order() -> None:
    points = [Point(role="ours", label="m", x=5.0, y=0.6), Point(role="baseline", label="p", x=500.0, y=0.7)]
    svg = scatter(points, x_label="x", y_label="y", description="d")
    dots = re.findall(r'class="dot (\w+)" cx="([\d.]+)" cy="([\d.]+)"', svg)
    at = {role: (float(x), float(y)) for role, x, y in dots}
    assert at["ours"][0] < at["baseline"][0]
    assert at["ours"][1] > at["baseline"][1]  # SVG's y grows downwards
    assert all(46 <= x <= 460 and 0 <= y <= 320 for x, y in at.values())
    assert scatter([points[0]], x_label="x", y_label="y", description="d").count("<circle") == 1


def test_a_users_own_set_stands_once_and_its_temperature_is_no_share(tmp_path: Path) -> None:
    run = {"weights": "w", "source": "runs/a", "model": "mine"}
    values = {"acc1": 0.75, "mean_per_class_recall": 0.75, "temperature": 1.083}
    rows = [
        ResultRow(
            model="mine", task="own:photos", split="test", metric=metric, value=value, low=None, high=None, n=60,
            chance=0.25 if metric == "acc1" else None, run=run,
        )
        for metric, value in values.items()
    ]  # fmt: skip
    append_rows(tmp_path / "results.jsonl", [dataclasses.replace(rows[0], low=0.6, high=0.8), *rows[1:]])
    entry = {"key": "own:photos", "dataset": "photos", "metrics": {"acc1": 0.75, "main_metric": 0.75}, "run": run}
    (tmp_path / "eval_results.jsonl").write_text(json.dumps(entry) + "\n")
    write_leaderboard([tmp_path], tmp_path / "b.html", with_published=False)
    page = (tmp_path / "b.html").read_text()
    assert page.count(">top-1<") == 1
    assert "60.0\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}80.0" in page
    assert ">1.08<" in page
    assert "108.3" not in page


def test_a_run_that_is_used_in_several_ways_is_one_model(tmp_path: Path) -> None:
    rows = [
        ResultRow(
            model=f"X {way}", task="boxes", split="test", metric="acc1", value=0.5, low=None, high=None, n=9,
            chance=None, run={"weights": "w", "precision": "fp32", "source": "runs/a"},
        )
        for way in ("dense", "crop")
    ]  # fmt: skip
    append_rows(tmp_path / "results.jsonl", rows)
    board = write_leaderboard([tmp_path], tmp_path / "b.html", with_published=False)
    assert (len(board.models), board.num_models) == (2, 1)
    assert "1 model measured on 1 set." in (tmp_path / "b.html").read_text()


def test_a_part_of_a_set_is_told_from_either_file(tmp_path: Path) -> None:
    row = ResultRow(
        model="mine", task="cifar10", split="test", metric="acc1", value=0.5, low=0.4, high=0.6, n=100, chance=0.1,
        run={"weights": "w", "images": 100},
    )  # fmt: skip
    append_rows(tmp_path / "results.jsonl", [row])
    board = write_leaderboard([tmp_path / "results.jsonl"], tmp_path / "b.html", with_published=False)
    assert {entry.partial for one in board.suites for entry in one.entries} == {("CIFAR-10",)}
