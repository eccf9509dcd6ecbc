"""Configs of open_clip's and timm's folders: what is written, and what of others' is believed."""

from dataclasses import replace
from typing import Any

import pytest

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.peers import open_clip_config, read_facts, timm_config, timm_name
from eyesmith.images import OPENAI_STD
from eyesmith.models import config, list_models
from eyesmith.models.registry import override
from eyesmith.models.vit.model import VitConfig


def image_of(name: str) -> Any:
    return config(name).image


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViTamin-S", "vitamin_small_224"),
        ("ViTamin-S-LTT", "vitamin_small_224"),
        ("ViTamin-B-LTT", "vitamin_base_224"),
        ("ViTamin-L-336", "vitamin_large_336"),
        ("ViTamin-L2-384", "vitamin_large2_384"),
        ("ViTamin-XL-256", "vitamin_xlarge_256"),
        ("ViTamin-XL-384", "vitamin_xlarge_384"),
        ("EVA02-B-16", "eva02_base_patch16_clip_224"),
        ("EVA02-L-14-336", "eva02_large_patch14_clip_336"),
        ("EVA02-E-14-plus", "eva02_enormous_patch14_clip_224"),
        ("EVA01-g-14", "eva_giant_patch14_clip_224"),
    ],
)
def test_timm_names(name: str, expected: str) -> None:
    assert timm_name(image_of(name), at_its_size=True) == expected


def test_sizes_and_shapes_that_timm_does_not_have() -> None:
    bigger: Any = replace(image_of("ViTamin-S"), image_size=(256, 256))
    with pytest.raises(ConfigError, match="open_clip builds this encoder at 224x224 pixels only"):
        timm_name(bigger, at_its_size=True)
    assert timm_name(bigger, at_its_size=False) == "vitamin_small_224"
    free: Any = replace(image_of("ViTamin-XL-256"), image_size=(512, 512))
    assert timm_name(free, at_its_size=True).startswith("vitamin_xlarge_")
    with pytest.raises(ConfigError, match="have no ViTamin of widths"):
        timm_name(image_of("ViTamin-Nano"), at_its_size=False)
    with pytest.raises(ConfigError, match="have no EVA-02 of width 192 and depth 6"):
        timm_name(image_of("TrV-Nano"), at_its_size=False)


# plain ViTs are in tests/models/vit
PUBLISHED = [
    name for name in list_models() if not name.endswith("-Nano") and not isinstance(config(name).image, VitConfig)
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_is_read_again(name: str) -> None:
    clip = config(name)
    for content in (open_clip_config(clip), timm_config(image_of(name), clip.preprocess)):
        found, preprocess = read_facts(content, "f")
        assert found == timm_name(image_of(name), at_its_size=True)
        assert preprocess == clip.preprocess
    wide = override(config("ViTamin-XL-256"), {"image_size": (256, 512), "preprocess.resize": "squash"})
    for content in (open_clip_config(wide), timm_config(wide.image, wide.preprocess)):  # pyright: ignore[reportArgumentType]
        assert read_facts(content, "f")[1] == wide.preprocess


def test_the_published_size_of_xl_384_is_not_believed() -> None:
    content: Any = {"model_cfg": {"vision_cfg": {"timm_model_name": "vitamin_xlarge_384", "image_size": 256}}}
    preprocess = read_facts(content, "f")[1]
    assert preprocess is not None
    assert preprocess.image_size == (384, 384)
    content["model_cfg"]["vision_cfg"]["timm_model_name"] = "vitamin_xlarge_256"
    preprocess = read_facts(content, "f")[1]
    assert preprocess is not None
    assert preprocess.image_size == (256, 256)


def test_older_configs_of_timm_and_strangers() -> None:
    old = {"architecture": "vitamin_large_256", "input_size": [3, 256, 256], "interpolation": "bicubic"}
    name, preprocess = read_facts(old, "f")
    assert name == "vitamin_large_256"
    assert preprocess is not None
    assert preprocess.image_size == (256, 256)
    assert preprocess.std == OPENAI_STD
    assert read_facts({"model_type": "bert", "architectures": ["BertModel"]}, "f") == ("", None)
    assert read_facts({"architecture": "vit_small_patch16_224"}, "f") == ("vit_small_patch16_224", None)
    with pytest.raises(CheckpointError, match="f: asks for preprocessing that is not known"):
        read_facts(old | {"interpolation": "random"}, "f")
    with pytest.raises(CheckpointError, match="f: asks for preprocessing that is not known"):
        read_facts(old | {"mean": [0.5]}, "f")


def test_towers_that_open_clip_does_not_have() -> None:
    with pytest.raises(ConfigError, match="ViT-Nano: open_clip has no such towers"):
        open_clip_config(config("ViT-Nano"))


@pytest.mark.parametrize("wrong", [["size"], "48", 7, [48, 48]])
@pytest.mark.parametrize("field", ["vision_cfg", "preprocess_cfg", "pretrained_cfg", "model_args"])
def test_fields_that_are_none_are_refused(field: str, wrong: object) -> None:
    facts = {"vision_cfg": {"image_size": 48}}
    content = {"model_cfg": facts, "preprocess_cfg": {}} if field.endswith(("n_cfg", "s_cfg")) else {}
    if field in ("pretrained_cfg", "model_args"):
        content = {"architecture": "vit_tiny"}
    (facts if field == "vision_cfg" else content)[field] = wrong  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match=f"f: {field}: expected fields by name"):
        read_facts(content, "f")


@pytest.mark.parametrize("size", [["a", "b"], [None, 3], [[], {}], [1e400, 1]])
def test_a_size_that_is_no_number_is_refused(size: list[object]) -> None:
    with pytest.raises(CheckpointError, match="size of pictures as numbers"):
        read_facts({"model_cfg": {"vision_cfg": {"image_size": size}}}, "f")
