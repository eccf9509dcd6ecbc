"""The backward pass in Python, beside torch's own on a processor; the rest needs a CUDA build: `make fake-gpu`."""

from typing import Any
from unittest.mock import patch

import torch
from bench.fake_gpu.engine import apply, backward
from torch import Tensor, nn

from eyesmith.losses.softmax import softmax_loss


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, 8, bias=False))


def gradients(made: nn.Module, scale: Tensor, run: Any) -> list[Tensor | None]:
    """Of a loss with tiles, a function in Python that keeps its gradients, and of a broadcast number."""
    pixels = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images, texts = (nn.functional.normalize(made(one), dim=-1) for one in (pixels, pixels.flip(0) ** 2))
    loss = softmax_loss(images, texts, scale.exp(), tile_rows=2)
    run(loss + (made(pixels) * scale).square().mean())
    return [value.grad for value in (*made.parameters(), scale)]


def test_gradients_are_those_of_autograd() -> None:
    scale = lambda: nn.Parameter(torch.tensor(1.5))  # noqa: E731
    theirs = gradients(model(), scale(), lambda loss: loss.backward())
    with patch.object(torch.autograd.Function, "apply", apply):
        ours = gradients(model(), scale(), lambda loss: backward([loss]))
    assert len(ours) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other)


def test_given_gradients_of_several_roots_add_up() -> None:
    leaf = nn.Parameter(torch.tensor([1.0, 2.0]))
    backward([leaf * 3, leaf**2], [torch.tensor([1.0, 10.0]), torch.tensor([1.0, 1.0])])
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [3 + 2, 30 + 4]
