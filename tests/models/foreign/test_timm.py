"""timm backbones as encoders: they keep the contract, and give what timm itself gives."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models import config as model_config
from eyesmith.models.conformance import check_encoder
from eyesmith.models.foreign.timm import TIMM, TimmConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")

VIT = TimmConfig(
    model_name="vit_tiny_patch16_224", image_size=(48, 48), embed_dim=16, widths=(32,), depths=(3,), num_heads=2
)
FAMILIES = {
    "class-token ViT": VIT,
    "mean-pooled ViT": TimmConfig(
        model_name="vit_tiny_patch16_224",
        image_size=(32, 48),
        embed_dim=0,
        widths=(32,),
        depths=(2,),
        num_heads=2,
        pooling="mean",
    ),
    "EVA-02": TimmConfig(
        model_name="eva02_tiny_patch14_224", image_size=(56, 56), embed_dim=16, depths=(2,), patch_px=28
    ),
    "ConvNeXt": TimmConfig(
        model_name="convnext_atto", image_size=(64, 64), embed_dim=16, widths=(8, 8, 16, 16), depths=(1, 1, 2, 2)
    ),
    "CoAtNet": TimmConfig(
        model_name="coatnet_0_224", image_size=(64, 64), embed_dim=16, widths=(32, 32, 32, 64), depths=(1, 1, 2, 2)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_keeps_the_encoder_contract(family: str) -> None:
    check_encoder(FAMILIES[family].build())


@pytest.mark.parametrize("family", ["class-token ViT", "ConvNeXt", "CoAtNet"])
def test_the_feature_is_timms_feature_projected(family: str) -> None:
    encoder = FAMILIES[family].build().eval()
    pixels = torch.randn(2, 3, *encoder.image_size)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), encoder.head(encoder.backbone(pixels)))


def test_only_a_mean_over_the_map_is_called_mean_pooling() -> None:
    pooled = {family: config.build().is_mean_pooled for family, config in FAMILIES.items()}
    assert pooled == {family: family != "class-token ViT" for family in FAMILIES}


def test_taps_of_stages_and_of_blocks() -> None:
    convnext = FAMILIES["ConvNeXt"].build().taps
    assert [(name, tap.stride, tap.channels) for name, tap in convnext.items()] == [
        ("stage1", 4, 8),
        ("stage2", 8, 8),
        ("stage3", 16, 16),
        ("stage4", 32, 16),
    ]
    assert list(TIMM["vit_nano"].build().taps) == ["block1", "block2", "block3", "block5"]


def test_tokens_are_the_penultimate_blocks_output() -> None:
    encoder: Any = VIT.build().eval()
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        last = encoder.backbone.blocks[2]
        x = encoder.backbone.patch_embed(pixels)
        x = encoder.backbone.blocks[:2](encoder.backbone._pos_embed(x))
        torch.testing.assert_close(encoder.tokens(pixels), x[:, 1:])
        torch.testing.assert_close(encoder.tokens(pixels, -1), last(x)[:, 1:])


def test_the_baseline_has_vitamin_nanos_size_within_3_percent() -> None:
    counts = {}
    for name in ("ViT-Nano", "ViTamin-Nano"):
        encoder = model_config(name).image.build()
        counts[name] = sum(parameter.numel() for parameter in encoder.parameters())
        assert encoder.image_size == (48, 48)
    assert counts["ViT-Nano"] == pytest.approx(counts["ViTamin-Nano"], rel=0.03)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TimmConfig(model_name="vit_tiny_patch16_22", embed_dim=0), "did you mean .*vit_tiny_patch16_224"),
        (TimmConfig(model_name="resnet18", embed_dim=0, widths=(3,)), "widths: cannot be set for timm's resnet18"),
        (TimmConfig(model_name="convnext_atto", embed_dim=0, num_heads=2), "num_heads: cannot be set"),
        (TimmConfig(model_name="vit_tiny_patch16_224", embed_dim=0, depths=(1, 2)), "depths: .* has one stage"),
    ],
)
def test_what_timm_does_not_have_is_said(config: TimmConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.build()


def test_an_image_size_off_the_stride_is_refused() -> None:
    with pytest.raises((ShapeError, ConfigError), match="50"):
        TimmConfig(model_name="convnext_atto", image_size=(50, 64), embed_dim=0).build()
    with pytest.raises(ConfigError, match="image_size"):
        TimmConfig(model_name="convnext_atto", image_size=(0, 64), embed_dim=0)


def test_a_clip_vit_of_timm_is_open_clips_own_in_numbers_and_in_its_first_weights() -> None:
    ensure_torchvision()
    transformer = pytest.importorskip("open_clip.transformer")
    config = TimmConfig(
        model_name="vit_base_patch16_clip_224",
        image_size=(64, 64),
        embed_dim=48,
        widths=(128,),
        depths=(2,),
        num_heads=2,
        patch_px=16,
        initial="open_clip",
    )
    torch.manual_seed(0)
    ours: Any = config.build().eval()
    theirs = transformer.VisionTransformer(64, 16, 128, 2, 2, 4.0, output_dim=48).eval()
    names = {
        "backbone.cls_token": "class_embedding",
        "backbone.pos_embed": "positional_embedding",
        "backbone.patch_embed.proj.weight": "conv1.weight",
        "backbone.norm_pre": "ln_pre",
        "backbone.norm": "ln_post",
        "head.weight": "proj",
    }
    for k in range(2):
        parts = {
            "norm1": "ln_1",
            "norm2": "ln_2",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
            "attn.proj": "attn.out_proj",
        }
        names |= {f"backbone.blocks.{k}.{a}": f"transformer.resblocks.{k}.{b}" for a, b in parts.items()}
        for kind in ("weight", "bias"):
            names[f"backbone.blocks.{k}.attn.qkv.{kind}"] = f"transformer.resblocks.{k}.attn.in_proj_{kind}"
    state = theirs.state_dict()
    copied = {}
    for name, value in ours.state_dict().items():
        stem, _, kind = name.rpartition(".")
        given = state[names[name]] if name in names else state[f"{names[stem]}.{kind}"]
        given = given.T if name == "head.weight" else given
        # drawn alike: equal deviations within the noise of so many draws, nothing where nothing is
        assert float(value.std()) == pytest.approx(float(given.std()), rel=0.15, abs=1e-9), name
        assert float(value.abs().max()) == pytest.approx(float(given.abs().max()), rel=0.4, abs=1e-9), name
        copied[name] = given.reshape(value.shape)
    assert len(copied) == len(state)
    ours.load_state_dict(copied)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
