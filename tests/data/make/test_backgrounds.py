import random

import numpy as np
import pytest

from eyesmith.data.make.backgrounds import BACKGROUNDS, background


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("size_px", [64, 97])
def test_a_background_is_a_function_of_its_seed(kind, size_px):
    images = [background(kind, size_px=size_px, rng=random.Random(seed)) for seed in (0, 0, 1)]
    assert {(image.mode, image.size) for image in images} == {("RGB", (size_px, size_px))}
    pixels = [np.asarray(image) for image in images]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])


def test_only_flat_ones_are_flat():
    for kind in BACKGROUNDS:
        pixels = [np.asarray(background(kind, size_px=64, rng=random.Random(seed))) for seed in range(5)]
        assert all((one.std(axis=(0, 1)).max() == 0) == (kind == "flat") for one in pixels)
