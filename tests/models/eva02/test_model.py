"""TrV's sizes, costs, first weights, and the encoder contract."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.models import create, create_encoder
from eyesmith.models.conformance import check_encoder
from eyesmith.models.cost import encoder_cost, model_cost
from eyesmith.models.eva02.model import EVA02, LADDER, Eva02, Eva02Config
from eyesmith.models.registry import CLIP, config, encoder_config, list_encoders

SIZES = ("tiny", "small", "base", "large")
TINY = Eva02Config(image_size=(28, 42), width=32, depth=3, num_heads=2, hidden_dim=40, embed_dim=12)
VARIANTS = {
    "trv": TINY,
    "clip": replace(TINY, norm="sub", has_inner_norm=True, pooling="token", is_packed=False),
    "pre-trained": replace(TINY, norm="sub", pooling="normed_mean", is_packed=False),
    "vit": replace(TINY, ffn="mlp", relation="none"),
    "relative": replace(TINY, relation="bias", initial="beit"),
    "post": replace(TINY, norm="post", drop_path_prob=0.2),
    "sub mlp": replace(TINY, norm="sub", ffn="mlp", has_position=False),
}


def away_from_its_start(encoder: Eva02) -> Eva02:
    """Every tensor off the zeros and ones it begins with, so that nothing holds by accident."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return encoder


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def meta(size: Eva02Config) -> Eva02:
    with torch.device("meta"):
        return size.build()


# with a norm and without head, 224 px; with 1000 classes at three sizes
COUNTS = {
    "tiny": (5_502_144, {196: 5_683_624, 224: 5_695_144, 336: 5_756_584}),
    "small": (21_621_120, {196: 21_983_080, 224: 22_006_120, 336: 22_129_000}),
    "base": (85_758_720, {196: 86_481_640, 224: 86_527_720, 448: 87_117_544}),
    "large": (303_268_800, {196: 304_232_360, 224: 304_293_800, 448: 305_080_232}),
}
MACS = {  # G, with a head of 1000 classes
    "tiny": {196: 1.247, 224: 1.698, 336: 4.662, 448: 10.398},
    "small": {196: 4.585, 224: 6.124, 336: 15.451, 448: 31.679},
    "base": {196: 17.537, 224: 23.162, 336: 55.405, 448: 106.886},
    "large": {196: 61.509, 224: 81.000, 336: 190.932, 448: 361.747},
}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_the_published_ones(size: str) -> None:
    bare, by_side = COUNTS[size]
    assert count(meta(EVA02[size])) == bare
    for side, expected in by_side.items():
        assert count(meta(replace(EVA02[size], image_size=(side, side), embed_dim=1000))) == expected


def test_hidden_widths_are_two_thirds_of_four_times_the_width() -> None:
    assert [EVA02[size].hidden_dim for size in SIZES] == [512, 1024, 2048, 2730]
    assert [EVA02[size].num_heads for size in SIZES] == [3, 6, 12, 16]


@pytest.mark.parametrize("size", SIZES)
def test_multiply_adds_are_the_published_ones(size: str) -> None:
    for side, expected in MACS[size].items():
        cost = encoder_cost(replace(EVA02[size], image_size=(side, side), embed_dim=1000))
        assert cost.tower.macs / 1e9 == pytest.approx(expected, abs=6e-4)
        assert cost.tokens == (side // 14) ** 2
    # the paper prints 1.3, 4.6, 18, 62 at 196 px and 4.8, 16 at 336 px
    at_196 = MACS[size][196]
    low, high = {"tiny": (1.24, 1.30), "small": (4.5, 4.7), "base": (17.5, 18), "large": (61.5, 62)}[size]
    assert low <= at_196 <= high


@pytest.mark.parametrize(
    ("name", "image", "text", "side", "gmacs"),
    [
        ("EVA02-B-16", 86_263_040, 63.43, 224, 17.56),
        ("EVA02-L-14", 304_105_152, 123.65, 224, 81.00),
        ("EVA02-L-14-336", 304_432_832, 123.65, 336, 190.93),
    ],
)
def test_clip_models_are_as_large_as_open_clips(name: str, image: int, text: float, side: int, gmacs: float) -> None:
    cost = model_cost(config(name))
    assert cost.image is not None
    assert cost.text is not None
    assert cost.image.tower.params == image
    assert cost.text.params / 1e6 == pytest.approx(text, abs=0.005)
    assert cost.image_size == (side, side)
    assert cost.image.tower.macs / 1e9 == pytest.approx(gmacs, abs=0.006)


@pytest.mark.parametrize("relation", ["rope", "bias", "none"])
@pytest.mark.parametrize("norm", ["pre", "sub", "post"])
def test_a_last_block_for_the_class_token_alone_gives_what_the_whole_one_does(relation: Any, norm: Any) -> None:
    torch.manual_seed(0)
    config = replace(TINY, relation=relation, norm=norm, pooling="token", has_inner_norm=norm == "sub")
    encoder = config.build().double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    pixels = torch.randn(2, 3, *config.image_size, dtype=torch.float64)
    whole = encoder.pool(encoder.encode(encoder.patches(pixels)))
    alone = encoder(pixels)
    torch.testing.assert_close(alone, whole, rtol=1e-6, atol=1e-6)  # a short softmax is in fp32
    grads = [
        torch.autograd.grad(one.square().sum(), list(encoder.parameters()), allow_unused=True) for one in (alone, whole)
    ]
    for ours, theirs in zip(*grads, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    fused = encoder.float().eval()
    with torch.no_grad():
        torch.testing.assert_close(fused(pixels.float()), whole.float(), rtol=1e-4, atol=1e-5)


def test_the_giants_have_the_parameters_of_their_files() -> None:
    """Image towers of 1.01 and 4.35 G parameters, as their authors say, to the digits that open_clip's profile has."""
    giant, enormous = (encoder_cost(encoder_config(name)).tower.params for name in GIANTS)
    assert giant / 1e6 == pytest.approx(1012.6, abs=0.1)
    assert enormous / 1e6 == pytest.approx(4350.6, abs=0.1)


GIANTS = ("eva_giant_patch14_clip_224", "eva02_enormous_patch14_clip_224")


def test_a_model_that_this_machine_cannot_hold_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 2**21, "SC_PAGE_SIZE": 4096}[name])
    with pytest.raises(ConfigError, match=r"4\.\d G parameters, 17 GB in fp32, and this machine has 9 GB"):
        create("EVA02-E-14")


def test_every_step_of_the_ladder_is_as_large_as_vit_b() -> None:
    """Table 2: from ViT to TrV nothing is added in parameters or multiply-adds."""
    costs = [encoder_cost(rung.config).tower for rung in LADDER]
    assert all(cost.params == pytest.approx(costs[0].params, rel=2e-3) for cost in costs)
    assert all(cost.macs == pytest.approx(costs[0].macs, rel=2e-3) for cost in costs)
    assert [rung.top1 for rung in LADDER] == [84.0, 84.0, 83.9, 85.0, 85.2, 85.6, None, None]
    trv = LADDER[5].config
    assert replace(trv, image_size=(224, 224)) == EVA02["base"]
    assert len({rung.config for rung in LADDER}) == 8


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_keeps_the_contract(variant: str) -> None:
    torch.manual_seed(0)
    check_encoder(away_from_its_start(VARIANTS[variant].build()), other_size=(56, 28), batch=2)


def test_the_small_one_of_ours_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_encoder(away_from_its_start(EVA02["nano"].build()), other_size=(32, 64), batch=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva02_small_patch14_224", "eva02_large_patch14_clip_224"])
def test_whole_encoders_keep_the_contract(name: str) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(name)
    assert isinstance(encoder, Eva02)
    check_encoder(away_from_its_start(encoder), other_size=(112, 168), batch=1)


@pytest.mark.parametrize("name", [name for name in list_encoders() if name.startswith("eva")])
def test_maps_of_every_encoder_have_the_declared_shapes(name: str) -> None:
    full = encoder_config(name)
    assert isinstance(full, Eva02Config)
    with torch.device("meta"):
        encoder = replace(full, depth=2).build()
        side = 6 * full.patch_px
        encoder.set_image_size(side, 2 * side)
        pixels = torch.empty(1, 3, side, 2 * side)
        maps = encoder.pyramid(pixels)
        assert [tuple(value.shape) for value in maps.values()] == [(1, full.width, 6, 12)] * 2
        assert encoder(pixels).shape == (1, full.embed_dim or full.width)
    assert encoder.image_size == encoder.config.image_size


def test_patches_in_any_order_give_the_same_feature_as_their_places_go_with_them() -> None:
    torch.manual_seed(0)
    encoder = away_from_its_start(TINY.build()).eval()
    pixels = torch.randn(2, 3, 28, 42)
    patches = encoder.patches(pixels)
    with torch.no_grad():
        whole = encoder.encode(patches)
        order = torch.tensor([[5, 0, 3, 1, 4, 2], [2, 1, 0, 5, 4, 3]])
        shuffled = encoder.encode(patches, kept=order)
        torch.testing.assert_close(shuffled[:, 0], whole[:, 0], rtol=0, atol=1e-5)
        rows = order[..., None].expand(-1, -1, 32)
        torch.testing.assert_close(shuffled[:, 1:], whole[:, 1:].gather(1, rows), rtol=0, atol=1e-5)
        assert encoder.encode(patches, kept=order[:, :2]).shape == (2, 3, 32)
    with pytest.raises(ConfigError, match="relative bias"):
        VARIANTS["relative"].build().encode(patches, kept=order)


def test_the_three_ways_of_pooling() -> None:
    torch.manual_seed(0)
    encoder = away_from_its_start(TINY.build()).eval()
    pixels = torch.randn(2, 3, 28, 42)
    with torch.no_grad():
        tokens = encoder.encode(encoder.patches(pixels))
        by_hand = {
            "token": encoder.head(encoder.norm(tokens[:, 0])),
            "mean": encoder.head(encoder.norm(tokens[:, 1:].mean(1))),
            "normed_mean": encoder.head(encoder.norm(tokens[:, 1:]).mean(1)),
        }
        features = {}
        for pooling in ("token", "mean", "normed_mean"):
            encoder.set_pooling(pooling)
            features[pooling] = encoder(pixels)
            assert encoder.is_mean_pooled == (pooling != "token")
            torch.testing.assert_close(features[pooling], by_hand[pooling])
    assert not torch.allclose(features["mean"], features["normed_mean"], atol=1e-3)
    wrong: Any = "max"
    with pytest.raises(ConfigError, match="pooling: expected token, mean or normed_mean"):
        encoder.set_pooling(wrong)


def relative_bias_by_loop(table: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = grid
    places = [(row, column) for row in range(height) for column in range(width)]
    scores = torch.empty(table.shape[1], len(places) + 1, len(places) + 1)
    scores[:, 0, 1:], scores[:, 1:, 0], scores[:, 0, 0] = table[-3, :, None], table[-2, :, None], table[-1]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            line = (row - other_row + height - 1) * (2 * width - 1) + column - other_column + width - 1
            scores[:, i + 1, j + 1] = table[line]
    return scores


def test_a_relative_bias_is_added_to_the_scores() -> None:
    torch.manual_seed(0)
    encoder = away_from_its_start(VARIANTS["relative"].build()).eval()
    attention: Any = encoder.blocks()[0].attention
    x = torch.randn(2, 7, 32)
    q_bias, v_bias = attention.q_bias, attention.v_bias
    with torch.no_grad():
        q, k, v = (x @ attention.qkv.weight.mT).chunk(3, dim=-1)
        q, k, v = (part.view(2, 7, 2, 16).transpose(1, 2) for part in (q + q_bias, k, v + v_bias))
        scores = q @ k.mT / 4 + relative_bias_by_loop(attention.relative, (2, 3))
        expected = attention.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 7, 32))
        torch.testing.assert_close(attention(x, encoder._places), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_first_weights_of_pre_training_have_the_releases_spread() -> None:
    """The printed deviations of one draw of its code; xavier by hand for the others."""
    torch.manual_seed(0)
    for size, patch, out, last in (("tiny", 0.0506, 0.0726, 0.0533), ("base", 0.0384, 0.0643, 0.0475)):
        encoder = replace(EVA02[size], depth=12, embed_dim=1024).build()
        block: Any = encoder.blocks()[3]
        assert float(encoder.patch.weight.std()) == pytest.approx(patch, rel=0.02)
        assert float(block.attention.out.weight.std()) == pytest.approx(out, rel=0.02)
        assert float(block.mlp.out.weight.std()) == pytest.approx(last, rel=0.02)
        d, h = EVA02[size].width, EVA02[size].hidden_dim
        if size == "tiny":
            qkv, enter = [math.sqrt(2 / (4 * d))] * 3, math.sqrt(2 / (d + 2 * h))
        else:
            gain = math.sqrt(math.log(24))
            assert gain == pytest.approx(1.7827097)
            qkv, enter = [d**-0.5, d**-0.5, gain * d**-0.5], gain * math.sqrt(2 / (d + h))
        assert [float(part.std()) for part in block.attention.qkv.weight.chunk(3)] == pytest.approx(qkv, rel=0.02)
        assert float(block.mlp.enter.weight.std()) == pytest.approx(enter, rel=0.02)
        assert isinstance(encoder.head, nn.Linear)
        assert float(encoder.head.weight.std()) == pytest.approx(math.sqrt(2 / (d + 1024)), rel=0.02)
        assert encoder.position is not None
        assert float(encoder.position.std()) == pytest.approx(0.01079, rel=0.03)
        assert float(encoder.position.abs().max()) <= 0.02
        assert float(encoder.patch.bias.abs().max()) == pytest.approx(588**-0.5, rel=0.05)
        zeros = ("q_bias", "v_bias", "out.bias", "enter.bias", "head.bias")
        assert all(not parameter.any() for name, parameter in encoder.named_parameters() if name.endswith(zeros))


@torch.no_grad()
def test_the_gain_of_the_large_one() -> None:
    config = replace(EVA02["large"], width=64, num_heads=1, hidden_dim=512)
    torch.manual_seed(0)
    block: Any = config.build().blocks()[0]
    assert math.sqrt(math.log(2 * config.depth)) == pytest.approx(1.9675368)
    assert float(block.mlp.out.weight.std()) == pytest.approx(1.9675368 * math.sqrt(2 / 576), rel=0.02)


@torch.no_grad()
def test_first_weights_of_fine_tuning_and_clip() -> None:
    torch.manual_seed(0)
    encoder = replace(EVA02["tiny"], initial="beit", embed_dim=1000).build()
    for index in (0, 11):
        block: Any = encoder.blocks()[index]
        assert float(block.attention.qkv.weight.std()) == pytest.approx(0.02, rel=0.02)
        assert float(block.mlp.enter.weight.std()) == pytest.approx(0.02, rel=0.02)
        for linear in (block.attention.out, block.mlp.out):
            assert float(linear.weight.std()) == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.02)
    assert isinstance(encoder.head, nn.Linear)
    assert float(encoder.head.weight.std()) == pytest.approx(0.02 * 0.001, rel=0.02)
    assert not encoder.head.bias.any()
    assert float(encoder.class_token.abs().max()) > 0.02


def test_the_k_projection_has_no_bias() -> None:
    names = [name for name, _ in EVA02["nano"].build().named_parameters() if name.startswith("layers.0.attention")]
    assert names == [
        f"layers.0.attention.{leaf}" for leaf in ("q_bias", "v_bias", "qkv.weight", "out.weight", "out.bias")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (224, 225)}, r"expected multiples of the patch, 14, got \(224, 225\)"),
        ({"num_heads": 5}, "5 does not divide the width 192"),
        ({"num_heads": 32}, "multiple of 4 channels, got 192 / 32"),
        ({"norm": "rms"}, "norm: expected pre, sub or post, got 'rms'"),
        ({"drop_path_prob": 1.0}, "0 <= p < 1"),
        ({"embed_dim": -1}, "embed_dim"),
        ({"depth": 0}, "must be positive"),
    ],
)
def test_a_wrong_field_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(EVA02["tiny"], **changes)


def test_a_clip_of_ours_runs_whole() -> None:
    torch.manual_seed(0)
    clip = create("TrV-Nano", image_size=32)
    z = clip.encode_image(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert z.shape == (2, 256)
    clip.train()
    pixels, ids = torch.randn(2, 3, 32, 32), clip.text.tokenize(["a cat", "a dog"])
    image, text, scale = clip(pixels, ids)
    (scale * image @ text.mT).softmax(-1).diagonal().log().sum().backward()
    assert all(parameter.grad is not None for parameter in clip.parameters())
    assert CLIP["TrV-Nano"].image == encoder_config("trv_nano_48")


@torch.no_grad()
def test_the_fused_path_gives_the_same_numbers() -> None:
    """Without gradient a processor's fused kernels run; in bfloat16 as near to fp32 as the plain path."""
    torch.manual_seed(0)
    for variant in ("trv", "clip"):
        encoder = away_from_its_start(VARIANTS[variant].build()).eval()
        pixels = torch.randn(2, 3, 28, 42)
        with torch.enable_grad():
            plain = encoder(pixels).detach()
        torch.testing.assert_close(encoder(pixels), plain, rtol=0, atol=2e-5)
        low = encoder.bfloat16()(pixels).float()
        assert float((low - plain).norm() / plain.norm()) < 0.05
