import json
from pathlib import Path

import pytest
from PIL import Image

from eyesmith.cli.main import main


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    for color in ("red", "green", "blue"):
        (tmp_path / "colors" / color).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), color).save(tmp_path / "colors" / color / f"{number}.png")
    return tmp_path / "colors"


def test_the_plans_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "plans", "--json"]) == 0
    assert {"laptop", "smoke", "ltt", "stride", "blocks"} <= {
        row["plan"] for row in json.loads(capsys.readouterr().out)
    }


def test_the_plan_shows_its_cost_and_runs_nothing(
    colors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lab", "run", "laptop", "--plan", f"data={colors}", "batch_size=2", "encoders=ViTamin", "seeds=0"]
    words += ["budgets=10,20", f"out={tmp_path / 'lab'}", "recipes=lab-joint"]
    assert main([*words, "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    grid = [cell for cell in cells if cell["id"].startswith("vitamin")]
    assert [cell["samples"] for cell in grid] == [10, 10, 20, 20]
    assert all(cell["tflop"] > 0 for cell in cells)
    assert not (tmp_path / "lab" / "cells").exists()
    assert main(words) == 0
    assert "about 0.00 hours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["labtop"], "did you mean laptop"),
        (["seeds=1"], "expected a plan first"),
        (["laptop", "seed=1"], "unknown field 'seed'; did you mean seeds"),
        (["laptop", "data=nowhere"], "nowhere"),
        (["laptop", "--encoder", "missing.py"], "missing.py"),
    ],
)
def test_wrong_words_are_answered(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", *words]) == 2
    assert message in capsys.readouterr().err
