"""What a contrastive run does beside its loss."""

import math
from dataclasses import replace

import pytest
import torch

from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.model import VitConfig
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


def test_operations_of_pictures_without_some_patches_are_not_said_to_be_those_of_whole_ones() -> None:
    image = VitConfig(image_size=(32, 32), patch_px=8, width=16, depth=1, num_heads=2, hidden_dim=32, embed_dim=16)
    text = ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16)
    model = ClipConfig(name="tiny", image=image, text=text, preprocess=PreprocessConfig(image_size=(32, 32)))
    config = TrainConfig(model=model, data=DataConfig(path="none"))
    clip = model.build()
    assert Contrastive(clip, config).flops(16)
    assert Contrastive(clip, replace(config, patch_drop_prob=0.5)).flops(16) is None
