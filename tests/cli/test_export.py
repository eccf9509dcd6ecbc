"""`eyesmith export` on the command line."""

import json
from pathlib import Path


def test_export_writes_a_folder_and_says_how_equal_it_is(eyesmith, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("export", run_folder, out, "--to", "torch_export", "--part", "text")
    status, shown, _ = eyesmith(*words, "--json")
    assert status == 0
    made = json.loads(shown)
    assert made["files"] == ["card.json", "text.pt2", "tokenizer/clip_vocabulary.txt.gz", "tokenizer/tokenizer.json"]
    assert all(row["is_equal"] for row in made["parity"])
    assert (out / "text.pt2").is_file()
    status, _, err = eyesmith(*words)
    assert status == 2
    assert "is there already" in err
    status, shown, _ = eyesmith(*words, "--overwrite")
    assert status == 0
    assert "largest difference" in shown


def test_wrong_wishes_are_messages(eyesmith, run_folder: Path, tmp_path: Path) -> None:
    for words, message in (
        (("--dynamic-size", "--part", "image"), "position table"),
        (("--opset", "9"), "opset: expected 18 to 23, got 9"),
        (("--to", "tflite"), "tflite"),
        (("--images", str(tmp_path / "none.jpg")), "no such file"),
        (("--source", "dense"), "go with the run folder of a detector"),
    ):
        status, _, err = eyesmith("export", run_folder, tmp_path / "out", *words)
        assert status == 2
        assert message in err
    assert not (tmp_path / "out").exists()
