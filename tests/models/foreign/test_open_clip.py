"""open_clip's towers as encoders and text towers: they keep the contract, and give what open_clip itself gives."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import eyesmith
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.clip import Clip
from eyesmith.models.conformance import check_encoder
from eyesmith.models.foreign.open_clip_image import OpenClipImageConfig, OpenClipResNet, OpenClipTimm, OpenClipViT
from eyesmith.models.foreign.open_clip_text import OpenClipTextConfig

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")

VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TOWERS: dict[str, tuple[dict[str, Any], type, bool]] = {
    "class token": (VIT, OpenClipViT, False),
    "mean, then norm": (VIT | {"pool_type": "avg", "final_ln_after_pool": True}, OpenClipViT, True),
    "norm, then mean": (VIT | {"pool_type": "avg", "no_ln_pre": True}, OpenClipViT, False),
    "attention pool": (
        VIT | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True},
        OpenClipViT,
        False,
    ),
    "ResNet": ({"image_size": 64, "layers": [1, 1, 1, 2], "width": 8, "head_width": 16}, OpenClipResNet, False),
    "timm": (
        {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"},
        OpenClipTimm,
        False,
    ),
}


@pytest.mark.parametrize("name", TOWERS)
def test_towers_keep_the_contract_and_give_open_clips_features(name: str, tmp_path: Path, write_open_clip) -> None:
    vision, kind, is_mean_pooled = TOWERS[name]
    theirs = write_open_clip(tmp_path / "tiny", vision)
    clip = eyesmith.load(f"open_clip:{tmp_path / 'tiny'}")
    assert isinstance(clip, Clip)
    assert isinstance(clip.image, kind)
    assert clip.image.is_mean_pooled == is_mean_pooled
    pixels = torch.randn(2, 3, vision["image_size"], vision["image_size"])
    ids = clip.text.tokenize(["a red disc", "two dogs, left of a very long house that goes on and on and on"])
    with torch.no_grad():
        features = theirs.encode_image(pixels)
        torch.testing.assert_close(clip.image(pixels), features[0] if isinstance(features, tuple) else features)
        torch.testing.assert_close(clip.text(ids), theirs.encode_text(ids))
        torch.testing.assert_close(clip.logit_scale, theirs.logit_scale)
    check_encoder(clip.image)


def test_project_of_the_class_token_is_the_feature(open_clip_folder: Path) -> None:
    encoder = eyesmith.load_encoder(open_clip_folder)
    assert isinstance(encoder, OpenClipViT)
    caught: list[torch.Tensor] = []
    hook = encoder.blocks()[-1].register_forward_hook(lambda _module, _args, result: caught.append(result))
    feature = encoder(torch.randn(2, 3, 32, 32))
    hook.remove()
    torch.testing.assert_close(encoder.project(caught[0][:, 0]), feature)


def test_texts_become_the_ids_of_open_clips_tokenizer(open_clip_folder: Path) -> None:
    import open_clip

    clip = eyesmith.load(open_clip_folder)
    assert isinstance(clip, Clip)
    theirs = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")
    texts = ["a PHOTO of a cat", "naïve café ☕ 42 &amp; more", "", "very " * 40]
    assert torch.equal(clip.text.tokenize(texts), theirs(texts))


def test_a_text_of_another_length_is_refused_in_a_sentence(open_clip_folder: Path) -> None:
    clip = eyesmith.load(open_clip_folder)
    assert isinstance(clip, Clip)
    with pytest.raises(ShapeError, match=r"ids: expected \[T, 12\], got \[1, 3\]"):
        clip.text(torch.zeros(1, 3, dtype=torch.int64))


def test_settings_that_run_code_or_make_no_sense_are_refused() -> None:
    from eyesmith.images import PreprocessConfig

    fields = {"model_name": "odd", "image_size": (32, 32), "embed_dim": 8}
    pixels = PreprocessConfig(image_size=(32, 32))
    with pytest.raises(ConfigError, match="no JSON"):
        OpenClipImageConfig(settings="{", preprocess=pixels, **fields)
    with pytest.raises(ConfigError, match="no vision_cfg"):
        OpenClipImageConfig(settings="{}", preprocess=pixels, **fields)
    with pytest.raises(ConfigError, match="never run"):
        OpenClipTextConfig(
            model_name="odd", settings='{"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": true}}}', embed_dim=8
        )
    with pytest.raises(ConfigError, match="open_clip cannot build its image tower"):
        OpenClipImageConfig(settings='{"vision_cfg": {"breadth": 3}}', preprocess=pixels, **fields).build()
