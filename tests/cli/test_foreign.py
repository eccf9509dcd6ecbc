"""The verbs on a model of another package."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")


def test_verbs_take_a_foreign_model(eyesmith, photos: Path, open_clip_folder: Path, tmp_path: Path) -> None:
    model = f"open_clip:{open_clip_folder}"
    status, out, _ = eyesmith("classify", model, photos / "cat" / "red.png", "--names", "cat", "dog", "--json")
    assert status == 0, out
    assert json.loads(out)
    status, out, _ = eyesmith("embed", model, photos, "--out", tmp_path / "features.npz")
    assert status == 0, out
    status, out, _ = eyesmith("embed", "timm:test_vit", photos, "--out", tmp_path / "timm.npz")
    assert status == 0, out
    assert np.load(tmp_path / "timm.npz")["features"].shape == (3, 64)
    status, out, _ = eyesmith("search", model, photos, "a red picture", "--json")
    assert status == 0, out
    status, out, _ = eyesmith("eval", model, photos, "--out", tmp_path / "out")
    assert status == 0, out
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {open_clip_folder.name}


def test_a_model_that_is_not_there_is_one_sentence(eyesmith, photos: Path) -> None:
    status, _, err = eyesmith("embed", "open_clip:ViT-B-3", photos)
    assert status == 2
    assert "did you mean ViT-B-32" in err


def test_two_models_are_compared_on_own_images(
    eyesmith, photos: Path, open_clip_folder: Path, run_folder: Path
) -> None:
    other = f"open_clip:{open_clip_folder}"
    status, out, err = eyesmith("compare-models", run_folder, other, "--data", photos, "--batch-size", "1")
    assert status == 0, err
    table = {line.split("  ")[0].strip() for line in out.splitlines()}
    assert {"acc1", "images a second", "image GMACs", "weights", "memory of a batch", "licence"} <= table
    assert "not stated" in out
    status, out, _ = eyesmith("compare-models", run_folder, other, "--data", photos, "--batch-size", "1", "--json")
    found = json.loads(out)
    assert [one["origin"] for one in found["models"]] == ["native", "open_clip"]
    assert found["difference"]["tasks"][0]["metric"] == "acc1"
