"""ViTamin beside timm's, with the same weights."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from eyesmith.models.timm.torchvision import ensure_torchvision
from eyesmith.models.vitamin.config import VITAMIN, ViTaminConfig
from eyesmith.models.vitamin.model import ViTamin
from eyesmith.models.vitamin.weights import from_timm, to_timm

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")


def theirs(name: str, **options: Any) -> nn.Module:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **options).eval()
    with torch.no_grad():  # biases and norms start at 0 and 1, where a swap of two of them would not show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        model.head.bias.zero_()
    return model


def ours(config: ViTaminConfig, peer: nn.Module) -> ViTamin:
    encoder = config.build().eval()
    encoder.load_state_dict(from_timm(peer.state_dict(), config))
    return encoder


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return theirs("vitamin_small_224", num_classes=384, drop_path_rate=0.1)


def test_small_gives_the_same_features(small: nn.Module) -> None:
    encoder = ours(VITAMIN["small"], small)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), small(pixels), rtol=0, atol=1e-5)
        mapped = small.forward_features(pixels[:1])  # [B, N, C]
        torch.testing.assert_close(encoder.tokens(pixels[:1], -1), mapped, rtol=0, atol=1e-4)


def test_stochastic_depth_has_the_same_schedule(small: nn.Module) -> None:
    encoder: Any = ours(VITAMIN["small"], small)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in small.blocks]
    assert [block.drop_path_prob for block in encoder.stage3] == pytest.approx(rates, abs=1e-7)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("size", ["base", "xlarge"])
def test_other_sizes_agree_in_double_precision_at_a_size_that_is_not_square(size: str) -> None:
    config = VITAMIN[size]
    name = {"base": "vitamin_base_224", "xlarge": "vitamin_xlarge_256"}[size]
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


def test_our_weights_load_strictly_in_timm(small: nn.Module) -> None:
    state = to_timm(VITAMIN["small"].build().state_dict(), VITAMIN["small"])
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in small.state_dict().items()
    }
