"""Maps between our names and those of open_clip and timm: bit-exact both ways, and clear about what does not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models import ClipConfig, config, list_models
from eyesmith.models import config as model_config
from eyesmith.models.position import resize_position_table
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.models.vitamin.weights import (
    from_open_clip,
    from_timm,
    image_tower,
    likely_models,
    nearest_model,
    read_shapes,
    recognises,
    to_open_clip,
    to_timm,
)

IMAGE = ViTaminConfig(image_size=(48, 48), widths=(8, 16, 24), depths=(2, 4, 3), num_heads=2, embed_dim=20)
TINY = ClipConfig(
    name="tiny",
    image=IMAGE,
    text=ClipTextConfig(width=16, depth=2, heads=2, embed_dim=20, vocab_size=50),
    preprocess=PreprocessConfig(image_size=(48, 48)),
)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def meta_weights(name: str) -> dict[str, Tensor]:
    config = model_config(name)
    with torch.device("meta"):
        return to_open_clip(config.build().state_dict(), config)


@pytest.mark.parametrize("is_text_prefixed", [True, False])
@pytest.mark.parametrize("has_position", [True, False])
def test_open_clip_round_trip_is_bit_exact(is_text_prefixed: bool, has_position: bool) -> None:
    config = replace(TINY, image=replace(IMAGE, has_position=has_position))
    ours = {name: value.clone() for name, value in config.build().state_dict().items()}
    theirs = to_open_clip(ours, config, is_text_prefixed=is_text_prefixed)
    assert recognises(theirs)
    assert ("text.token_embedding.weight" in theirs) == is_text_prefixed
    assert ("visual.trunk.pos_embed" in theirs) == has_position
    assert same(from_open_clip(theirs, config), ours)
    assert same(to_open_clip(from_open_clip(theirs, config), config, is_text_prefixed=is_text_prefixed), theirs)


@pytest.mark.parametrize("embed_dim", [0, 20])
def test_timm_round_trip_is_bit_exact(embed_dim: int) -> None:
    config = replace(IMAGE, embed_dim=embed_dim)
    ours = config.build().state_dict()
    theirs = to_timm(ours, config)
    assert ("head.bias" in theirs) == bool(embed_dim)
    assert same(from_timm(theirs, config), dict(ours))


def test_gate_and_value_are_w0_and_w1_in_this_order() -> None:
    ours = IMAGE.build().state_dict()
    theirs = to_timm(ours, IMAGE)
    assert torch.equal(theirs["blocks.1.mlp.w0.weight"], ours["stage3.1.mlp.gate_value.weight"][:48])
    assert torch.equal(theirs["blocks.1.mlp.w1.bias"], ours["stage3.1.mlp.gate_value.bias"][48:])


def test_stored_types_stay_and_a_scale_of_shape_1_and_a_stored_mask_are_taken() -> None:
    theirs = {name: value.half() for name, value in to_open_clip(TINY.build().state_dict(), TINY).items()}
    theirs["logit_scale"] = theirs["logit_scale"].reshape(1)
    theirs["text.attn_mask"] = torch.zeros(77, 77)
    ours = from_open_clip(theirs, TINY)
    assert {value.dtype for value in ours.values()} == {torch.float16}
    assert ours["logit_scale"].shape == ()
    TINY.build().load_state_dict(ours)


def test_a_position_table_of_another_image_size_is_resampled() -> None:
    theirs = to_open_clip(TINY.build().state_dict(), TINY)
    wide = replace(
        TINY, image=replace(IMAGE, image_size=(64, 32)), preprocess=replace(TINY.preprocess, image_size=(64, 32))
    )
    table = theirs["visual.trunk.pos_embed"]
    expected = resize_position_table(table, (3, 3), (4, 2))
    assert torch.equal(from_open_clip(theirs, wide)["image.position"], expected)
    timm_names = to_timm(IMAGE.build().state_dict(), IMAGE)
    assert from_timm(timm_names, replace(IMAGE, image_size=(64, 32)))["position"].shape == (1, 8, 24)
    assert theirs["visual.trunk.pos_embed"] is table  # the caller's mapping is not touched


def test_a_missing_an_extra_and_a_bent_tensor_are_named() -> None:
    theirs = to_open_clip(TINY.build().state_dict(), TINY)
    theirs["visual.trunk.blocks.0.mlp.w9.weight"] = theirs.pop("visual.trunk.blocks.0.mlp.w1.weight")
    theirs["visual.head.proj.weight"] = torch.zeros(21, 24)
    with pytest.raises(CheckpointError) as caught:
        from_open_clip(theirs, TINY)
    message = str(caught.value)
    assert "'visual.head.proj.weight' is [21, 24], tiny needs [20, 24]" in message
    assert "1 missing: 'visual.trunk.blocks.0.mlp.w1.weight'" in message
    assert "1 with no place: 'visual.trunk.blocks.0.mlp.w9.weight'" in message
    assert "this looks like no ViTamin" in message


def test_weights_of_another_model_name_the_right_one() -> None:
    with pytest.raises(CheckpointError, match=r"do not fit ViTamin-S.*this looks like ViTamin-S-LTT: pass its name"):
        from_open_clip(meta_weights("ViTamin-S-LTT"), model_config("ViTamin-S"))


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("ViTamin-S", ["ViTamin-S"]),
        ("ViTamin-B-LTT", ["ViTamin-B-LTT"]),
        ("ViTamin-L-256", ["ViTamin-L-256", "ViTamin-L", "ViTamin-L-336", "ViTamin-L-384"]),
        ("ViTamin-L2-384", ["ViTamin-L2-384", "ViTamin-L2", "ViTamin-L2-256", "ViTamin-L2-336"]),
        ("ViTamin-XL-384", ["ViTamin-XL-256", "ViTamin-XL-336", "ViTamin-XL-384"]),
    ],
)
def test_models_are_recognised_by_their_tensors(name: str, candidates: list[str]) -> None:
    assert likely_models(meta_weights(name)) == candidates


def test_timm_weights_are_recognised_too_and_other_tensors_are_not() -> None:
    config: Any = model_config("ViTamin-B").image
    with torch.device("meta"):
        state = to_timm(config.build().state_dict(), config)
    assert likely_models(state) == ["ViTamin-B"]
    del state["head.weight"]
    assert likely_models(state) == ["ViTamin-B", "ViTamin-B-LTT"]
    assert likely_models({"conv.weight": torch.zeros(1)}) == []


def test_a_classifier_is_not_taken_for_a_projection() -> None:
    theirs = to_timm(IMAGE.build().state_dict(), IMAGE)
    theirs["head.bias"] = torch.ones(20)
    with pytest.raises(CheckpointError, match="head.bias: expected zeros"):
        from_timm(theirs, IMAGE)
    headless = from_timm(theirs, replace(IMAGE, embed_dim=0))
    assert not any(name.startswith("head") for name in headless)


def test_a_table_in_a_file_for_a_model_without_one_is_an_error() -> None:
    config = replace(TINY, image=replace(IMAGE, has_position=False))
    with pytest.raises(CheckpointError, match=r"1 with no place: 'visual.trunk.pos_embed'"):
        from_open_clip(to_open_clip(TINY.build().state_dict(), TINY), config)


def test_towers_that_open_clip_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="HuggingFaceTextConfig"):
        from_open_clip({}, replace(TINY, text=HuggingFaceTextConfig()))
    with pytest.raises(ConfigError, match="embed_dim is 0"):
        to_open_clip({}, replace(TINY, image=replace(IMAGE, embed_dim=0)))


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
