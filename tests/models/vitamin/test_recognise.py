"""Models told apart by the shapes of their tensors, in each layout."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.models import config, list_models
from eyesmith.models.vitamin.recognise import image_tower, likely_models, nearest_model, read_shapes
from eyesmith.models.vitamin.weights import to_open_clip, to_timm

NAMES = [name for name in list_models() if name.startswith("ViTamin-")]


def meta(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(config(name).build().state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_recognised_in_every_layout(name: str) -> None:
    ours = meta(name)
    image: Any = config(name).image
    tower = {key.removeprefix("image."): value for key, value in ours.items() if key.startswith("image.")}
    pairs = [ours, to_open_clip(ours, config(name)), to_open_clip(ours, config(name), is_text_prefixed=False)]
    for state in pairs:
        found = likely_models(state)
        assert name in (found if "XL" in name else found[:1])
    for state in (tower, to_timm(tower, image), {f"image.{key}": value for key, value in tower.items()}):
        encoder = image_tower(state)
        assert encoder is not None
        size = image.image_size if image.has_position else encoder.image_size
        assert encoder == replace(image, image_size=size)


def test_tensors_that_lack_one_are_near_a_model_but_fit_none() -> None:
    state = to_open_clip(meta("ViTamin-S-LTT"), config("ViTamin-S-LTT"))
    del state["visual.trunk.pos_embed"]
    assert likely_models(state) == []
    assert nearest_model(state) == "ViTamin-S-LTT"
    encoder = image_tower(state)
    assert encoder is not None
    assert encoder.has_position


def test_other_tensors_are_not_a_vitamin() -> None:
    state = {"conv.weight": torch.zeros(1), "image.stem.conv1.weight": torch.zeros(8, 3, 3, 3)}
    assert read_shapes(state) is None
    assert likely_models(state) == []
    assert nearest_model(state) is None
    assert image_tower(state) is None
