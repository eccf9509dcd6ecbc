"""What every encoder inherits: pixels prepared or refused, names checked, views at other sizes."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.acceleration import prepare_for_inference
from eyesmith.models.classifier import classifier_config
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import EVA02
from eyesmith.models.vitamin.model import ViTamin, ViTaminConfig


@pytest.fixture
def encoder() -> ViTamin:
    torch.manual_seed(0)
    return ViTaminConfig(image_size=(16, 32), widths=(8, 8, 16), depths=(1, 1, 2), num_heads=2, embed_dim=4).build()


def test_prepare_passes_floats_through_and_refuses_the_rest(encoder: Encoder) -> None:
    floats = torch.randn(2, 3, 16, 32)
    assert encoder.prepare(floats) is floats
    for wrong in (floats[:, :2], floats[..., :16], floats[0], floats.to(torch.int32)):
        with pytest.raises(ShapeError, match="pixels: expected"):
            encoder.prepare(wrong)


def test_unknown_taps_and_layers_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="taps: no stage9; this encoder has stage1, stage2"):
        encoder.check_taps(["stage9"])
    with pytest.raises(ConfigError, match="layer: expected -2 to 1, got 2"):
        encoder.check_layer(2, 2)


def test_a_step_builds_its_mean_and_deviation_once(encoder: Encoder) -> None:
    """Numbers out of Python are a copy to the device each time, which a GPU's queue would wait for."""
    pixels = torch.randint(0, 256, (2, 3, 16, 32), dtype=torch.uint8)
    first = encoder.prepare(pixels)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        again = encoder.prepare(pixels)
    names = {event.key for event in profiled.key_averages()}
    assert not names & {"aten::lift_fresh", "aten::detach_", "aten::item", "aten::_local_scalar_dense"}
    assert {"aten::div_", "aten::sub_"} <= names
    assert torch.equal(first, again)


def test_views_follow_mode_and_are_no_part_of_copies_or_state(encoder: Encoder) -> None:
    view = encoder.eval().at_size(32, 32)
    assert not view.training
    assert encoder.train().at_size(32, 32).training
    assert view.state_dict().keys() == encoder.state_dict().keys()
    again: Any = pickle.loads(pickle.dumps(copy.deepcopy(view)))
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(pixels), view(pixels))


def test_a_view_is_not_resized_but_asked_for_another(encoder: ViTamin) -> None:
    classifier = classifier_config("c", replace(encoder.config, embed_dim=0), ("a", "b")).build()
    for model in (encoder, classifier):
        view = model.at_size(32, 32)
        with pytest.raises(ConfigError, match=r"view at 32 x 32.*at_size\(16, 16\)"):
            view.set_image_size(16, 16)
        assert view.at_size(16, 16).image_size == (16, 16)
        assert model.image_size == (16, 32)
    assert classifier.at_size(32, 32).config.image.image_size == (32, 32)
    assert classifier.config.image.image_size == (16, 32)


@torch.no_grad()
def test_a_packed_encoder_gives_views_with_the_same_numbers(encoder: Encoder) -> None:
    plain = copy.deepcopy(encoder).eval().at_size(32, 16)
    packed = prepare_for_inference(encoder).at_size(32, 16)
    pixels = torch.randn(1, 3, 32, 16)
    torch.testing.assert_close(packed(pixels), plain(pixels), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_view_of_a_trv_turns_by_its_own_grid() -> None:
    torch.manual_seed(0)
    encoder = EVA02["nano"].build().eval()
    before = encoder(torch.ones(1, 3, 48, 48))
    view = encoder.at_size(24, 64)
    assert view._places is not encoder._places
    assert view.taps == encoder.taps
    assert view.half_tap == "block3"
    assert view.layers[0].attention.qkv.weight is encoder.layers[0].attention.qkv.weight
    assert torch.equal(encoder(torch.ones(1, 3, 48, 48)), before)
