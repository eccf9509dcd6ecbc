"""What a contrastive run does beside its loss."""

import math

import pytest
import torch

from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim import freeze
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.config import DataConfig


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_bound_of_the_temperature_is_of_one_that_trains(is_frozen: bool) -> None:
    """Published SigLIPs have scales of 112 to 118; frozen, it stays what it was, as every frozen weight."""
    clip = ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    ).build()
    task = Contrastive(clip, TrainConfig(model=clip.config, data=DataConfig(path="none")))
    freeze(clip, ("logit_scale",) if is_frozen else ())
    with torch.no_grad():
        clip.logit_scale.fill_(math.log(117.3))
        task.after_update()
    assert clip.logit_scale.exp().item() == pytest.approx(117.3 if is_frozen else 100.0)
