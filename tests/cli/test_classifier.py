"""A classifier from the command line: trained, asked, measured."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from eyesmith.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("colours")
    for name in ("red", "green", "blue"):
        (place / name).mkdir()
        for number in range(6):
            image = Image.new("RGB", (30, 30), "white")
            ImageDraw.Draw(image).rectangle((4, 4, 20 + number, 24), fill=name)
            image.save(place / name / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mine"
    small = ["model.depth=1", "model.width=64", "model.num_heads=1", "model.hidden_dim=64", "model.image_size=16,16"]
    words = ["train", "classify", "--out", str(out), f"data.path={folder}", *small, "epochs=4", "batch_size=4"]
    assert main(words) == 0
    return out


def test_it_names_its_own_classes(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(run), str(folder / "red" / "0.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["images"][0]["probabilities"]
    assert list(found) == ["blue", "green", "red"]
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_names_from_outside_are_refused(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(run), str(folder / "red" / "0.png"), "--names", "a", "b"]) == 2
    assert "classes of its own" in capsys.readouterr().err


def test_a_folder_is_measured_into_the_run_s_results(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), str(folder), "--json"]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["acc1"]["n"] == 18
    assert rows["acc1"]["low"] <= rows["acc1"]["value"] <= rows["acc1"]["high"]
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert {"acc1"} <= {line["metric"] for line in lines}


def test_the_run_goes_on_from_itself_with_its_head(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "classify", "--from", str(run), "--out", str(tmp_path / "more"), f"data.path={folder}"]
    assert main([*words, "epochs=1", "batch_size=4", "model.image_size=16,16"]) == 0
    said = capsys.readouterr()
    assert "its head is kept" in said.err
    assert "frozen: image.patch.*" in said.err
    assert f"eyesmith classify {tmp_path / 'more'} IMAGE`" in said.out


def test_the_plan_counts_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "classify", "--plan", "--json", f"data.path={folder}", "batch_size=8", "epochs=2"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["samples_per_epoch"] == 15  # one of each class is held out
    assert next(part for part in made["parts"] if part["part"] == "head")["trained"] == 192 * 3 + 3


def test_a_wrong_path_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "classify", "data.path=nowhere", "--out", str(tmp_path / "x")]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
