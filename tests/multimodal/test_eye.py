"""The eye: asleep for good, its tokens averaged to a budget, pictures as LLaVA pads them."""

import pytest
import torch
from PIL import Image
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.eye import Eye, EyeConfig, picture_pixels, squared

SMALL = ViTaminConfig(image_size=(64, 64), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)
MEAN = (0.48145466, 0.4578275, 0.40821073)


def test_nothing_wakes_it() -> None:
    encoder = SMALL.build().train()
    eye = Eye(encoder, EyeConfig())
    nn.Sequential(eye).train()
    assert not any(part.training for part in encoder.modules())
    assert not any(value.requires_grad for value in encoder.parameters())
    pixels = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert not eye(pixels).requires_grad


def test_it_reads_the_input_of_the_last_block_and_averages_cells() -> None:
    encoder = SMALL.build().eval()
    pixels = torch.rand(2, 3, 64, 64)
    whole = Eye(encoder, EyeConfig())
    assert (whole.num_tokens, whole.width) == (16, 32)
    torch.testing.assert_close(whole(pixels), encoder.tokens(pixels, -2))
    halved = Eye(encoder, EyeConfig(grid=(2, 2)))(pixels)
    cells = encoder.tokens(pixels, -2).reshape(2, 4, 4, 32)
    torch.testing.assert_close(halved[:, 1], cells[:, :2, 2:].mean((1, 2)))


def test_a_grid_finer_than_the_eyes_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most \(4, 4\)"):
        Eye(SMALL.build(), EyeConfig(grid=(5, 4)))
    with pytest.raises(ConfigError, match="two positive numbers"):
        EyeConfig(grid=(0, 3))


@pytest.mark.parametrize("size", [(7, 4), (4, 7), (5, 5), (1, 9), (6, 3)])
def test_pictures_are_padded_as_llava_does(size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 60).convert("RGB")
    width, height = size
    side = max(size)
    wanted = Image.new("RGB", (side, side), (122, 116, 104))
    at = (0, (width - height) // 2) if width > height else ((height - width) // 2, 0)
    wanted.paste(picture, at)
    assert squared(picture, MEAN).tobytes() == wanted.tobytes()


def test_padding_keeps_what_a_crop_cuts_off() -> None:
    picture = Image.new("RGB", (90, 30), "white")
    picture.paste("red", (0, 0, 20, 30))
    config = PreprocessConfig(image_size=(30, 30))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    shown = [bool((one == red).all(0).any()) for one in (
        picture_pixels(picture, config, pad=True), picture_pixels(picture, config, pad=False)
    )]  # fmt: skip
    assert shown == [True, False]
    assert torch.equal(picture_pixels(picture, config, pad=False), evaluation_pixels(picture, config))
