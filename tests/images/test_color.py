import colorsys
import random

import numpy as np
from PIL import Image

from eyesmith.images.color import JitterDraw, apply_jitter, draw_jitter, shift_hue, to_gray


def test_a_draw_stays_in_its_ranges_and_leaves_out_what_has_no_strength() -> None:
    rng = random.Random(0)
    orders = set()
    for _ in range(600):
        draw = draw_jitter((0.4, 2.0, 0.0, 0.1), rng)
        orders.add(draw.order)
        assert sorted(draw.order) == [0, 1, 2, 3]
        assert draw.brightness is not None
        assert draw.contrast is not None
        assert draw.hue is not None
        assert 0.6 <= draw.brightness <= 1.4
        assert 0.0 <= draw.contrast <= 3.0
        assert draw.saturation is None
        assert -0.1 <= draw.hue <= 0.1
    assert len(orders) == 24


def test_equal_generators_draw_equally() -> None:
    strengths = (0.4, 0.4, 0.4, 0.1)
    assert draw_jitter(strengths, random.Random(5)) == draw_jitter(strengths, random.Random(5))


def test_neutral_factors_change_nothing(natural) -> None:
    picture = natural(20, 30)
    draw = JitterDraw((3, 2, 1, 0), 1.0, 1.0, 1.0, None)
    np.testing.assert_array_equal(np.asarray(apply_jitter(picture, draw)), np.asarray(picture))


def test_brightness_scales_every_level() -> None:
    picture = Image.new("RGB", (2, 2), (10, 100, 200))
    draw = JitterDraw((0, 1, 2, 3), 1.5, None, None, None)
    assert apply_jitter(picture, draw).getpixel((0, 0)) == (15, 150, 255)


def test_hue_turns_the_color_wheel() -> None:
    picture = Image.new("RGB", (1, 1), (200, 40, 40))
    turned = shift_hue(picture, 1 / 3).getpixel((0, 0))
    hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in turned))
    assert abs(hue - 1 / 3) < 0.01
    assert abs(saturation - 0.8) < 0.01
    assert abs(value - 200 / 255) < 0.01
    assert shift_hue(shift_hue(picture, 0.4), -0.4).getpixel((0, 0)) == (200, 40, 40)


def test_gray_has_three_equal_channels(natural) -> None:
    gray = np.asarray(to_gray(natural(8, 9)))
    assert (gray == gray[..., :1]).all()
    luma = np.asarray(natural(8, 9)) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - luma).max() <= 1
