"""transformers' towers as encoders and text towers: they keep the contract, and give what the library gives."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import eyesmith
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip
from eyesmith.models.conformance import check_encoder
from eyesmith.models.foreign.packages import import_transformers
from eyesmith.models.foreign.transformers_image import TransformersImageConfig, feature_dim, native_size
from eyesmith.models.foreign.transformers_model import IMAGES, is_of, named_tensors, read_settings
from eyesmith.models.foreign.transformers_text import TransformersTextConfig
from eyesmith.optim.groups import layer_numbers, text_blocks

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = SIZES | {"vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
VISION = SIZES | {"image_size": 32, "patch_size": 8}
PAIR = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 24}
KINDS: dict[str, dict[str, Any]] = {
    "altclip": PAIR | {"text_config": TEXT | {"project_dim": 24, "pad_token_id": 0}},
    "chinese_clip": PAIR | {"text_config": TEXT | {"pad_token_id": 0}},
    "clip": PAIR,
    "metaclip_2": PAIR,
    "siglip": {"text_config": TEXT, "vision_config": VISION},
    "deit": VISION,
    "dinov2": VISION,
    "dinov2_with_registers": VISION,
    "dinov3_vit": VISION | {"num_register_tokens": 2},
    "vit": VISION,
}


def _image_config(kind: str) -> TransformersImageConfig:
    settings = read_settings({"model_type": kind, **KINDS[kind]}, "config.json")
    return TransformersImageConfig(
        model_name=kind,
        settings=settings,
        image_size=native_size(settings, kind),
        embed_dim=0 if kind in IMAGES else feature_dim(settings, kind),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    )


def _library_model(settings: str) -> Any:
    content = json.loads(settings)
    transformers = import_transformers("a test")
    model = transformers.AutoModel.from_config(transformers.CONFIG_MAPPING[content.pop("model_type")](**content))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_towers_keep_the_contract_and_give_the_librarys_features(kind: str) -> None:
    config = _image_config(kind)
    encoder = config.build().eval()
    check_encoder(encoder)
    theirs = _library_model(config.settings)
    state = named_tensors(config.settings, kind, theirs.state_dict(), "memory")
    is_pair = hasattr(theirs, "get_image_features")
    encoder.load_state_dict(
        {f"tower.{k}": v for k, v in state.items() if is_of(k, "image") or not is_pair}, strict=False
    )
    pixels = torch.randn(2, 3, 32, 32)
    call = theirs.get_image_features if is_pair else theirs
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), call(pixel_values=pixels).pooler_output)


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_texts_of_kinds_that_are_not_told_their_padding(kind: str) -> None:
    settings = _image_config(kind).settings
    text = TransformersTextConfig(
        model_name=kind, settings=settings, embed_dim=feature_dim(settings, kind), context_len=16, source="nowhere"
    ).build()
    theirs = _library_model(settings)
    state = {f"tower.{name}": value for name, value in theirs.state_dict().items() if is_of(name, "text")}
    text.load_state_dict(state)
    ids = torch.tensor([[1, 5, 7, 2, 2, 2], [1, 8, 9, 4, 6, 2]])
    ids = torch.nn.functional.pad(ids, (0, 10), value=2) if kind == "siglip" else ids
    with torch.no_grad():
        ours = text.eval()(ids)
        torch.testing.assert_close(ours, theirs.get_text_features(input_ids=ids).pooler_output)
    assert ours.shape == (2, text.out_dim)
    layers, last = layer_numbers(text, text_blocks(text), by="eva")
    assert (len(text.blocks()), last) == (3, 4)
    assert {layer for name, layer in layers.items() if "embeddings." in name} == {0}
    for k in range(3):
        assert {layer for name, layer in layers.items() if f"layers.{k}." in name} == {k + 1}
    assert {layer for name, layer in layers.items() if "final_layer_norm" in name or "projection" in name} == {4}


def test_a_folder_of_save_pretrained_loads_with_its_tokenizer(transformers_folder: Path) -> None:
    transformers = import_transformers("a test")
    clip = eyesmith.load(transformers_folder)
    assert isinstance(clip, Clip)
    theirs = transformers.AutoModel.from_pretrained(transformers_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(transformers_folder)
    texts = ["a photo of red cats", "dog", "[PAD] black"]
    made = tokenizer(texts, padding=True, return_tensors="pt")
    assert torch.equal(clip.text.tokenize(texts), made["input_ids"])
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(clip.image(pixels), theirs.get_image_features(pixels).pooler_output)
        theirs_text = theirs.get_text_features(**made).pooler_output
        torch.testing.assert_close(clip.text(clip.text.tokenize(texts)), theirs_text)
    torch.testing.assert_close(clip.logit_scale, theirs.logit_scale)


def test_other_kinds_and_code_of_their_own_are_refused() -> None:
    with pytest.raises(CheckpointError, match="expected a model_type of .*siglip.*; it is 'gpt2'"):
        read_settings({"model_type": "gpt2"}, "config.json")
    with pytest.raises(CheckpointError, match="never run"):
        read_settings({"model_type": "clip", "auto_map": {"AutoModel": "evil.Model"}}, "config.json")
    with pytest.raises(CheckpointError, match="quantised"):
        read_settings({"model_type": "clip", "quantization_config": {}}, "config.json")
    with pytest.raises(ConfigError, match="cannot be built"):
        _image_config("clip").__class__(
            model_name="odd",
            settings='{"model_type": "clip", "vision_config": {"hidden_size": 30, "num_attention_heads": 4}}',
            image_size=(32, 32),
            embed_dim=8,
            preprocess=PreprocessConfig(image_size=(32, 32)),
        ).build()


def test_settings_hold_sizes_and_nothing_that_names_a_place() -> None:
    content = {"model_type": "clip", "_name_or_path": "/somewhere", "architectures": ["CLIPModel"], **PAIR}
    settings = json.loads(read_settings(content, "config.json"))
    assert settings["vision_config"] == VISION
    assert settings.keys() == {"model_type", "text_config", "vision_config", "projection_dim"}
