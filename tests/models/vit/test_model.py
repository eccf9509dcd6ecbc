"""The plain ViT: the encoder contract in every variant, its numbers by a second way, and OpenCLIP's sizes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.models import create, create_encoder
from eyesmith.models.conformance import check_encoder
from eyesmith.models.cost import model_cost
from eyesmith.models.registry import config
from eyesmith.models.vit.blocks import attend_one
from eyesmith.models.vit.model import Vit, VitConfig

TINY = VitConfig(
    image_size=(24, 36), patch_px=12, width=32, depth=3, num_heads=2, hidden_dim=40, embed_dim=12, drop_path_prob=0.2
)
VARIANTS = {
    "clip": TINY,
    "quick, scaled": replace(TINY, activation="quick_gelu", layer_scale=0.1),
    "clipa": replace(TINY, pooling="mean", has_pre_norm=False),
    "normed mean": replace(TINY, pooling="normed_mean", embed_dim=0),
    "siglip": replace(
        TINY,
        pooling="map",
        has_class_token=False,
        has_pre_norm=False,
        has_patch_bias=True,
        embed_dim=32,
        activation="gelu_tanh",
        norm_eps=1e-6,
    ),
}


def test_one_query_through_the_tokens_themselves_equals_attention_with_keys_and_values() -> None:
    torch.manual_seed(0)
    q, x = torch.randn(2, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    key, value = (torch.randn(12, 12, dtype=torch.float64) for _ in range(2))
    key_bias, value_bias = (torch.randn(12, dtype=torch.float64) for _ in range(2))
    inputs = [part.requires_grad_() for part in (q, x, key, value, value_bias)]

    heads = [part.unflatten(-1, (3, 4)) for part in (q, x @ key.T + key_bias, x @ value.T + value_bias)]
    weights = (torch.einsum("bhc,bnhc->bhn", heads[0], heads[1]) / 2).softmax(-1)
    theirs = torch.einsum("bhn,bnhc->bhc", weights, heads[2]).flatten(1)
    ours = attend_one(q, x, key, value, value_bias, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # a short softmax is in fp32
    grad = torch.randn_like(theirs)
    for mine, slow in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, slow, rtol=1e-5, atol=1e-5)


def away_from_its_start(encoder: Vit) -> Vit:
    """Every tensor off the zeros and ones it begins with, so that nothing holds by accident."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return encoder.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_contract_holds(variant: str) -> None:
    torch.manual_seed(0)
    check_encoder(away_from_its_start(VARIANTS[variant].build()))


def by_hand(encoder: Vit, pixels: Tensor) -> Tensor:
    """The forward as the papers write it, one step after the other, without the modules' own."""
    c, state = encoder.config, encoder.double().state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (c.width,), state[f"{name}.weight"], state[f"{name}.bias"], c.norm_eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def act(x: Tensor) -> Tensor:
        if c.activation == "quick_gelu":
            return x / (1 + (-1.702 * x).exp())
        return F.gelu(x, approximate="tanh" if c.activation == "gelu_tanh" else "none")

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [part.unflatten(-1, (c.num_heads, -1)).transpose(1, 2) for part in (q, k, v)]
        weights = (heads[0] @ heads[1].mT / (c.width // c.num_heads) ** 0.5).softmax(-1)
        return (weights @ heads[2]).transpose(1, 2).flatten(2)

    x = F.conv2d(pixels.double(), state["patch.weight"], state.get("patch.bias"), stride=c.patch_px).flatten(2).mT
    if c.has_class_token:
        x = torch.cat((state["class_token"].expand(len(x), -1, -1), x), dim=1)
    x = x + state["position"]
    x = norm(x, "pre_norm") if c.has_pre_norm else x
    for i in range(c.depth):
        b = f"layers.{i}."
        y = linear(attend(*linear(norm(x, b + "norm1"), b + "attention.qkv").chunk(3, -1)), b + "attention.out")
        x = x + y * state.get(b + "scale1.factor", torch.tensor(1.0))
        y = linear(act(linear(norm(x, b + "norm2"), b + "mlp.enter")), b + "mlp.out")
        x = x + y * state.get(b + "scale2.factor", torch.tensor(1.0))
    if c.pooling == "map":
        p = "attention_pool."
        x = norm(x, "norm")
        weights, biases = state[p + "qkv.weight"].chunk(3), state[p + "qkv.bias"].chunk(3)
        query = (state[p + "query"] @ weights[0].T + biases[0]).expand(len(x), -1, -1)
        x = attend(query, x @ weights[1].T + biases[1], x @ weights[2].T + biases[2])[:, 0]
        x = linear(x, p + "out")
        return x + linear(act(linear(norm(x, p + "norm"), p + "mlp.enter")), p + "mlp.out")
    if c.pooling == "token":
        x = norm(x[:, 0], "norm")
    else:
        cells = x[:, c.num_prefix :]
        x = norm(cells, "norm").mean(1) if c.pooling == "normed_mean" else norm(cells.mean(1), "norm")
    return x @ state["head.weight"].T if c.embed_dim else x


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("has_gradient", [False, True])
def test_forward_equals_the_formulas(variant: str, has_gradient: bool) -> None:
    """Without gradient the fused kernels run, with it torch's own."""
    torch.manual_seed(1)
    encoder = away_from_its_start(VARIANTS[variant].build())
    pixels = torch.randn(2, 3, 24, 36)
    with torch.set_grad_enabled(has_gradient):
        feature = encoder(pixels).detach()
    expected = by_hand(encoder, pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(feature.double(), expected, rtol=0, atol=2e-5)


def test_of_one_cell_the_pooling_is_projected() -> None:
    """With one patch there is nothing to choose: SigLIP's pooling is then what `project` does."""
    encoder = away_from_its_start(replace(VARIANTS["siglip"], image_size=(12, 12)).build())
    pixels = torch.randn(2, 3, 12, 12)
    cells = encoder.project(encoder.dense(pixels).flatten(2).mT)  # [2, 1, D]
    torch.testing.assert_close(cells[:, 0], encoder(pixels))


def test_kept_patches_are_those_whose_place_they_have() -> None:
    encoder = away_from_its_start(TINY.build())
    patches = encoder.patches(torch.randn(2, 3, 24, 36))
    kept = torch.tensor([[0, 4, 5], [1, 2, 3]])
    few = encoder.encode(patches, depth=0, kept=kept)
    whole = encoder.encode(patches, depth=0)
    assert torch.equal(few[0], whole[0, [0, 1, 5, 6]])
    assert torch.equal(few[1], whole[1, [0, 2, 3, 4]])
    assert torch.equal(encoder.encode(patches, kept=torch.arange(6).expand(2, -1)), encoder.encode(patches))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (24, 30)}, "image_size: expected multiples of the patch, 12"),
        ({"num_heads": 3}, "num_heads: 3 does not divide the width 32"),
        ({"activation": "relu"}, "activation: expected gelu, quick_gelu"),
        ({"pooling": "none"}, "pooling: expected token, mean"),
        ({"has_class_token": False}, "pooling: 'token' needs has_class_token"),
        ({"pooling": "map", "embed_dim": 12}, "embed_dim: with pooling='map' there is no projection"),
        ({"drop_path_prob": 1.0}, "drop_path_prob: expected 0 <= p < 1"),
    ],
)
def test_what_cannot_be_built_says_why(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **fields)


# image and text parameters, in millions: OpenCLIP's model profile, docs/model_profile.csv
MILLIONS = {
    "ViT-B-32": (87.85, 63.43),
    "ViT-B-16": (86.19, 63.43),
    "ViT-L-14": (303.97, 123.65),
    "ViT-L-14-336": (304.29, 123.65),
    "ViT-H-14": (632.08, 354.03),
    "ViT-g-14": (1012.65, 354.03),
    "ViT-bigG-14": (1844.91, 694.66),
    "ViT-L-14-CLIPA": (303.96, 110.25),
    "ViT-B-16-SigLIP": (92.88, 110.27),
    "ViT-SO400M-14-SigLIP": (427.68, 449.68),
    "ViT-B-16-SigLIP2": (92.88, 282.30),
}


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters_are_the_published_ones(name: str) -> None:
    cost = model_cost(config(name))
    assert cost.image is not None
    assert cost.text is not None
    found = cost.image.tower.params / 1e6, cost.text.params / 1e6
    assert found == pytest.approx(MILLIONS[name], abs=0.006)


def test_multiply_adds_are_the_published_ones_though_the_last_block_does_less() -> None:
    """OpenCLIP's model profile, docs/model_profile.csv, in GFLOPs of both towers: 14.78 and 41.09."""
    for name, published in (("ViT-B-32", 14.78), ("ViT-B-16", 41.09)):
        cost = model_cost(config(name))
        assert cost.image is not None
        assert cost.text is not None
        assert 2 * (cost.image.tower.macs + cost.text.macs) / 1e9 == pytest.approx(published, rel=0.01)


def test_quick_gelu_by_name_and_nowhere_else() -> None:
    for name in ("ViT-B-32", "ViT-L-14", "ViT-H-14-378"):
        for suffix, expected in (("", "gelu"), ("-quickgelu", "quick_gelu")):
            made = config(name + suffix)
            assert (getattr(made.image, "activation", ""), getattr(made.text, "activation", "")) == (expected, expected)


def test_pictures_are_prepared_as_the_model_was_trained() -> None:
    clipa, siglip, clip = (config(name).preprocess for name in ("ViT-L-14-CLIPA", "ViT-B-16-SigLIP", "ViT-B-32"))
    assert (clipa.resize, clipa.interpolation, clipa.mean) == ("squash", "bilinear", (0.485, 0.456, 0.406))
    assert (siglip.resize, siglip.interpolation, siglip.mean) == ("squash", "bicubic", (0.5, 0.5, 0.5))
    assert (clip.resize, clip.interpolation) == ("shortest", "bicubic")
    at_384 = config("ViT-SO400M-14-SigLIP-384")  # 27 patches of 14; the last 6 pixels are in none
    assert (at_384.preprocess.image_size, at_384.preprocess.overhang_px) == ((378, 378), 6)


def test_a_small_one_is_made_by_name() -> None:
    clip = create("ViT-S-32-alt", image_size=64, **{"image.depth": 1, "text.depth": 1}).eval()
    features = clip.image_features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert features.shape == clip.encode_text(["a cat"]).shape == (1, 256)
    encoder = create_encoder("vit_base_patch32_clip_224", embed_dim=0, image_size=64, depth=1)
    assert encoder.embed_dim == 768
    assert isinstance(encoder.head if isinstance(encoder, Vit) else None, nn.Identity)
