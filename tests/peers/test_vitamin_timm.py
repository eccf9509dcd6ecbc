"""ViTamin beside timm's, with the same weights."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.vitamin.model import VITAMIN, ViTamin, ViTaminConfig
from eyesmith.models.vitamin.weights import from_timm, to_timm

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")


def theirs(name: str, **options: Any) -> nn.Module:
    """timm's model with weights that no tensor has by accident: a norm's are not all 1, a bias not all 0."""
    ensure_torchvision()
    import timm

    with torch.device("meta"):  # its own initialisation takes longer than the tests
        model = timm.create_model(name, pretrained=False, **options)
    assert not list(model.buffers())
    model = model.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel() if parameter.ndim != 3 else 400  # the table: deviation 0.05
                parameter.normal_(std=fan_in**-0.5)
            else:
                parameter.normal_(std=0.05)
        for part in model.modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.add_(1)
        model.head.bias.zero_()
    return model


def ours(config: ViTaminConfig, peer: nn.Module) -> ViTamin:
    with torch.device("meta"):
        encoder = config.build().eval()
    encoder.load_state_dict(from_timm(peer.state_dict(), config), assign=True)
    return encoder


def unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1)


def assert_same_features(encoder: ViTamin, peer: Any, pixels: Tensor) -> None:
    """Unit features within 1e-5; tokens within 1e-5 of the largest value among them."""
    with torch.no_grad():
        torch.testing.assert_close(unit(encoder(pixels)), unit(peer(pixels)), rtol=0, atol=1e-5)
        tokens = peer.forward_features(pixels)  # [B, N, C]
        largest = float(tokens.abs().max())
        torch.testing.assert_close(encoder.tokens(pixels, -1) / largest, tokens / largest, rtol=0, atol=1e-5)


PEERS = {"small": "vitamin_small_224", "base": "vitamin_base_224"}


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return theirs(PEERS["small"], num_classes=384, drop_path_rate=0.1)


@pytest.fixture(scope="module", params=PEERS)
def pair(request: pytest.FixtureRequest) -> tuple[ViTamin, nn.Module]:
    config = VITAMIN[request.param]
    peer = theirs(PEERS[request.param], num_classes=config.embed_dim)
    return ours(config, peer), peer


def test_features_and_tokens_are_the_same(pair: tuple[ViTamin, nn.Module]) -> None:
    encoder, peer = pair
    assert_same_features(encoder, peer, torch.randn(1, 3, 224, 224))


@torch.no_grad()
def test_bfloat16_is_as_close_as_the_peers_own(pair: tuple[ViTamin, nn.Module]) -> None:
    """Measured on unit features: largest difference from fp32 and 1 - cosine, ours and timm's alike.

    S: 1.6e-3 and 4e-5 under autocast, 2.4e-3 and 9e-5 with weights cast; B: 1.1e-3 and 3e-5, 1.4e-3 and 5e-5.
    """
    encoder, peer = pair
    pixels = torch.randn(1, 3, 224, 224)
    exact = unit(peer(pixels))

    def check(half: Tensor, peers_half: Tensor) -> None:
        assert float((half - exact).abs().max()) < 4e-3
        assert float(1 - (half * exact).sum(-1).min()) < 1.5e-4
        # not merely small: what bf16 costs timm, give or take the luck of rounding
        own, theirs_own = (float((features - exact).norm()) for features in (half, peers_half))
        assert own < 1.5 * theirs_own
        assert float((half - peers_half).abs().max()) < 3e-3

    with torch.autocast("cpu", torch.bfloat16):
        check(unit(encoder(pixels)), unit(peer(pixels)))
    cast = encoder.config.build().bfloat16().eval()
    cast.load_state_dict(encoder.state_dict())
    peer.bfloat16()
    try:
        check(unit(cast(pixels.bfloat16())), unit(peer(pixels.bfloat16())))
    finally:
        peer.float()
        peer.load_state_dict(to_timm(encoder.state_dict(), encoder.config))  # bf16 rounded what the fixture shares


def test_stochastic_depth_has_the_same_schedule(small: nn.Module) -> None:
    encoder: Any = ours(VITAMIN["small"], small)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in small.blocks]
    assert [block.drop1.prob for block in encoder.stage3] == pytest.approx(rates, abs=1e-7)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("size", ["base", "large", "xlarge"])
def test_other_sizes_agree_in_double_precision_at_a_size_that_is_not_square(size: str) -> None:
    config = VITAMIN[size]
    name = {"base": "vitamin_base_224", "large": "vitamin_large_224", "xlarge": "vitamin_xlarge_256"}[size]
    peer = theirs(name, num_classes=64, depth=2, img_size=(32, 48)).double()
    config = replace(config, depths=(2, 4, 2), image_size=(32, 48), embed_dim=64)
    encoder = config.build().double().eval()
    encoder.load_state_dict(from_timm(peer.state_dict(), config))
    pixels = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), peer(pixels), rtol=1e-11, atol=1e-11)


def test_gradients_agree_in_double_precision() -> None:
    peer = theirs("vitamin_small_224", num_classes=64, depth=2, img_size=(32, 48)).double()
    config = replace(VITAMIN["small"], depths=(2, 4, 2), image_size=(32, 48), embed_dim=64)
    encoder = config.build().double().eval()
    encoder.load_state_dict(from_timm(peer.state_dict(), config))
    pixels = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    weights = torch.randn(64, dtype=torch.float64)
    for model in (encoder, peer):
        (model(pixels) @ weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    expected = from_timm(
        {name: parameter.grad for name, parameter in peer.named_parameters()} | {"head.bias": torch.zeros(64)}, config
    )
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-9, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_resizing_equals_timms() -> None:
    peer: Any = theirs("vitamin_small_224", num_classes=64, depth=2, img_size=(64, 64))
    config = replace(VITAMIN["small"], depths=(2, 4, 2), image_size=(64, 64), embed_dim=64)
    encoder = ours(config, peer)
    resized = from_timm(peer.state_dict(), replace(config, image_size=(48, 96)))["position"]
    peer.set_input_size(img_size=(48, 96))
    encoder.set_image_size(48, 96)
    torch.testing.assert_close(encoder.position, peer.pos_embed)
    torch.testing.assert_close(resized, peer.pos_embed.detach())
    pixels = torch.randn(1, 3, 48, 96)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), peer(pixels), rtol=0, atol=1e-5)


def test_large_at_256_from_weights_of_224() -> None:
    """The table is resampled from 14 x 14 to 16 x 16 three ways: by timm, while loading, and by set_image_size."""
    _large_at_256(depth=2)


@pytest.mark.slow
def test_all_of_large_at_256_from_weights_of_224() -> None:
    _large_at_256(depth=31)


def _large_at_256(depth: int) -> None:
    config = replace(VITAMIN["large"], depths=(2, 4, depth))
    peer: Any = theirs("vitamin_large_224", num_classes=768, depth=depth)
    encoder = ours(config, peer)
    loaded = ours(replace(config, image_size=(256, 256)), peer)
    peer.set_input_size(img_size=(256, 256))
    encoder.set_image_size(256, 256)
    assert encoder.position is not None
    assert loaded.position is not None
    assert encoder.position.shape == (1, 256, 1024)
    torch.testing.assert_close(encoder.position, peer.pos_embed, rtol=0, atol=1e-6)
    assert torch.equal(loaded.position, encoder.position)
    assert_same_features(encoder, peer, torch.randn(1, 3, 256, 256))


@pytest.mark.parametrize(
    ("depth", "side"),
    [(2, 256), pytest.param(32, 256, marks=pytest.mark.slow), pytest.param(32, 384, marks=pytest.mark.slow)],
)
def test_xlarge(depth: int, side: int) -> None:
    config = replace(VITAMIN["xlarge"], depths=(2, 4, depth), image_size=(side, side))
    peer = theirs(f"vitamin_xlarge_{side}", num_classes=1152, depth=depth)
    assert_same_features(ours(config, peer), peer, torch.randn(1, 3, side, side))


def test_our_weights_load_strictly_in_timm(small: nn.Module) -> None:
    state = to_timm(VITAMIN["small"].build().state_dict(), VITAMIN["small"])
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in small.state_dict().items()
    }
