import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file


def test_convert_writes_and_says_what_it_did(eyesmith: Any, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "theirs.safetensors"
    status, stdout, _ = eyesmith("convert", run_folder, out, "--to", "open_clip", "--dtype", "bfloat16")
    assert status == 0
    assert "compared with" in stdout
    assert "no comparison with open_clip: timm and open_clip have no ViTamin of widths (32, 64, 192)" in stdout
    assert "read back bit for bit" in stdout
    assert "visual.head.proj.weight" in load_file(out)
    status, stdout, _ = eyesmith("convert", out, tmp_path / "x.pt", "--to", "eyesmith", "--image-size", 64, "--json")
    assert status == 0
    found = json.loads(stdout)
    assert found["ok"] is True
    assert found["parity"] == []
    assert found["model"] == "ViTamin-Nano"


def test_what_cannot_be_converted_is_explained(eyesmith: Any, run_folder: Path, tmp_path: Path) -> None:
    status, _, stderr = eyesmith("convert", run_folder, tmp_path / "hf", "--to", "hugging_face")
    assert status == 2
    assert "a file of named tensors can be written" in stderr
    status, _, stderr = eyesmith("convert", run_folder, tmp_path / "t", "--to", "timm")
    assert status == 2
    assert "must end in one of" in stderr
    status, _, stderr = eyesmith("convert", tmp_path / "none.pt", tmp_path / "t.pt", "--to", "timm")
    assert status == 2
    assert "no such run folder or weight file" in stderr


def test_an_image_tower_is_no_model_for_classify(eyesmith: Any, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    status, stdout, _ = eyesmith("convert", run_folder, tmp_path / "t.pt", "--to", "timm", "--skip-parity")
    assert status == 0
    assert "left out: the text tower and the temperature" in stdout
    status, _, stderr = eyesmith("classify", tmp_path / "t.pt", photos, "--names", "cat", "dog")
    assert status == 2
    assert "image encoder without a text tower" in stderr
