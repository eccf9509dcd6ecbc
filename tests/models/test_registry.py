"""Named models: counts from the paper's table, sizes, overrides, and what is said about a wrong name."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.models import (
    ClipConfig,
    config,
    create,
    create_encoder,
    encoder_config,
    list_encoders,
    list_models,
    register,
)
from eyesmith.models.families import FAMILIES
from eyesmith.models.published import WEIGHTS
from eyesmith.models.registry import CLIP, override
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig
from eyesmith.models.text.model import CLIP_TEXT
from eyesmith.models.vit import sizes
from eyesmith.models.vitamin.model import ViTaminConfig

# name: image parameters (trunk and head), text parameters, image side, embed_dim; ViTamin, table 3 and model hub
PUBLISHED = {
    "ViTamin-S": (22_025_152, 40_444_032, 224, 384),
    "ViTamin-S-LTT": (22_172_608, 123_650_304, 224, 768),
    "ViTamin-B": (87_525_248, 63_428_096, 224, 512),
    "ViTamin-B-LTT": (87_721_856, 123_650_304, 224, 768),
    "ViTamin-L": (333_318_048, 123_650_304, 224, 768),
    "ViTamin-L-256": (333_379_488, 123_650_304, 256, 768),
    "ViTamin-L-336": (333_568_928, 123_650_304, 336, 768),
    "ViTamin-L-384": (333_707_168, 123_650_304, 384, 768),
    "ViTamin-L2": (333_580_192, 354_032_640, 224, 1024),
    "ViTamin-L2-256": (333_641_632, 354_032_640, 256, 1024),
    "ViTamin-L2-336": (333_831_072, 354_032_640, 336, 1024),
    "ViTamin-L2-384": (333_969_312, 354_032_640, 384, 1024),
    "ViTamin-XL-256": (436_054_080, 488_722_176, 256, 1152),
    "ViTamin-XL-336": (436_054_080, 488_722_176, 336, 1152),
    "ViTamin-XL-384": (436_054_080, 488_722_176, 384, 1152),
}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_family_offers_the_same_names_and_no_two_the_same_model() -> None:
    for family in FAMILIES:
        texts = [pair[1] for pair in family.PAIRS.values()]
        assert all(text in CLIP_TEXT if isinstance(text, str) else isinstance(text, ClipTextConfig) for text in texts)
        assert set(family.ALIASES.values()) <= family.PAIRS.keys() | family.ENCODERS.keys()
    assert sum(len(family.PAIRS) for family in FAMILIES) == len(list_models())
    assert sum(len(family.ENCODERS) for family in FAMILIES) == len(list_encoders())
    for config_class, weights in WEIGHTS.items():
        assert any(isinstance(known, config_class) for known in map(encoder_config, list_encoders()))
        for name in ("recognises", "read", "own_config", "write", "resize_state", "wanted_size"):
            assert callable(getattr(weights, name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_sizes_are_the_published_ones(name: str) -> None:
    image, text, side, embed_dim = PUBLISHED[name]
    with torch.device("meta"):
        clip = create(name)
    assert (count(clip.image), count(clip.text)) == (image, text)
    assert count(clip) == image + text + 1
    assert clip.image.embed_dim == clip.text.out_dim == embed_dim
    # the preprocessing is the model's own, also where a source gives 256 for XL-384 and 336 for L-384
    assert clip.preprocess.image_size == clip.image.image_size == (side, side)


def test_every_published_model_and_the_nanos_are_listed() -> None:
    # those of the others are in tests/models/eva02 and tests/models/vit
    others = [name for name in list_models() if not name.startswith("EVA") and name not in sizes.PAIRS]
    assert others == sorted([*PUBLISHED, "ViTamin-Nano", "ViT-Nano", "TrV-Nano"])


@pytest.mark.parametrize("name", ["ViTamin-S", "ViT-Nano"])
def test_a_config_survives_its_dictionary(name: str) -> None:
    assert from_dict(ClipConfig, to_dict(config(name))) == config(name)


def test_overrides_reach_the_parts_and_leave_the_rest() -> None:
    changed = override(config("ViTamin-Nano"), {"image_size": 64, "image.drop_path_prob": 0.0, "lock_text": True})
    assert isinstance(changed.image, ViTaminConfig)
    assert changed.image.image_size == changed.preprocess.image_size == (64, 64)
    assert changed.image.drop_path_prob == 0
    assert changed.lock_text
    assert changed.image.widths == (32, 64, 192)
    assert override(config("ViTamin-Nano"), {"image_size": (48, 96)}).preprocess.image_size == (48, 96)
    assert not config("ViTamin-Nano").lock_text


def test_a_whole_part_can_be_replaced() -> None:
    text = HuggingFaceTextConfig(context_len=32)
    changed = override(config("ViTamin-Nano"), {"text": text, "image.embed_dim": 384})
    assert changed.text == text
    assert changed.image.embed_dim == 384


def test_a_resized_model_runs_at_its_size() -> None:
    clip = create("ViTamin-Nano", image_size=(32, 64)).eval()
    assert clip.image_features(torch.zeros(1, 3, 32, 64)).shape == (1, 256)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"drop_path_prob": 0.1}, r"unknown field 'drop_path_prob'; did you mean image\.drop_path_prob\?"),
        ({"image.drop_path": 0.1}, r"unknown field 'image\.drop_path'; did you mean drop_path_prob"),
        ({"image.drop_path_prob": "high"}, "image.drop_path_prob"),
        ({"image_size": 50}, r"image_size: expected multiples of 16, got \(50, 50\)"),
        ({"image_size": "big"}, "image_size"),
        ({"lock_text": 3}, "lock_text: expected bool, got 3"),
        ({"name.first": "x"}, "name: is a single value"),
        ({"image.embed_dim": 100}, "set image.embed_dim=256"),
        ({"preprocess.image_size": (64, 64)}, "differs from image.image_size"),
        ({"preprocess.mean": (0.5, 0.5, 0.5)}, "preprocess.mean: .* differs from the image encoder's"),
        ({"prompts": ("a photo",)}, r"'a photo' has no \{\} for the class name"),
        ({"init_scale": 0.0}, "init_scale: expected a positive number"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create("ViTamin-Nano", **overrides)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vitamin_s", r"did you mean ViTamin-S\?"),
        ("ViTamin-L-338", "did you mean .*ViTamin-L-336"),
        ("resnet", "known: EVA01-g-14, .*ViT-Nano"),
    ],
)
def test_an_unknown_name_comes_with_close_ones(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create(name)


def test_other_names_of_the_authors_are_understood_and_not_listed() -> None:
    assert config("ViTamin-S-T768") is config("ViTamin-S-LTT")
    assert config("ViTamin-B-T768") is config("ViTamin-B-LTT")
    assert encoder_config("vitamin_large") is encoder_config("vitamin_large_224")
    assert not {"ViTamin-S-T768", "ViTamin-B-T768"} & {*list_models()}
    assert "vitamin_large" not in list_encoders()


# timm's name: parameters of the trunk (the published break-down), image side, projection's and transformer's width
ENCODERS = {
    "vitamin_small_224": (21_877_696, 224, 384, 384),
    "vitamin_base_224": (87_132_032, 224, 512, 768),
    "vitamin_large_224": (332_531_616, 224, 768, 1024),
    "vitamin_large_256": (332_593_056, 256, 768, 1024),
    "vitamin_large_336": (332_782_496, 336, 768, 1024),
    "vitamin_large_384": (332_920_736, 384, 768, 1024),
    "vitamin_large2_224": (332_531_616, 224, 1024, 1024),
    "vitamin_large2_256": (332_593_056, 256, 1024, 1024),
    "vitamin_large2_336": (332_782_496, 336, 1024, 1024),
    "vitamin_large2_384": (332_920_736, 384, 1024, 1024),
    "vitamin_xlarge_256": (434_726_976, 256, 1152, 1152),
    "vitamin_xlarge_336": (434_726_976, 336, 1152, 1152),
    "vitamin_xlarge_384": (434_726_976, 384, 1152, 1152),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_published_trunk_and_the_size_in_their_name(name: str) -> None:
    trunk, side, embed_dim, width = ENCODERS[name]
    with torch.device("meta"):
        encoder = create_encoder(name)
        bare = create_encoder(name, embed_dim=0)
    assert encoder.image_size == (side, side)
    assert (encoder.embed_dim, bare.embed_dim) == (embed_dim, width)
    assert count(bare) == trunk
    assert count(encoder) == trunk + embed_dim * width


def test_every_encoder_is_listed() -> None:
    # those of the others are in tests/models/eva02 and tests/models/vit
    others = [name for name in list_encoders() if not name.startswith("eva") and name not in sizes.ENCODERS]
    assert others == sorted([*ENCODERS, "vitamin_nano_48", "vit_nano_48", "trv_nano_48"])
    assert encoder_config("vitamin_nano_48") == config("ViTamin-Nano").image


def test_overrides_of_an_encoder() -> None:
    encoder = create_encoder("vitamin_nano_48", image_size=64, embed_dim=0, depths=(2, 4, 1)).eval()
    assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 192)
    assert create_encoder("vitamin_nano_48", image_size=(32, 80)).image_size == (32, 80)
    with pytest.raises(ConfigError, match="unknown field 'drop_path'; did you mean drop_path_prob"):
        create_encoder("vitamin_nano_48", drop_path=0.1)
    with pytest.raises(ConfigError, match=r"image_size: expected multiples of 16, got \(50, 50\)"):
        create_encoder("vitamin_nano_48", image_size=50)


def test_a_name_of_the_other_kind_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"create_encoder\('vitamin_small_224'\).*ViTamin-S pairs it"):
        config("vitamin_small_224")
    with pytest.raises(ConfigError, match=r"create\('ViTamin-S'\).image"):
        encoder_config("ViTamin-S")
    with pytest.raises(ConfigError, match="no encoder is called 'vitamin-small-224'; did you mean vitamin_small_224"):
        create_encoder("vitamin-small-224")
    with pytest.raises(ConfigError, match="did you mean vitamin_large_384 or vitamin_large_336"):
        create_encoder("vitamin_large_338")


@pytest.fixture
def clean_registry() -> Iterator[None]:
    before = dict(CLIP)
    yield
    CLIP.clear()
    CLIP.update(before)


@pytest.mark.usefixtures("clean_registry")
def test_a_user_registers_a_model_once() -> None:
    mine = replace(
        config("ViTamin-Nano"), text=ClipTextConfig(width=32, depth=1, heads=2, embed_dim=256, vocab_size=50)
    )
    register("Mine", mine)
    assert "Mine" in list_models()
    assert create("Mine").config.name == "Mine"
    for taken in ("Mine", "ViTamin-S-T768", "vitamin_small_224"):
        with pytest.raises(ConfigError, match=f"'{taken}' is taken"):
            register(taken, mine)
