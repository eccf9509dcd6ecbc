"""Pictures in the forms in which Python programs have them: arrays, open files, bytes, paths, all with equal pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.errors import ImageError, InputError
from eyesmith.images import PreprocessConfig, collect_images, evaluation_pixels, open_image
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig


@pytest.fixture(scope="module")
def clip() -> Clip:
    with torch.random.fork_rng(devices=[]):
        return ClipConfig(
            name="tiny",
            image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16),
            text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16).of_bytes(),
            preprocess=PreprocessConfig(image_size=(32, 32)),
        ).build()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_every_form_gives_the_same_features(clip: Clip, file: Path) -> None:
    expected = clip.encode_image(file)
    levels = np.asarray(Image.open(file))
    with file.open("rb") as stream:
        forms = [levels, io.BytesIO(file.read_bytes()), stream, file.read_bytes(), str(file), Image.open(file)]
        alone = [clip.encode_image(form) for form in (levels, io.BytesIO(file.read_bytes()))]
        together = clip.encode_image(forms)
    for rows in alone:
        torch.testing.assert_close(rows, expected, rtol=0, atol=0)
    torch.testing.assert_close(together, expected.expand(len(forms), -1))
    torch.testing.assert_close(clip.encode_image(np.stack([levels, levels])), expected.expand(2, -1))
    assert clip.classify(io.BytesIO(file.read_bytes()), ["cat", "dog"]).shape == (1, 2)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_transforms_and_decoding_take_them_too(file: Path, mode: str) -> None:
    config = PreprocessConfig(image_size=(16, 16))
    levels = np.asarray(Image.open(file))
    expected = evaluation_pixels(file, config, mode=mode)
    assert torch.equal(evaluation_pixels(io.BytesIO(file.read_bytes()), config, mode=mode), expected)
    assert evaluation_pixels(levels, config, mode=mode).shape == expected.shape
    assert np.array_equal(np.asarray(open_image(levels)), levels)
    assert open_image(levels[..., 0]).mode == "L"


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((3, 40, 40), np.uint8), np.zeros((40, 40, 3), np.float32), np.zeros((4,), np.uint8), io.StringIO("x"), 7],
    ids=["channels first", "floats", "one axis", "text", "a number"],
)
def test_what_is_no_picture_is_said_in_a_sentence(wrong: object) -> None:
    with pytest.raises(ImageError, match="image: expected .* got "):
        open_image(wrong)


def test_an_address_is_refused_in_a_sentence(clip: Clip) -> None:
    with pytest.raises(ImageError, match="is an address, and nothing is fetched"):
        clip.encode_image("https://example.org/cat.jpg")
    with pytest.raises(InputError, match="is an address, and nothing is fetched"):
        collect_images(["https://example.org/cat.jpg"])
