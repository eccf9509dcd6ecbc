import math
import random

import numpy as np
import pytest
import torch

from eyesmith.errors import ConfigError
from eyesmith.images.crop import Box
from eyesmith.images.erase import EraseConfig, erase, erase_box
from eyesmith.images.mix import Mix, MixConfig, draw_mix, mix_pixels


def test_the_erased_rectangle_has_the_mean_colour_and_a_share_in_range() -> None:
    pixels = torch.full((3, 40, 60), 200, dtype=torch.uint8)
    found = erase(pixels.clone(), EraseConfig(prob=1.0), random.Random(2))
    changed = (found != pixels).any(0)
    rows, columns = changed.any(1).sum().item(), changed.any(0).sum().item()
    assert changed.sum() == rows * columns  # one rectangle
    assert 0.015 < rows * columns / 2400 < 0.36
    assert found[:, changed].unique(dim=1).flatten().tolist() == [123, 117, 104]


def test_noise_fills_with_many_values_and_no_chance_does_nothing() -> None:
    pixels = torch.full((3, 40, 60), 200, dtype=torch.uint8)
    assert torch.equal(erase(pixels.clone(), EraseConfig(), random.Random(2)), pixels)
    noisy = erase(pixels.clone(), EraseConfig(prob=1.0, fill="noise"), random.Random(2))
    again = erase(pixels.clone(), EraseConfig(prob=1.0, fill="noise"), random.Random(2))
    assert torch.equal(noisy, again)
    assert noisy.unique().numel() > 20


def test_erasing_hits_as_often_as_its_chance_says() -> None:
    rng, config = random.Random(0), EraseConfig(prob=0.25)
    assert 0.2 < sum(erase_box((32, 32), config, rng) is not None for _ in range(1000)) / 1000 < 0.3


def test_mixup_is_a_weighted_sum_rounded() -> None:
    one, other = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8), torch.full((1, 3, 2, 2), 201, dtype=torch.uint8)
    assert mix_pixels(one, other, Mix(share=0.25)).unique().tolist() == [round(0.25 * 100 + 0.75 * 201)]


def test_cutmix_pastes_a_rectangle() -> None:
    one, other = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 3, 4, 4, dtype=torch.uint8)
    mixed = mix_pixels(one, other, Mix(share=0.75, box=Box(1, 2, 2, 2)))
    assert mixed.sum().item() == 3 * 4
    assert mixed[0, 0, 1:3, 2:4].min() == 1
    assert one.sum() == 0


def test_a_step_draws_one_mix_and_its_share_is_that_of_the_pixels() -> None:
    config = MixConfig(cutmix=1.0)
    for step in range(50):
        mix = draw_mix(config, (32, 48), seed=1, step=step)
        assert mix is not None
        assert mix.box is not None
        assert mix.share == 1 - mix.box.height * mix.box.width / (32 * 48)
        assert 0 <= mix.box.top <= mix.box.top + mix.box.height <= 32
        assert mix == draw_mix(config, (32, 48), seed=1, step=step)


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    shares = [mix.share for step in range(2000) if (mix := draw_mix(MixConfig(mixup=0.8), (8, 8), seed=0, step=step))]
    assert len(shares) == 2000
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert abs(np.var(shares) - 0.25 / (2 * 0.8 + 1)) < 0.01  # ab / ((a+b)^2 (a+b+1))


def test_both_are_switched_between_and_chance_leaves_batches_alone() -> None:
    kinds = [draw_mix(MixConfig(mixup=1.0, cutmix=1.0, prob=0.5), (8, 8), seed=0, step=step) for step in range(400)]
    assert 150 < sum(mix is None for mix in kinds) < 250
    assert 60 < sum(mix is not None and mix.box is None for mix in kinds) < 140
    assert draw_mix(MixConfig(), (8, 8), seed=0, step=0) is None


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="erase"):
        EraseConfig(scale=(0.5, 0.2))
    with pytest.raises(ConfigError, match="mix"):
        MixConfig(mixup=-1.0)
    assert math.isclose(EraseConfig().scale[1], 1 / 3)
