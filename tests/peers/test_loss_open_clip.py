"""The losses equal open_clip's ClipLoss, SigLipLoss and DistillClipLoss, values and gradients."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.losses import sigmoid_loss, softmax_loss
from eyesmith.losses.distill import logit_distillation
from eyesmith.models.foreign.torchvision import ensure_torchvision

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")


@pytest.fixture(scope="module")
def peer() -> Any:
    ensure_torchvision()
    from open_clip import loss

    return loss


def _leaves(seed: int = 0, count: int = 150) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(count, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    values = (F.normalize(image), F.normalize(text + image / 2), torch.tensor(1 / 0.07), torch.tensor(-10.0))
    return [value.double().requires_grad_() for value in values]


def _assert_equal(ours: Tensor, theirs: Tensor, our_leaves: list[Tensor], their_leaves: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    _assert_equal_grads(ours, theirs, our_leaves, their_leaves)


def _assert_equal_grads(ours: Tensor, theirs: Tensor, our_leaves: list[Tensor], their_leaves: list[Tensor]) -> None:
    found = torch.autograd.grad(ours, our_leaves)
    for mine, other in zip(found, torch.autograd.grad(theirs, their_leaves), strict=True):
        assert float((mine - other).norm() / other.norm()) <= 1e-12


@pytest.mark.parametrize("tile_rows", [None, 32])
def test_softmax(peer: Any, tile_rows: int | None) -> None:
    ours, theirs = _leaves()[:3], _leaves()[:3]
    _assert_equal(softmax_loss(*ours, tile_rows=tile_rows), peer.ClipLoss()(*theirs), ours, theirs)


@pytest.mark.parametrize("tile_rows", [None, 32])
def test_sigmoid(peer: Any, tile_rows: int | None) -> None:
    ours, theirs = _leaves(), _leaves()
    _assert_equal(sigmoid_loss(*ours, tile_rows=tile_rows), peer.SigLipLoss()(*theirs), ours, theirs)


def test_logit_distillation_has_the_gradient_of_their_cross_entropy(peer: Any) -> None:
    ours, theirs, teacher = _leaves()[:3], _leaves()[:3], [leaf.detach() for leaf in _leaves(1)[:3]]
    _, distilled = peer.DistillClipLoss()(*theirs, *teacher)
    _assert_equal_grads(logit_distillation(*ours, *teacher, tile_rows=32), distilled, ours, theirs)
