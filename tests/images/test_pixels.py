import pytest
import torch

from eyesmith.errors import ShapeError
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD, normalize


def test_normalize_is_the_formula() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16)
    mean = torch.tensor(OPENAI_MEAN, dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor(OPENAI_STD, dtype=torch.float64).view(3, 1, 1)
    normal = normalize(pixels, OPENAI_MEAN, OPENAI_STD)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal.double(), (pixels.double() / 255 - mean) / std, atol=5e-7, rtol=0)
    torch.testing.assert_close(normalize(pixels[0], OPENAI_MEAN, OPENAI_STD), normal[0], atol=0, rtol=0)


def test_normalize_keeps_the_memory_order() -> None:
    pixels = torch.zeros(2, 3, 4, 5, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert normalize(pixels, OPENAI_MEAN, OPENAI_STD).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_floating_pixels_pass_unchanged(dtype: torch.dtype) -> None:
    pixels = torch.ones(1, 3, 2, 2, dtype=dtype)
    assert normalize(pixels, OPENAI_MEAN, OPENAI_STD) is pixels


def test_other_pixels_are_refused() -> None:
    with pytest.raises(ShapeError, match="int64"):
        normalize(torch.zeros(1, 3, 2, 2, dtype=torch.int64), OPENAI_MEAN, OPENAI_STD)
    with pytest.raises(ShapeError, match=r"\[1, 4, 2, 2\]"):
        normalize(torch.zeros(1, 4, 2, 2, dtype=torch.uint8), OPENAI_MEAN, OPENAI_STD)
