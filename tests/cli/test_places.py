"""`data convert` and `data check` of boxes and masks, as a user types them."""

import json
from pathlib import Path

import pytest

from eyesmith.cli.main import main
from eyesmith.data.annotations import open_annotations
from eyesmith.data.make.scenes import make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, samples=8, size_px=32)
    return folder


def test_there_and_back(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo, coco = str(tmp_path / "yolo"), str(tmp_path / "coco")
    assert main(["data", "convert", str(scenes), yolo, "--to", "yolo", "--split", "train", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["pictures"], facts["not_kept"], len(facts["categories"])) == (8, [], 288)
    assert main(["data", "convert", yolo, coco, "--to", "coco", "--name", "mine"]) == 0
    assert "8 pictures, 288 categories as coco, split mine" in capsys.readouterr().out
    before, after = open_annotations(scenes, "train"), open_annotations(coco)
    for one, two in zip(before, after, strict=True):
        assert (one.masks == two.masks).all()
    assert main(["data", "check", coco, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["errors"], set(report["counts"])) == (0, {"empty_category"})
    assert main(["data", "check", str(scenes), "--places", "--split", "test"]) == 0
    assert "504 pictures, 0 errors" in capsys.readouterr().out


def test_findings_set_the_exit_status(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", str(scenes), str(tmp_path), "--to", "coco", "--split", "train"]) == 0
    file = tmp_path / "annotations" / "train.json"
    fields = json.loads(file.read_text())
    fields["annotations"][0]["bbox"][0] += 50
    file.write_text(json.dumps(fields))
    capsys.readouterr()
    assert main(["data", "check", str(file)]) == 1
    out = capsys.readouterr().out
    assert "box_outside" in out
    assert "1 errors" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{scenes}", "{out}", "--to", "coco"],
            "It has test, train, unseen_combination; say split=test (--split test)",
        ),
        (["{scenes}", "{out}", "--to", "coco", "--split", "tset"], "no split 'tset'"),
        (["{out}/none.json", "{out}", "--to", "coco"], "no such file or folder"),
        (["{scenes}", "{out}", "--to", "voc"], "voc"),
        (["{scenes}", "{out}", "--to", "coco", "--split", "test", "--keep", "ov-coco-train"], "needs COCO's classes"),
        (["{scenes}", "{out}", "--to", "png", "--split", "test"], "288 classes, a PNG of bytes has 255 beside void"),
    ],
)
def test_wrong_input_is_one_line(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    filled = [one.format(scenes=scenes, out=tmp_path) for one in arguments]
    assert main(["data", "convert", *filled]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error
