import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from eyesmith.errors import ConfigError
from eyesmith.images.randaugment import OPS, RandAugmentConfig, change, rand_augment


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    blocks = rng.integers(20, 230, (6, 5, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return Image.fromarray(blocks.astype(np.uint8))


def test_equal_draws_give_equal_pixels_and_the_size_stays(picture: Image.Image) -> None:
    config = RandAugmentConfig()
    one, other = (rand_augment(picture, config, random.Random(3)) for _ in range(2))
    assert one.tobytes() == other.tobytes()
    assert (one.size, one.mode) == (picture.size, "RGB")


def test_no_op_and_no_chance_leave_the_picture_alone(picture: Image.Image) -> None:
    for config in (RandAugmentConfig(num_ops=0), RandAugmentConfig(prob=0.0)):
        assert rand_augment(picture, config, random.Random(1)).tobytes() == picture.tobytes()


@pytest.mark.parametrize("name", OPS)
def test_every_change_changes_something_at_full_strength(picture: Image.Image, name: str) -> None:
    assert change(picture, name, 9.0).tobytes() != picture.tobytes()
    assert change(picture, name, 99.0).tobytes() == change(picture, name, 10.0).tobytes()


def test_a_quarter_of_the_pictures_stays_as_it_is(picture: Image.Image) -> None:
    """Two changes, each made in half of the cases."""
    rng, config = random.Random(0), RandAugmentConfig()
    same = sum(rand_augment(picture, config, rng).tobytes() == picture.tobytes() for _ in range(400))
    assert 70 < same < 135


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"num_ops": -1}, {"magnitude": 11.0}, {"prob": 1.5}):
        with pytest.raises(ConfigError, match="rand_augment"):
            RandAugmentConfig(**wrong)


def test_neither_torchvision_nor_timm_is_imported() -> None:
    code = (
        "import sys, eyesmith.images.class_views; "
        "assert not {'torchvision', 'timm', 'open_clip'} & sys.modules.keys(), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
