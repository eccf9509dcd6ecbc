import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eyesmith.images.crop import Box, below, center_box, random_resized_box, sample_rng, shortest_size

_sides = st.integers(1, 5000)


@given(_sides, _sides, st.integers(1, 500), st.integers(1, 500))
def test_the_resized_image_always_covers_the_target(height: int, width: int, tall: int, wide: int) -> None:
    for target in ((tall, wide), (tall, tall)):
        resized = shortest_size((height, width), target)
        assert resized[0] >= target[0]
        assert resized[1] >= target[1]
        left, top, right, bottom = center_box(resized, target).corners
        assert 0 <= left < right <= resized[1]
        assert 0 <= top < bottom <= resized[0]


def test_the_longer_side_is_truncated_and_half_pixels_go_to_even() -> None:
    assert shortest_size((200, 301), (224, 224)) == (224, 337)  # 224 * 301 / 200 = 337.12
    assert shortest_size((301, 200), (223, 223)) == (335, 223)  # 335.6
    assert center_box((224, 337), (224, 224)) == (0, 56, 224, 224)  # 56.5
    assert center_box((224, 339), (224, 224)) == (0, 58, 224, 224)  # 57.5


@given(_sides, _sides, st.integers(0, 2**32))
def test_a_random_box_lies_inside(height: int, width: int, seed: int) -> None:
    box = random_resized_box((height, width), (0.08, 1.0), (3 / 4, 4 / 3), random.Random(seed))
    left, top, right, bottom = box.corners
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_boxes_have_the_stated_distribution() -> None:
    rng = random.Random(0)
    boxes = [random_resized_box((1000, 1000), (0.2, 0.4), (1 / 2, 2), rng) for _ in range(4000)]
    areas = np.array([box.height * box.width for box in boxes]) / 1e6
    ratios = np.log([box.width / box.height for box in boxes])
    assert 0.199 < areas.min() < 0.21
    assert 0.39 < areas.max() < 0.401
    assert abs(areas.mean() - 0.3) < 0.004
    assert abs(ratios.mean()) < 0.03
    assert abs(ratios.std() - math.log(4) / math.sqrt(12)) < 0.02
    left = np.array([box.left / (1000 - box.width) for box in boxes])
    assert abs(left.mean() - 0.5) < 0.02


def test_a_strip_falls_back_to_its_middle() -> None:
    box = random_resized_box((10, 1000), (0.9, 1.0), (3 / 4, 4 / 3), random.Random(0))
    assert box == (0, 493, 10, 13)
    assert random_resized_box((1000, 10), (0.9, 1.0), (3 / 4, 4 / 3), random.Random(0)) == (493, 0, 13, 10)


def test_a_sample_draws_from_its_three_numbers_alone() -> None:
    first = sample_rng(1, 2, 3).random()
    assert first == sample_rng(1, 2, 3).random()
    assert first == 0.7910137503955594  # on every machine and version
    others = [sample_rng(*key).random() for key in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (12, 3, 0), (1, 23, 0))]
    assert len({first, *others}) == 6


@pytest.mark.parametrize("rng", [random.Random(0), np.random.default_rng(0)])
def test_below_reaches_every_number(rng: random.Random | np.random.Generator) -> None:
    assert {below(rng, 5) for _ in range(200)} == {0, 1, 2, 3, 4}
    assert below(rng, 1) == 0


def test_a_box_scales_to_whole_pixels_and_cuts_a_view() -> None:
    assert Box(3, 5, 10, 21).scaled(0.5, 0.25) == (2, 1, 5, 6)  # rows 1.5 .. 6.5, columns 1.25 .. 6.5
    assert Box(0, 0, 1, 1).scaled(0.125, 0.125) == (0, 0, 1, 1)
    pixels = torch.arange(12).view(1, 3, 4)
    assert Box(1, 2, 2, 1).cut(pixels).tolist() == [[[6], [10]]]
