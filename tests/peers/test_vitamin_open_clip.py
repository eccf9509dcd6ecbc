"""The whole ViTamin-S CLIP beside open_clip's, with the same weights, pixels and texts."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eyesmith.models import Clip, config
from eyesmith.models.timm.torchvision import ensure_torchvision
from eyesmith.models.vitamin.weights import from_open_clip, likely_models, to_open_clip

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")

TEXTS = ["a photo of a cat", "A diagram.", "two red circles left of a blue square, drawn by hand " * 9]


@pytest.fixture(scope="module")
def theirs() -> Any:
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViTamin-S", pretrained=None).eval()
    with torch.no_grad():  # biases and norms start at 0 and 1, where a swap of two of them would not show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


@pytest.fixture(scope="module")
def ours(theirs: Any) -> Clip:
    clip = config("ViTamin-S").build().eval()
    clip.load_state_dict(from_open_clip(theirs.state_dict(), clip.config))
    return clip


@torch.no_grad()
def test_features_and_scale_agree(ours: Clip, theirs: Any) -> None:
    import open_clip

    pixels = torch.randn(2, 3, 224, 224)
    image, text, scale = ours(pixels, ours.text.tokenize(TEXTS))
    ids = open_clip.get_tokenizer("ViTamin-S")(TEXTS)
    torch.testing.assert_close(image, F.normalize(theirs.encode_image(pixels), dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(text, F.normalize(theirs.encode_text(ids), dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(scale, theirs.logit_scale.exp())


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
