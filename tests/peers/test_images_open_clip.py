"""Our pixels against open_clip's own transforms, on the same pictures and the same draws."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eyesmith.images.color import JitterDraw, apply_jitter, shift_hue, to_gray
from eyesmith.images.crop import Box, random_resized_box
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD, normalize
from eyesmith.images.transforms import PreprocessConfig, TrainTransformConfig, evaluation_pixels, training_pixels
from eyesmith.models.foreign.torchvision import ensure_torchvision

ensure_torchvision()
pytest.importorskip("open_clip")

from open_clip import image_transform  # noqa: E402
from torchvision import transforms as tv  # noqa: E402
from torchvision.transforms import functional as tvf  # noqa: E402

_SIZES = [(1, 1), (1, 7), (9, 1), (2, 3), (31, 32), (47, 48), (48, 49), (50, 333), (333, 20), (100, 151), (201, 96)]
_MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]


def _picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(height * 1000 + width)
    rgba = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    if mode in ("RGBA", "LA", "PA", "RGBa"):
        return rgba.convert(mode)
    return rgba.convert("RGB").convert(mode)


def _theirs(picture: Image.Image, size: int | tuple[int, int], **options: str) -> Tensor:
    return image_transform(size, is_train=False, **options)(picture)


def _ours(picture: Image.Image, size: tuple[int, int], **options: str) -> Tensor:
    return normalize(evaluation_pixels(picture, PreprocessConfig(image_size=size, **options)), OPENAI_MEAN, OPENAI_STD)


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("size", [(2, 3), (31, 32), (50, 133), (90, 21)])
def test_evaluation_equals_in_every_mode(size: tuple[int, int], mode: str) -> None:
    picture = _picture(*size, mode)
    for side in (32, 48):
        assert torch.equal(_ours(picture, (side, side)), _theirs(picture, side))


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_equals_at_every_size(resize: str, interpolation: str) -> None:
    for size in _SIZES:
        picture = _picture(*size)
        for target in ((48, 48), (47, 47), (1, 1), (32, 48), (60, 31)):
            ours = _ours(picture, target, resize=resize, interpolation=interpolation)
            assert torch.equal(ours, _theirs(picture, target, resize_mode=resize, interpolation=interpolation)), size


def test_evaluation_equals_at_random_sizes() -> None:
    rng = random.Random(0)
    for _ in range(60):
        picture = _picture(rng.randint(1, 150), rng.randint(1, 150), rng.choice(["RGB", "RGBA", "L", "P"]))
        target = (rng.randint(1, 70), rng.randint(1, 70))
        target = (target[0], target[0]) if rng.random() < 0.5 else target
        assert torch.equal(_ours(picture, target), _theirs(picture, target)), (picture.size, target)


def test_evaluation_equals_from_files(natural_jpeg: bytes, tmp_path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(natural_jpeg)
    config = PreprocessConfig(image_size=(96, 96))
    ours = normalize(evaluation_pixels(path, config), config.mean, config.std)
    assert torch.equal(ours, _theirs(Image.open(path), 96))


def test_sixteen_bits_depart_and_only_there() -> None:
    levels = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    theirs = _theirs(Image.fromarray(levels), 48)
    ours = _ours(Image.fromarray(levels), (48, 48))
    assert (theirs[0] == theirs.max(dim=1).values.max(dim=1).values[0]).float().mean() > 0.99  # clipped to white
    assert torch.equal(ours, _theirs(Image.fromarray((levels / 257).round().astype(np.uint8)), 48))


class _Replayed:
    """A generator that returns given numbers in 0..1, in order."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers: Iterator[float] = iter(numbers)

    def random(self) -> float:
        return next(self._numbers)


def test_equal_draws_give_equal_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    num_equal = 0
    for _ in range(300):
        size = (rng.randint(1, 400), rng.randint(1, 400))
        numbers = [float(np.float32(rng.random())) for _ in range(40)]  # as torch draws them
        ours = random_resized_box(size, (0.3, 1.0), (3 / 4, 4 / 3), _Replayed(numbers))
        with monkeypatch.context() as patched:
            theirs = _their_box(size, _Replayed(numbers), patched)
        num_equal += ours == theirs
    assert num_equal >= 298  # a side within float32 of half a pixel may be rounded the other way


def _their_box(size: tuple[int, int], draws: _Replayed, patched: pytest.MonkeyPatch) -> Box:
    def uniform_(filled: Tensor, low: float, high: float) -> Tensor:
        return filled.fill_(float(low) + float(high - low) * draws.random())

    patched.setattr(torch.Tensor, "uniform_", uniform_)
    patched.setattr(torch, "randint", lambda low, high, size: torch.tensor([int(draws.random() * high)]))
    return Box(*tv.RandomResizedCrop.get_params(Image.new("L", (size[1], size[0])), [0.3, 1.0], [3 / 4, 4 / 3]))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK", "LA"])
def test_a_training_view_equals_on_the_same_box(mode: str) -> None:
    picture = _picture(90, 140, mode)
    config = TrainTransformConfig(image_size=(48, 40), scale=(0.2, 1.0))
    for seed in range(8):
        top, left, height, width = random_resized_box((90, 140), config.scale, config.ratio, random.Random(seed))
        theirs = tvf.resized_crop(picture, top, left, height, width, [48, 40], tv.InterpolationMode.BICUBIC)
        ours = training_pixels(picture, config, random.Random(seed))
        assert torch.equal(ours, tvf.pil_to_tensor(theirs.convert("RGB")))


def test_the_whole_picture_in_training_equals_open_clips_transform() -> None:
    picture = _picture(100, 100)
    theirs = image_transform(48, is_train=True, aug_cfg={"scale": (1.0, 1.0)})
    theirs.transforms[0].ratio = (1.0, 1.0)
    config = TrainTransformConfig(image_size=(48, 48), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    ours = normalize(training_pixels(picture, config, random.Random(0)), OPENAI_MEAN, OPENAI_STD)
    assert torch.equal(ours, theirs(picture))


def test_color_changes_equal_on_the_same_factors() -> None:
    rng = random.Random(0)
    steps = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
    for _ in range(40):
        picture = _picture(20, 31)
        order = rng.sample(range(4), 4)
        factors = [rng.uniform(0, 2), rng.uniform(0, 2), rng.uniform(0, 2), rng.uniform(-0.5, 0.5)]
        theirs = picture
        for step in order:
            theirs = steps[step](theirs, factors[step])
        ours = apply_jitter(picture, JitterDraw(tuple(order), *factors))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_hue_and_gray_equal() -> None:
    picture = _picture(16, 256)
    for turns in (-0.5, -0.499, -0.1, -0.001, 0.0, 0.003, 0.25, 0.5):
        np.testing.assert_array_equal(np.asarray(shift_hue(picture, turns)), np.asarray(tvf.adjust_hue(picture, turns)))
    np.testing.assert_array_equal(np.asarray(to_gray(picture)), np.asarray(tvf.to_grayscale(picture, 3)))


@pytest.fixture
def natural_jpeg(tmp_path) -> bytes:
    y, x = np.mgrid[:150, :200]
    waves = np.stack([np.sin(x / 9 + y / 17), np.cos(x / 23 - y / 5), np.sin(x * y / 2000)], axis=-1)
    Image.fromarray((127.5 + 127 * waves).astype(np.uint8)).save(tmp_path / "waves.jpg", quality=90)
    return (tmp_path / "waves.jpg").read_bytes()
