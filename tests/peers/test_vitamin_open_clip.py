"""Whole ViTamin CLIPs beside open_clip's, with the same weights, pixels and texts."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from eyesmith.models import Clip, config
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text import ClipTextConfig
from eyesmith.models.vitamin.weights import from_open_clip, likely_models, to_open_clip

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")

TEXTS = ["a photo of a cat", "A diagram.", "two red circles left of a blue square, drawn by hand " * 9]
# width: heads of open_clip's text towers for S, B, L (and both LTT), L2 and XL; their depths, 12 to 27, are shortened
TEXT_WIDTHS = {384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16}


def theirs_of(name: str) -> Any:
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None).eval()
    return away_from_its_start(model)


def ours_of(name: str, peer: Any) -> Clip:
    with torch.device("meta"):
        clip = config(name).build().eval()
    clip.load_state_dict(from_open_clip(peer.state_dict(), clip.config), assign=True)
    return clip


def away_from_its_start(module: nn.Module) -> nn.Module:
    """Biases and norms start at 0 and 1, where a swap of two of them would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module


@torch.no_grad()
def assert_same_model(clip: Clip, peer: Any) -> None:
    """Unit features of both towers within 1e-5, and the scale, at the size our model says it runs at."""
    import open_clip

    pixels = torch.randn(1, 3, *clip.preprocess.image_size)
    image, text, scale = clip(pixels, clip.text.tokenize(TEXTS))
    ids = open_clip.get_tokenizer("ViTamin-S")(TEXTS)
    torch.testing.assert_close(image, F.normalize(peer.encode_image(pixels), dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(text, F.normalize(peer.encode_text(ids), dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(scale, peer.logit_scale.exp())


@pytest.fixture(scope="module")
def theirs() -> Any:
    return theirs_of("ViTamin-S")


@pytest.fixture(scope="module")
def ours(theirs: Any) -> Clip:
    return ours_of("ViTamin-S", theirs)


def test_features_and_scale_agree(ours: Clip, theirs: Any) -> None:
    assert_same_model(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["ViTamin-S-LTT", "ViTamin-B", "ViTamin-B-LTT", "ViTamin-L", "ViTamin-L-384", "ViTamin-L2-256", "ViTamin-XL-384"],
)
def test_the_larger_ones_agree_too(name: str) -> None:
    """XL-384 at 384 px, though open_clip's config prepares its pictures for 256."""
    peer = theirs_of(name)
    assert_same_model(ours_of(name, peer), peer)


@pytest.mark.parametrize("width", TEXT_WIDTHS)
@torch.no_grad()
def test_text_towers_of_every_width_agree(width: int) -> None:
    ensure_torchvision()
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    heads = TEXT_WIDTHS[width]
    peer = away_from_its_start(TextTransformer(width=width, layers=2, heads=heads, output_dim=width)).eval()
    with torch.device("meta"):
        tower = ClipTextConfig(width=width, depth=2, heads=heads, embed_dim=width).build().eval()
    tower.load_state_dict(peer.state_dict(), assign=True)
    ours = F.normalize(tower(tower.tokenize(TEXTS)), dim=-1)
    torch.testing.assert_close(ours, F.normalize(peer(tower.tokenizer(TEXTS)), dim=-1), rtol=0, atol=1e-5)


@torch.no_grad()
def test_bfloat16_is_as_close_as_the_peers_own(ours: Clip, theirs: Any) -> None:
    """Under autocast, unit features. Measured from fp32: images 1.2e-3, theirs too; texts 1.5e-3, theirs 2.2e-3.

    open_clip also rounds the unit rows themselves to bf16; ours are fp32.
    """
    pixels = torch.randn(1, 3, 224, 224)
    ids = ours.text.tokenizer(TEXTS)
    exact = (theirs.encode_image(pixels, normalize=True), theirs.encode_text(ids, normalize=True))
    with torch.autocast("cpu", torch.bfloat16):
        half = (ours.image_features(pixels), ours.text_features(ids))
        theirs_half = (theirs.encode_image(pixels, normalize=True), theirs.encode_text(ids, normalize=True))
    for expected, own, other in zip(exact, half, theirs_half, strict=True):
        assert own.dtype == torch.float32
        assert float((own - expected).abs().max()) < 5e-3
        assert float((own - expected).norm()) < 1.5 * float((other.float() - expected).norm())


def test_the_state_dict_is_theirs_bit_for_bit(ours: Clip, theirs: Any) -> None:
    state = to_open_clip(ours.state_dict(), ours.config)
    expected = theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert likely_models(expected) == ["ViTamin-S"]


def test_pictures_are_prepared_as_open_clip_does(ours: Clip, theirs: Any) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 301, 3), dtype=np.uint8))
    transform: Any = image_transform_v2(PreprocessCfg(**theirs.visual.preprocess_cfg), is_train=False)
    with torch.no_grad():
        expected = F.normalize(theirs.encode_image(transform(picture)[None]), dim=-1)
    torch.testing.assert_close(ours.encode_image([picture]), expected, rtol=0, atol=1e-5)
