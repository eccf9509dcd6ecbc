"""The step that `bench step` times is the loop's own: it trains, a step a call."""

import math

import pytest
import torch
from bench.step import Ours, pairs

from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ours_trains_a_step_a_call(accumulate: int) -> None:
    config = ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    )
    torch.manual_seed(0)
    weights = config.build().state_dict()
    ours = Ours(config, weights, batch_size=4, accumulate=accumulate)
    given = pairs(0, 4, image_size=(32, 32))
    first, second = ours(given), ours(given)
    assert first == pytest.approx(math.log(4), abs=4)
    assert math.isfinite(second)
    assert second != first
    assert not torch.equal(ours.clip.image.state_dict()["stem.norm.weight"], weights["image.stem.norm.weight"])
