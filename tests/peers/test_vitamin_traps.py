"""What the published configs and loaders get wrong about ViTamin, and that we do not.

Each test also asserts what the peer says today: when one of these fails on a new release, the peer has mended it.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.hub.weights import read_tensors
from eyesmith.images import PreprocessConfig
from eyesmith.models import ClipConfig, config, create, encoder_config, list_models
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.models.vitamin.weights import from_open_clip, from_timm, to_open_clip, to_timm

pytestmark = pytest.mark.skipif(
    find_spec("open_clip") is None or find_spec("timm") is None, reason="needs open_clip_torch and timm"
)

PUBLISHED = [name for name in list_models() if name.startswith("ViTamin-") and name != "ViTamin-Nano"]
TEXT = ClipTextConfig(width=16, depth=2, heads=2, embed_dim=20, vocab_size=50)
# XL in small: no position table
LIKE_XL = ClipConfig(
    name="like XL",
    image=ViTaminConfig(
        image_size=(48, 48), widths=(8, 16, 24), depths=(2, 4, 3), num_heads=2, embed_dim=20, has_position=False
    ),
    text=TEXT,
    preprocess=PreprocessConfig(image_size=(48, 48)),
)


@pytest.fixture(scope="module")
def open_clip() -> Any:
    ensure_torchvision()
    import open_clip

    return open_clip


@pytest.fixture(scope="module")
def timm() -> Any:
    ensure_torchvision()
    import timm

    return timm


def meta_state(name: str) -> dict[str, Tensor]:
    pair = config(name)
    with torch.device("meta"):
        return to_open_clip(pair.build().state_dict(), pair)


def size_in_name(name: str) -> int:
    found = re.search(r"\d{3}$", name)
    return int(found[0]) if found else 224


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_size_in_the_name_is_the_one_we_run_and_prepare_for(name: str, open_clip: Any) -> None:
    ours, theirs = config(name), open_clip.get_model_config(name)
    side = size_in_name(name)
    assert ours.image.image_size == ours.preprocess.image_size == (side, side)
    assert ours.image.embed_dim == theirs["embed_dim"]
    # open_clip 3.3 prepares for this size, and is wrong about one of the fifteen
    says = theirs["vision_cfg"]["image_size"]
    assert says == (256 if name == "ViTamin-XL-384" else side)
    # its trunk follows timm's name instead
    assert theirs["vision_cfg"]["timm_model_name"].endswith(f"_{side}")


def test_open_clip_prepares_xl_384_at_256_without_a_word(open_clip: Any) -> None:
    with torch.device("meta"):
        theirs = open_clip.create_model("ViTamin-XL-384", pretrained=None, device="meta")
        assert theirs.visual.preprocess_cfg["size"] == (256, 256)
        assert theirs.visual.trunk.patch_embed.img_size == (384, 384)
        # without a table nothing in the network objects to the smaller picture
        assert theirs.encode_image(torch.empty(1, 3, 256, 256)).shape == (1, 1152)
        ours = create("ViTamin-XL-384").eval()
    assert ours.preprocess.image_size == ours.image.image_size == (384, 384)


def test_l_384_runs_at_384_whatever_a_config_said() -> None:
    """The authors' own config of L-384 says 336, and needs the size forced."""
    with torch.device("meta"):
        clip = create("ViTamin-L-384")
        assert clip.image.position is not None
        assert clip.image.position.shape == (1, 24 * 24, 1024)
    assert clip.preprocess.image_size == (384, 384)


@pytest.mark.parametrize("name", PUBLISHED)
def test_pictures_are_prepared_with_clips_own_constants(name: str, timm: Any) -> None:
    ours = config(name).preprocess
    theirs = timm.models.get_pretrained_cfg("vitamin_large_256")
    assert ours.mean == tuple(theirs.mean)
    assert ours.std == tuple(theirs.std)
    assert ours.interpolation == theirs.interpolation == "bicubic"


def test_timms_xlarge_336_has_the_config_and_the_weights_of_256(timm: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("vitamin_xlarge_336")
    assert theirs.default_cfg["input_size"] == (3, 256, 256)
    assert theirs.pretrained_cfg["hf_hub_id"].endswith("ViTamin-XL-256px")
    assert timm.models.get_pretrained_cfg("vitamin_xlarge_336").input_size == (3, 336, 336)  # what it should be
    assert encoder_config("vitamin_xlarge_336").image_size == (336, 336)


@pytest.mark.parametrize("name", ["vitamin_small_224", "vitamin_base_224"])
def test_timms_default_weights_of_the_small_ones_are_those_of_locked_text(name: str, timm: Any) -> None:
    cfg = timm.models.get_pretrained_cfg(name)
    assert (cfg.tag, cfg.num_classes) == ("datacomp1b_clip_ltt", 768)
    assert cfg.hf_hub_id.endswith("-LTT")


def test_timm_declares_a_head_of_768_for_the_base_model_of_512(timm: Any) -> None:
    assert timm.models.get_pretrained_cfg("vitamin_base_224.datacomp1b_clip").num_classes == 768
    assert timm.models.get_pretrained_cfg("vitamin_small_224.datacomp1b_clip").num_classes == 384
    assert encoder_config("vitamin_base_224").embed_dim == config("ViTamin-B").image.embed_dim == 512
    # so a file of B does not fit the model that is declared for it
    with torch.device("meta"):
        declared = timm.create_model("vitamin_base_224", num_classes=768)
    state = meta_state("ViTamin-B")
    with pytest.raises(RuntimeError, match="size mismatch for head.weight"):
        declared.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, declared))
    base: Any = encoder_config("vitamin_base_224")
    with torch.device("meta"):
        theirs = to_timm(base.build().state_dict(), base)
    theirs["head.bias"] = torch.zeros(512)  # its numbers are looked at
    assert from_timm(theirs, base)["head.weight"].shape == (512, 768)


def test_the_pretrained_models_of_timm_are_all_known(timm: Any) -> None:
    for name in timm.list_models("vitamin*"):
        side = size_in_name(name)
        assert encoder_config(name).image_size == (side, side)


def tiny_state(pair: ClipConfig, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: value.clone() for name, value in to_open_clip(pair.build().state_dict(), pair, **options).items()}


def test_a_scale_of_one_element_and_text_at_the_root_are_read(open_clip: Any) -> None:
    """Files of S, B and L2 have text tensors at the root; some have logit_scale as [1]."""
    prefixed, at_root = tiny_state(LIKE_XL), tiny_state(LIKE_XL, is_text_prefixed=False)
    assert "positional_embedding" in at_root
    converted = open_clip.factory.convert_to_custom_text_state_dict(dict(at_root))
    assert converted.keys() == prefixed.keys()
    at_root["logit_scale"] = at_root["logit_scale"].reshape(1)
    expected, ours = from_open_clip(prefixed, LIKE_XL), from_open_clip(at_root, LIKE_XL)
    assert ours.keys() == expected.keys()
    assert ours["logit_scale"].shape == ()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_training_checkpoints_of_xl_are_read_with_their_prefix(timm: Any, tmp_path: Path) -> None:
    """timm knows `module.` files by their position table, which XL lacks: it then finds no tensor at all."""
    state = {f"module.{name}": value for name, value in meta_state("ViTamin-XL-256").items()}
    with torch.device("meta"):
        theirs = timm.create_model("vitamin_xlarge_256")
    filtered = timm.models.vision_transformer.checkpoint_filter_fn(state, theirs)
    assert not {*theirs.state_dict()} & {*filtered}

    plain = tiny_state(LIKE_XL)
    path = tmp_path / "epoch_1.pt"
    torch.save({"epoch": 1, "name": "run", "state_dict": {f"module.{k}": v for k, v in plain.items()}}, path)
    ours = from_open_clip(read_tensors(path), LIKE_XL)
    expected = from_open_clip(plain, LIKE_XL)
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_xl_has_no_table_and_a_stray_one_is_refused() -> None:
    """The authors' own code builds XL with a table unless their changed timm is at hand; no published file has one."""
    for side in (256, 336, 384):
        assert "visual.trunk.pos_embed" not in meta_state(f"ViTamin-XL-{side}")
    stray = tiny_state(LIKE_XL) | {"visual.trunk.pos_embed": torch.zeros(1, 9, 24)}
    with pytest.raises(CheckpointError, match=r"1 with no place: 'visual.trunk.pos_embed'"):
        from_open_clip(stray, LIKE_XL)


def test_a_missing_table_is_not_filled_with_random_numbers() -> None:
    state = meta_state("ViTamin-S")
    del state["visual.trunk.pos_embed"]
    with pytest.raises(CheckpointError, match=r"1 missing: 'visual.trunk.pos_embed'"):
        from_open_clip(state, config("ViTamin-S"))


def test_a_file_of_224_fits_256_here_and_not_in_open_clip(open_clip: Any) -> None:
    """open_clip 3.3 resizes only the table of its own ViT: ViTamin's has another name."""
    state = {"visual.trunk.pos_embed": torch.zeros(1, 196, 1024)}
    with torch.device("meta"):
        theirs = open_clip.create_model("ViTamin-L-256", pretrained=None, device="meta")
    open_clip.model.resize_pos_embed(state, theirs)
    assert state["visual.trunk.pos_embed"].shape == (1, 196, 1024)
    small = config("ViTamin-S")
    whole = meta_state("ViTamin-S")
    whole["visual.trunk.pos_embed"] = torch.randn(1, 256, 384)  # as of 256 px
    assert from_open_clip(whole, small)["image.position"].shape == (1, 196, 384)
