"""TrV beside timm's, with the same weights: the last bits in float64, 1e-5 in fp32."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from eyesmith.hub.convert import convert
from eyesmith.hub.load import load, load_encoder
from eyesmith.models.classifier import Classifier
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.eva02.weights import from_published, resize_patch_kernel
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.registry import encoder_config

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")


def theirs(name: str, **options: Any) -> Any:
    """timm's model with weights that no tensor has by accident: a norm's are not all 1, a bias not all 0."""
    ensure_torchvision()
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = timm.create_model(name, pretrained=False, **options).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                spread = parameter[0].numel() ** -0.5 if parameter.ndim in (2, 4) else 0.05
                parameter.add_(torch.randn_like(parameter), alpha=spread)
    return model


def ours(config: Eva02Config, peer: Any) -> Eva02:
    with torch.device("meta"):
        encoder = config.build().eval()
    encoder.load_state_dict(from_published(peer.state_dict(), config), assign=True)
    return encoder


def assert_equal_features(config: Eva02Config, peer: Any, pixels: Tensor) -> None:
    encoder = ours(config, peer)
    with torch.no_grad():
        left, right = F.normalize(encoder(pixels), dim=-1), F.normalize(peer(pixels), dim=-1)
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
        encoder, peer, pixels = encoder.double(), peer.double(), pixels.double()
        tokens = encoder.encode(encoder.patches(pixels))
        assert float(tokens.std()) > 0.1
        torch.testing.assert_close(encoder(pixels), peer(pixels), rtol=0, atol=1e-10)
        states = peer.forward_intermediates(pixels, indices=[0, config.depth - 1], intermediates_only=True)
        torch.testing.assert_close(encoder._map(tokens), states[-1], rtol=0, atol=1e-10)


PEERS = (
    "eva02_tiny_patch14_336",
    "eva02_small_patch14_224",
    "eva02_base_patch14_448",
    "eva02_large_patch14_224",
    "eva02_base_patch16_clip_224",
    "eva02_large_patch14_clip_336",
    "eva02_enormous_patch14_clip_224",
    "eva_giant_patch14_clip_224",
)


@pytest.mark.parametrize("name", PEERS)
def test_two_blocks_at_a_small_size_are_equal(name: str) -> None:
    """Width, heads and parts of every size; 64 tokens."""
    config = encoder_config(name)
    assert isinstance(config, Eva02Config)
    side = 8 * config.patch_px
    giant = {"width": 224, "num_heads": 2, "hidden_dim": 400} if config.width > 1024 else {}
    config = replace(config, depth=2, image_size=(side, side), embed_dim=10, **giant)
    more: dict[str, Any] = {"embed_dim": 224, "num_heads": 2, "mlp_ratio": 400 / 224} if giant else {}
    peer = theirs(name, depth=2, img_size=side, num_classes=10, **more)
    assert_equal_features(config, peer, torch.randn(2, 3, side, side))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PEERS if "giant" not in name and "enormous" not in name])
def test_whole_encoders_are_equal(name: str) -> None:
    config = encoder_config(name)
    assert isinstance(config, Eva02Config)
    config = replace(config, embed_dim=10)
    assert_equal_features(config, theirs(name, num_classes=10), torch.randn(1, 3, *config.image_size))


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "eva02_large_patch14_224", "eva02_base_patch16_clip_224"])
def test_names_and_shapes_of_whole_encoders_are_equal(name: str) -> None:
    ensure_torchvision()
    import timm

    config = encoder_config(name)
    assert isinstance(config, Eva02Config)
    with torch.device("meta"):
        peer = timm.create_model(name, num_classes=config.embed_dim)
        encoder = config.build()
    found = from_published(peer.state_dict(), config)
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in encoder.state_dict().items()
    }


def test_bfloat16_is_as_near_to_fp32_as_theirs_under_autocast() -> None:
    name = "eva02_tiny_patch14_224"
    config = replace(encoder_config(name), depth=2, image_size=(112, 112), embed_dim=10)  # pyright: ignore
    peer = theirs(name, depth=2, img_size=112, num_classes=10)
    encoder, pixels = ours(config, peer), torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        exact = F.normalize(peer(pixels), dim=-1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = F.normalize(peer(pixels).float(), dim=-1)
            cast = F.normalize(encoder(pixels).float(), dim=-1)
        stored = F.normalize(encoder.bfloat16()(pixels).float(), dim=-1)
    allowed = 2 * float((low - exact).norm())
    assert float((cast - exact).norm()) < allowed
    assert float((stored - exact).norm()) < 2 * allowed


def test_another_image_size_equals_timms_with_its_rule() -> None:
    name = "eva02_tiny_patch14_224"
    peer = theirs(name, depth=2, img_size=112, num_classes=0)
    config = replace(encoder_config(name), depth=2, image_size=(112, 112), resize="timm")  # pyright: ignore
    encoder, plain = ours(config, peer), ours(replace(config, resize="reference"), peer)
    pixels = torch.randn(1, 3, 168, 84)
    peer.set_input_size(img_size=(168, 84))
    encoder.set_image_size(168, 84)
    plain.set_image_size(168, 84)
    with torch.no_grad():
        expected = peer(pixels)
        torch.testing.assert_close(encoder(pixels), expected, rtol=0, atol=2e-5)
        assert float((plain(pixels) - expected).abs().max()) > 1e-3  # the release's rule is another one


def test_a_patch_kernel_equals_timms_with_its_rule() -> None:
    ensure_torchvision()
    from timm.layers.patch_embed import resample_patch_embed

    kernel = torch.randn(4, 3, 14, 14)
    expected = resample_patch_embed(kernel, [16, 16])
    torch.testing.assert_close(resize_patch_kernel(kernel, 16, rule="timm"), expected, rtol=0, atol=1e-4)


def test_a_classifier_of_timm_is_loaded_with_its_head_and_written_back(tmp_path: Path) -> None:
    """Its logits are timm's; and in timm's folder it is opened by timm, classes and all."""
    peer = theirs("eva02_tiny_patch14_224", num_classes=7, depth=2, img_size=112)
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    classifier = load(tmp_path / "model.safetensors")
    assert isinstance(classifier, Classifier)
    assert isinstance(classifier.config.image, Eva02Config)
    assert (classifier.image_size, classifier.config.image.resize) == ((112, 112), "timm")
    pixels = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(classifier(pixels), peer(pixels), rtol=0, atol=2e-5)
        expected = peer.forward_head(peer.forward_features(pixels), pre_logits=True)
        encoder = load_encoder(tmp_path / "model.safetensors")
        torch.testing.assert_close(encoder(pixels), expected, rtol=0, atol=2e-5)
        classifier.double(), peer.double()
        torch.testing.assert_close(classifier(pixels.double()), peer(pixels.double()), rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_336", "eva02_small_patch14_336", "eva02_base_patch14_448"])
def test_whole_classifiers_of_a_thousand_are_equal_and_go_back(name: str, tmp_path: Path) -> None:
    """As the release and timm publish them: the head of ImageNet's classes, which have their names."""
    peer = theirs(name, num_classes=1000)
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    classifier = load(tmp_path / "model.safetensors")
    assert isinstance(classifier, Classifier)
    assert (classifier.config.name, classifier.classes[0]) == (name, "tench")
    pixels = torch.randn(1, 3, *classifier.image_size)
    with torch.no_grad():
        torch.testing.assert_close(classifier(pixels), peer(pixels), rtol=0, atol=1e-4)
    done = convert(tmp_path / "model.safetensors", tmp_path / "folder", to="hugging_face_timm")
    assert done.ok, done.lines()
    assert done.left_out == ()
    assert {row.peer for row in done.rows} == {"timm"}


def test_a_pre_trained_file_of_timm_is_an_encoder_and_written_back(tmp_path: Path) -> None:
    peer = theirs("eva02_tiny_patch14_224", num_classes=0)
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    encoder = load(tmp_path / "model.safetensors")
    assert isinstance(encoder, Eva02)
    assert (encoder.image_size, encoder.embed_dim, encoder.config.resize) == ((224, 224), 192, "timm")
    done = convert(tmp_path / "model.safetensors", tmp_path / "folder", to="hugging_face_timm")
    assert done.ok, done.lines()
    assert {row.peer for row in done.rows} == {"timm"}
