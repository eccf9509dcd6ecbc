import pytest
import torch

from eyesmith.errors import ShapeError
from eyesmith.losses.patch_regression import masked_cosine, masked_l1, patch_pixels


def test_cosine_row_by_row() -> None:
    a, b = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    slow = [
        -sum(x * y for x, y in zip(p, q, strict=True)) / (sum(x * x for x in p) ** 0.5 * sum(y * y for y in q) ** 0.5)
        for p, q in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert masked_cosine(a, b).tolist() == pytest.approx(slow, abs=1e-6)
    assert masked_cosine(a, 3 * a).tolist() == pytest.approx([-1.0] * 5)
    assert masked_cosine(a, torch.zeros_like(a)).abs().max() == 0


def test_l1_row_by_row() -> None:
    a, b = torch.randn(4, 6), torch.randn(4, 6)
    slow = [sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 6 for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert masked_l1(a, b).tolist() == pytest.approx(slow, rel=1e-5)


def test_patches_are_row_major() -> None:
    pixels = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = patch_pixels(pixels, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].view(3, 2, 2), pixels[1, :, 2:4, 2:4])
    with pytest.raises(ShapeError, match="4 x 6 does not divide"):
        patch_pixels(pixels, 4)


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"two tensors \[M, D\]"):
        masked_cosine(torch.zeros(2, 3), torch.zeros(2, 4))
