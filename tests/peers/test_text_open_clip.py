"""The text tower equals open_clip's TextTransformer: same weights, same names, same initial distribution."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text import ClipText, ClipTextConfig

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")
CONFIG = ClipTextConfig(width=192, depth=4, heads=3, embed_dim=160)
TEXTS = ["a photo of a cat", "", "a diagram.", "<end_of_text> trick", "word " * 200, "caf\u00e9 \U0001f600 " * 5]


@pytest.fixture(scope="module")
def pair() -> tuple[ClipText, Any]:
    ensure_torchvision()
    from open_clip.transformer import TextTransformer

    torch.manual_seed(1)
    theirs = TextTransformer(width=192, layers=4, heads=3, output_dim=160)
    with torch.no_grad():
        for parameter in theirs.parameters():  # away from the initial zeros and ones
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    ours = CONFIG.build()
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_features_are_equal(pair: tuple[ClipText, Any], dtype: torch.dtype, tolerance: float) -> None:
    ours, theirs = (tower.to(dtype) for tower in pair)
    ids = ours.tokenizer(TEXTS)
    expected = theirs(ids)
    scale = expected.abs().max()
    for given in (ids, ours.tokenize(TEXTS)):
        torch.testing.assert_close(ours(given) / scale, expected / scale, rtol=0, atol=tolerance)


def test_gradients_are_equal(pair: tuple[ClipText, Any]) -> None:
    ours, theirs = (tower.double() for tower in pair)
    ids = ours.tokenizer(TEXTS[:3])
    target = torch.randn(3, 160, dtype=torch.float64)
    for tower in (ours, theirs):
        tower.zero_grad()
        (tower(ids) * target).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-9, atol=1e-11)


def test_initial_weights_are_distributed_alike() -> None:
    ensure_torchvision()
    from open_clip.transformer import TextTransformer

    torch.manual_seed(2)
    ours = CONFIG.build().state_dict()
    theirs = TextTransformer(width=192, layers=4, heads=3, output_dim=160).state_dict()
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        assert ours[name].shape == weight.shape
        assert ours[name].std().item() == pytest.approx(weight.std().item(), rel=0.2), name
        assert ours[name].mean().item() == pytest.approx(weight.mean().item(), abs=0.01), name
