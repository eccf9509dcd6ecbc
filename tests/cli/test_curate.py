import json
from pathlib import Path

import pytest

from eyesmith.cli.main import main


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    assert main(["curate", "make-pool", str(folder), "--samples", "120", "--shard-samples", "60"]) == 0
    return folder


def test_a_plan_then_its_shards(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["curate", "basic-and-clip", "--pool", str(pool / "metadata"), "--out", str(tmp_path / "out")]
    assert main([*words, "clip.fraction=0.6", "size.min_px=100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in report["funnel"]] == ["clip", "language", "words", "size"]
    assert report["funnel"][0]["kept"] >= 73
    assert main([*words, "clip.fraction=0.6", "size.min_px=100"]) == 0  # done already: shown again
    table = capsys.readouterr().out
    assert "dropped" in table
    assert "subset.npy" in table
    subset = str(tmp_path / "out" / "subset.npy")
    shards = ["curate", "reshard", str(pool / "shards"), "--subset", subset, "--out", str(tmp_path / "new")]
    assert main(shards) == 0
    assert (tmp_path / "new" / "meta.json").is_file()
    assert "rows of the subset are not in these shards" in capsys.readouterr().out


def test_marks_are_written(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", "marks", str(pool / "shards"), "--out", str(tmp_path / "m.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 113


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["basik"], "did you mean basic"),
        (["basic"], "--pool DIR"),
        (["basic", "clip.fractoin=1"], "clip.fraction"),
        (["basic", "--pool", "/none", "--out", "x"], "no such pool"),
        (["reshard", "/none", "--subset", "a", "--out", "b"], "/none"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_pool_is_not_made_among_files_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["curate", "make-pool", str(tmp_path), "--samples", "4", "--files", "1"]) == 2
    assert "expected an empty folder, found mine.txt" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
