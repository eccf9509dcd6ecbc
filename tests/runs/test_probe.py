from pathlib import Path

import pytest

from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import ConfigError, DataError
from eyesmith.models.cost import model_cost
from eyesmith.models.registry import config
from eyesmith.runs.probe import probe_data, probe_json


@pytest.fixture
def folder(tmp_path: Path) -> str:
    make_scenes(tmp_path / "scenes", samples=40, size_px=32, seed=0)
    return str(tmp_path / "scenes")


def test_a_models_need_follows_from_its_operations(folder: str) -> None:
    found, need = probe_data(
        folder, model="ViTamin-S", device="H200", num_devices=2, mfu=0.5, num_workers=1, seconds=0.05
    )
    assert need is not None
    cost = model_cost(config("ViTamin-S"))
    assert cost.image is not None
    assert cost.text is not None
    expected = 2 * 989e12 * 0.5 / (6 * (cost.image.tower.macs + cost.text.macs))
    assert need.images_per_s == pytest.approx(expected)
    assert need.workers >= need.images_per_s / found.images_per_s_each
    assert need.workers < need.images_per_s / found.images_per_s_each + 1
    assert probe_json(found, need)["need"]["model"] == "ViTamin-S"


def test_wrong_input_is_named(folder: str) -> None:
    with pytest.raises(ConfigError, match="the peak of 'Voodoo' is not known; known are A100"):
        probe_data(folder, model="ViTamin-S", device="Voodoo")
    with pytest.raises(ConfigError, match=r"mfu in 0\.\.1"):
        probe_data(folder, mfu=2.0)
    with pytest.raises(DataError, match="no split 'tran'; it has: train"):
        probe_data(folder, split="tran")
    with pytest.raises(DataError, match="has no splits"):
        probe_data(f"{folder}/train", split="train")
