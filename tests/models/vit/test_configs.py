"""OpenCLIP's configs beside ours, all of them; what is nearly ours and is refused."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.models.registry import config, list_models
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.configs import from_hugging_face, from_open_clip, to_hugging_face, to_open_clip
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vit.sizes import PAIRS


def configs_of_the_package() -> dict[str, Any]:
    """Every ViT-* of the installed open_clip, read without importing it."""
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    files = (Path(spec.origin).parent / "model_configs").glob("ViT-*.json")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in files}


def test_every_name_of_open_clip_is_ours_and_none_more() -> None:
    assert set(configs_of_the_package()) == set(PAIRS)
    assert len(PAIRS) > 70
    assert set(PAIRS) <= set(list_models())


@pytest.mark.parametrize("name", PAIRS)
def test_both_towers_are_those_of_open_clip(name: str) -> None:
    found = from_open_clip(configs_of_the_package()[name], name)
    assert found is not None
    image, text, _ = PAIRS[name]
    assert replace(found[0], mean=image.mean, std=image.std) == image  # of the weights, not of the name
    assert found[1] == text


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_written_for_open_clip_is_read_again(name: str) -> None:
    image, text, preprocess = PAIRS[name]
    assert from_open_clip(to_open_clip(image, text, preprocess, None), name) == (image, text, preprocess)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vision_cfg.attentional_pool", True, "attentional_pool is True"),
        ("vision_cfg.pool_type", "none", "pool_type 'none'"),
        ("vision_cfg.layers", [3, 4, 6, 3], "a ResNet of CLIP"),
        ("vision_cfg.qk_norm", True, "qk_norm is True"),
        ("vision_cfg.patch_size", [16, 8], "square patches"),
        ("text_cfg.embed_cls", True, "embed_cls is True"),
        ("text_cfg.hf_model_name", "roberta-base", "hf_model_name is 'roberta-base'"),
        ("text_cfg.hf_tokenizer_name", "roberta-base", "a tokenizer that is not known here"),
        ("text_cfg.pool_type", "first", "'first' is missing"),
        ("vision_cfg.width", "wide", "asks for a model that is not known here"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(path: str, value: object, message: str) -> None:
    content = configs_of_the_package()["ViT-B-32"]
    part, field = path.split(".")
    content[part][field] = value
    with pytest.raises(CheckpointError, match=message):
        from_open_clip(content, "f")


def test_image_towers_of_others_are_not_ours() -> None:
    content = configs_of_the_package()["ViT-B-16-SigLIP"]
    content["vision_cfg"]["timm_model_name"] = "convnext_base"
    assert from_open_clip(content, "f") is None


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-L-14", "ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP-384"])
def test_what_is_written_for_transformers_is_read_again(name: str) -> None:
    made = config(name)
    assert isinstance(made.image, VitConfig)
    assert isinstance(made.text, ClipTextConfig)
    whole, pixels = to_hugging_face(made.image, made.text, made.preprocess)
    image, text, preprocess = from_hugging_face(whole, pixels, "f")
    assert image == made.image
    assert preprocess == made.preprocess
    if "SigLIP" in name:  # transformers cleans texts in its own way
        assert text == replace(made.text, cleaning="siglip")
    else:
        assert text == made.text


def test_transformers_has_no_clipa() -> None:
    image, text, preprocess = PAIRS["ViT-L-14-CLIPA"]
    with pytest.raises(ConfigError, match="this model has neither"):
        to_hugging_face(image, text, preprocess)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu'"),
        ({"vision_config": {"num_attention_heads": 7}}, "num_heads: 7 does not divide"),
        ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, "without its pooling"),
    ],
)
def test_configs_of_transformers_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_hugging_face({"model_type": "clip", **changes}, None, "f")


def test_a_resampling_that_is_not_known_is_refused() -> None:
    with pytest.raises(CheckpointError, match="resample 1"):
        from_hugging_face({"model_type": "clip"}, {"resample": 1}, "f")


def test_the_end_token_of_old_and_new_clip_configs() -> None:
    def text(**fields: object) -> ClipTextConfig:
        found = from_hugging_face({"model_type": "clip", "text_config": fields}, None, "f")[1]
        assert found is not None
        return found

    assert text(eos_token_id=2).pooling == text().pooling == "largest"
    assert (text(eos_token_id=500).pooling, text(eos_token_id=500).end_id) == ("end", 500)
