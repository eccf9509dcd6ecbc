import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eyesmith.errors import CheckpointError
from eyesmith.hub.fingerprint import fingerprint, fixed_images
from eyesmith.hub.verification import FEATURE_TOLERANCE, verify
from eyesmith.models.clip import Clip


def test_an_untouched_run_verifies(saved: Path) -> None:
    report = verify(saved)
    assert report.ok
    assert any("bytes that were saved" in line for line in report.lines)
    assert any(line.startswith("image features: largest difference") for line in report.lines)


def test_the_fixed_images_are_fixed() -> None:
    images = [np.asarray(image) for image in fixed_images()]
    assert [image.shape for image in images] == [(80, 96, 3)] * 3
    assert [image[40, 50].tolist() for image in images] == [[134, 129, 121], [220, 30, 40], [4, 102, 208]]
    assert images[1][0, 0].tolist() == [245] * 3
    assert images[1][0, 12].tolist() == [15] * 3


def test_a_fingerprint_does_not_change_the_model(tiny: Clip) -> None:
    tiny.train()
    state = torch.random.get_rng_state()
    assert fingerprint(tiny) == fingerprint(tiny)
    assert tiny.training
    assert torch.equal(torch.random.get_rng_state(), state)
    tiny.eval()


def test_one_changed_byte_anywhere_in_the_weights_fails(saved: Path, run: Path) -> None:
    file = run / "model.safetensors"
    content = (saved / "model.safetensors").read_bytes()
    rng = random.Random(3)
    header = int.from_bytes(content[:8], "little")
    places = [0, 8, 20, 8 + header, len(content) - 1, *(rng.randrange(8 + header, len(content)) for _ in range(3))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        report = verify(run)
        assert not report.ok, place
        assert any("sha256" in line for line in report.lines)


def test_the_changed_tensor_is_named(run: Path) -> None:
    tensors = load_file(run / "model.safetensors")
    name = "image.stem.conv1.weight"
    tensors[name].view(-1)[0] = torch.nextafter(tensors[name].view(-1)[0], torch.tensor(9.0))
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})
    report = verify(run)
    assert not report.ok
    assert any(line.endswith(f"tensors differ: {name}") for line in report.lines)
    assert any(line.startswith("image features: largest difference") for line in report.lines)


def test_weights_with_nan_fail(run: Path) -> None:
    tensors = load_file(run / "model.safetensors")
    tensors["image.stem.conv1.bias"][0] = torch.nan
    save_file(tensors, run / "model.safetensors")
    report = verify(run)
    assert not report.ok
    assert any("NaN" in line for line in report.lines)


def test_a_changed_tokenizer_config_or_extra_file_is_named(run: Path) -> None:
    vocabulary = next((run / "text").iterdir())
    content = vocabulary.read_bytes()
    vocabulary.write_bytes(content + b"\0")
    assert any(f"text/{vocabulary.name}: other bytes" in line for line in verify(run).lines)
    vocabulary.write_bytes(content)
    (run / "text" / "new.txt").write_text("x")
    assert "text/new.txt: was not there when the model was saved" in verify(run).lines
    (run / "text" / "new.txt").unlink()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "note": "mine"}))
    assert verify(run).ok  # notes around the model are free
    config["model"]["prompts"] = ["a {}"]
    (run / "config.json").write_text(json.dumps(config))
    report = verify(run)
    assert not report.ok
    assert any("config.json" in line for line in report.lines)


def test_features_may_differ_by_the_tolerance_only(run: Path) -> None:
    saved = json.loads((run / "fingerprint.json").read_text())
    for factor, ok in ((0.9, True), (1.1, False)):
        rows = np.array(saved["image_features"])
        rows[1, 2] += factor * FEATURE_TOLERANCE
        (run / "fingerprint.json").write_text(json.dumps({**saved, "image_features": rows.tolist()}))
        assert verify(run).ok is ok


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not there"),
        ("{", "damaged"),
        ("{}", "damaged"),
        ('{"format": 2}', "later version"),
        ("[]", "later version"),
    ],
)
def test_a_bad_fingerprint_is_an_error(run: Path, content: str | None, message: str) -> None:
    file = run / "fingerprint.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        verify(run)


def test_a_weight_file_is_no_run_folder_and_is_there(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a file; expected the folder"):
        verify(run / "model.safetensors")


def test_an_unfinished_run_cannot_be_verified(run: Path) -> None:
    (run / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="resume"):
        verify(run)
    shutil.rmtree(run)
    with pytest.raises(CheckpointError, match="no such run folder"):
        verify(run)
