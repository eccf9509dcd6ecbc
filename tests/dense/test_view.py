"""Boxes and masks stay on what they are of, however a picture is put into its square."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.dense.view import JitterConfig, ViewConfig, fit, mirrored, show, view_pixels
from eyesmith.errors import ConfigError, ImageError
from eyesmith.images import OPENAI_MEAN
from eyesmith.models.vitamin.model import ViTaminConfig

SIZES = [(64, 64), (30, 90), (121, 57), (300, 200), (1, 50)]


def picture(size: tuple[int, int], seed: int) -> tuple[Image.Image, torch.Tensor, np.ndarray]:
    """Black, with one white box."""
    draw = random.Random(seed)
    height, width = size
    x0, y0 = draw.randint(0, width // 2), draw.randint(0, height // 2)
    x1, y1 = draw.randint(x0 + 1, width), draw.randint(y0 + 1, height)
    mask = np.zeros(size, np.bool_)
    mask[y0:y1, x0:x1] = True
    pixels = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    return Image.fromarray(pixels), torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32), mask


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(8))
def test_box_mask_and_pixels_stay_together(size: tuple[int, int], seed: int) -> None:
    image, boxes, mask = picture(size, seed)
    jitter = JitterConfig(low=0.3, high=2.0) if seed else None
    how = fit(size, 64, jitter, random.Random(seed))
    pixels = view_pixels(image, how, 64, OPENAI_MEAN)
    assert pixels.shape == (3, 64, 64)
    shown = show(boxes, torch.tensor([5]), [mask], how, 64)
    assert not bool((pixels[:, how.height :] == 255).all(0).any())  # padding is no part of the picture
    if not len(shown.boxes):
        return
    assert shown.masks is not None
    where = shown.masks[0].nonzero()
    x0, y0, x1, y1 = shown.boxes[0].tolist()
    if len(where):
        for got, wanted in zip([*where.amin(0), *(where.amax(0) + 1)], (y0, x0, y1, x1), strict=True):
            assert abs(float(got) - wanted) <= 1.01
        inner = shown.masks[0].clone()
        inner[how.height :] = inner[:, how.width :] = False
        assert torch.equal(inner, shown.masks[0])
    bright = pixels[0] > 128
    bright[how.height :] = bright[:, how.width :] = False
    differs = (bright ^ shown.masks[0]).sum().item()
    assert differs <= 2 * ((x1 - x0) + (y1 - y0)) + 4  # along the edge, where pixels are mixed


@pytest.mark.parametrize("size", SIZES)
def test_two_mirrors_change_nothing_and_one_is_that_of_the_view(size: tuple[int, int]) -> None:
    image, boxes, mask = picture(size, 3)
    how = fit(size, 64)
    shown = show(boxes, torch.tensor([0]), [mask], how, 64)
    turned = mirrored(shown, how)
    again = mirrored(turned, how)
    torch.testing.assert_close(again.boxes, shown.boxes)
    assert torch.equal(again.masks, shown.masks)
    other = how._replace(is_flipped=True)
    directly = show(boxes, torch.tensor([0]), [mask], other, 64)
    torch.testing.assert_close(directly.boxes, turned.boxes)
    assert torch.equal(directly.masks, turned.masks)
    flipped = view_pixels(image, other, 64, OPENAI_MEAN)[:, :, : how.width]
    assert torch.equal(flipped.flip(2), view_pixels(image, how, 64, OPENAI_MEAN)[:, :, : how.width])


@pytest.mark.parametrize("seed", range(5))
def test_boxes_come_back(seed: int) -> None:
    how = fit((200, 300), 64, JitterConfig(low=0.2, high=1.0), random.Random(seed))
    boxes = torch.tensor([[30.0, 20.0, 120.0, 90.0], [0.0, 0.0, 300.0, 200.0]])
    torch.testing.assert_close(how.back(how.boxes(boxes)), boxes, atol=1e-3, rtol=1e-5)


def test_a_picture_of_the_squares_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    how = fit((64, 64), 64)
    assert how[:6] == (1.0, 1.0, 0, 0, 64, 64)
    assert torch.equal(
        view_pixels(Image.fromarray(pixels), how, 64, OPENAI_MEAN), torch.tensor(pixels).permute(2, 0, 1)
    )


def test_what_is_cut_off_is_left_out() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [40.0, 40.0, 60.0, 60.0]])
    how = fit((64, 64), 32)._replace(scale_x=1.0, scale_y=1.0, left=32, top=32, height=32, width=32)
    shown = show(boxes, torch.tensor([3, 4]), None, how, 32)
    assert shown.labels.tolist() == [4]
    assert shown.boxes.tolist() == [[8.0, 8.0, 28.0, 28.0]]


def test_grey_pictures_and_huge_ones() -> None:
    how = fit((20, 40), 64)
    grey = view_pixels(Image.new("L", (40, 20), 90), how, 64, OPENAI_MEAN)
    assert grey[:, 10, 10].tolist() == [90, 90, 90]
    with pytest.raises(ImageError, match="cut it into parts"):
        fit((100_000, 100_000), 64)
    with pytest.raises(ImageError, match="0 x 5"):
        fit((5, 0), 64)


def test_the_view_of_an_encoder() -> None:
    encoder = ViTaminConfig(image_size=(32, 32), widths=(8, 8, 8), depths=(1, 1, 2), num_heads=2, embed_dim=4).build()
    whole = ViewConfig(side_px=96).around(encoder)
    assert isinstance(whole, FrozenEncoder)
    assert whole.image_size == (96, 96)
    sliding = ViewConfig(side_px=96, window_px=32).around(encoder)
    assert isinstance(sliding, SlidingEncoder)
    assert sliding.num_windows == 25
    assert sliding.dense(torch.zeros(1, 3, 96, 96)).shape == (1, 8, 6, 6)
    with pytest.raises(ConfigError, match="does not fit"):
        ViewConfig(side_px=64, window_px=96)
    with pytest.raises(ConfigError, match="low <= high"):
        JitterConfig(low=2.0, high=1.0)
