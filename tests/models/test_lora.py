"""Adapters of low rank: they begin as nothing, add up to a plain model, and can be put where another model has them."""

from typing import Any

import pytest
import torch
from tests.train.tiny import CLIP, SIZE

from eyesmith.errors import ConfigError
from eyesmith.models.clip import Clip
from eyesmith.models.lora import (
    MARK,
    LoraConfig,
    adapt_blocks,
    add_adapters,
    add_adapters_like,
    chosen_matrices,
    linear_matrices,
    merged,
)

CONFIG = LoraConfig(rank=2)


def _clip() -> Clip:
    torch.manual_seed(0)
    return CLIP.model.build().eval()


def _features(clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=draws)
    with torch.no_grad():
        return clip.image_features(pixels), clip.text_features(clip.text.tokenize(["a red disc", "blue"]))


def test_adapters_begin_as_nothing_and_add_up_to_a_plain_model() -> None:
    clip, plain = _clip(), _clip()
    add_adapters(clip, linear_matrices(clip), CONFIG)
    for ours, theirs in zip(_features(clip), _features(plain), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in clip.named_parameters():
        if name.endswith("lora_up"):
            torch.nn.init.normal_(value)
    tuned, whole = _features(clip), merged(clip)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    for ours, theirs, before in zip(_features(whole), tuned, _features(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert not torch.allclose(theirs, before, atol=1e-3)
    assert any(MARK in name for name, _ in clip.named_parameters()), "merging makes a copy"
    for again in (_features(clip), _features(merged(clip))):  # which may be trained, and merged, on
        for ours, theirs in zip(again, tuned, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    loaded = _clip()
    loaded.load_state_dict(whole.state_dict())
    assert merged(loaded) is loaded


def test_the_weight_that_is_read_is_the_formula_also_under_autocast() -> None:
    linear = torch.nn.Linear(3, 5)
    before = linear.weight.detach().clone()
    add_adapters(linear, ["weight"], LoraConfig(rank=2, alpha=6))
    held: Any = linear.get_submodule("parametrizations.weight.0")
    torch.nn.init.normal_(held.lora_up)
    expected = before.double() + 6 / 2 * held.lora_up.double() @ held.lora_down.double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(linear.weight.double(), expected, rtol=1e-6, atol=1e-6)


def test_adapters_come_where_another_model_has_them() -> None:
    clip, other = _clip(), _clip()
    names = chosen_matrices(linear_matrices(clip), LoraConfig(rank=2, layers=("text.*",)))
    assert names
    assert all(name.startswith("text.") for name in names)
    add_adapters(clip, names, CONFIG)
    add_adapters_like(other, clip)
    other.load_state_dict(clip.state_dict())
    for ours, theirs in zip(_features(other), _features(clip), strict=True):
        assert torch.equal(ours, theirs)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"lora\.layers: no layer fits 'image\.stage9\.\*'"):
        chosen_matrices(linear_matrices(_clip()), LoraConfig(rank=2, layers=("image.stage9.*",)))
    with pytest.raises(ConfigError, match="rank and alpha"):
        LoraConfig(rank=-1)


def test_a_run_without_blocks_to_adapt_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"lora\.rank: this run trains no block .*set it to 0"):
        adapt_blocks(_clip(), [], CONFIG)
