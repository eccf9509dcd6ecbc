"""Two towers: unit features, batches, class weights, locked text, and what is refused."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.errors import ConfigError, ImageError, ShapeError
from eyesmith.images import PreprocessConfig, evaluation_pixels, normalize
from eyesmith.models import Clip, ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig

CONFIG = ClipConfig(
    name="tiny",
    image=ViTaminConfig(
        image_size=(32, 32), widths=(8, 16, 24), depths=(1, 1, 2), num_heads=2, embed_dim=20, drop_path_prob=0.5
    ),
    text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=20),
    preprocess=PreprocessConfig(image_size=(32, 32)),
    prompts=("a {}.", "the {}, drawn"),
)


@pytest.fixture(scope="module")
def clip() -> Clip:
    torch.manual_seed(0)
    return CONFIG.build()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (height, 50, 3), dtype=np.uint8)) for height in (40, 64, 33)]


def test_forward_gives_unit_rows_and_the_scale(clip: Clip) -> None:
    pixels = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    image, text, scale = clip(pixels, clip.text.tokenize(["cat", "dog"]))
    assert image.shape == (3, 20)
    assert text.shape == (2, 20)
    assert image.dtype == text.dtype == torch.float32
    torch.testing.assert_close(image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    assert scale.shape == ()
    assert float(scale.detach()) == pytest.approx(1 / 0.07, rel=1e-6)
    assert float(clip.logit_scale.detach()) == pytest.approx(math.log(1 / 0.07), rel=1e-6)


def test_features_are_fp32_under_autocast(clip: Clip) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, text, _ = clip(torch.randn(2, 3, 32, 32), clip.text.tokenize(["cat"]))
    assert image.dtype == text.dtype == torch.float32
    torch.testing.assert_close(image.norm(dim=1), torch.ones(2))


def test_bytes_and_normalised_floats_give_the_same_features(clip: Clip) -> None:
    pixels = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    floats = normalize(pixels, clip.preprocess.mean, clip.preprocess.std)
    torch.testing.assert_close(clip.encode_image(pixels), clip.encode_image(floats))


def test_pictures_paths_bytes_and_pixels_are_one_to_encode_image(
    clip: Clip, pictures: list[Image.Image], tmp_path: Path
) -> None:
    expected = clip.encode_image(torch.stack([evaluation_pixels(picture, clip.preprocess) for picture in pictures]))
    torch.testing.assert_close(clip.encode_image(pictures), expected)
    path = tmp_path / "one.png"
    pictures[0].save(path)
    buffer = io.BytesIO()
    pictures[1].save(buffer, "png")
    mixed = clip.encode_image([path, buffer.getvalue(), pictures[2]])
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(clip.encode_image(str(path)), expected[:1])


def test_batching_changes_nothing_and_empty_lists_are_fine(clip: Clip, pictures: list[Image.Image]) -> None:
    torch.testing.assert_close(clip.encode_image(pictures, batch_size=2), clip.encode_image(pictures))
    texts = ["a", "some longer text about cats", "b"]
    torch.testing.assert_close(clip.encode_text(texts, batch_size=1), clip.encode_text(texts))
    assert clip.encode_image([]).shape == clip.encode_text([]).shape == (0, 20)
    with pytest.raises(ConfigError, match="batch_size"):
        clip.encode_text(texts, batch_size=0)


def test_encoding_is_deterministic_in_training_mode_and_restores_every_mode(pictures: list[Image.Image]) -> None:
    clip = CONFIG.build().train()
    clip.image.stem.eval()  # a part that its user froze
    torch.testing.assert_close(clip.encode_image(pictures), clip.encode_image(pictures), rtol=0, atol=0)
    assert clip.training
    assert clip.image.training
    assert not clip.image.stem.training


def test_encoded_features_can_be_targets_of_training(clip: Clip, pictures: list[Image.Image]) -> None:
    target = clip.encode_text(["a", "b", "c"])
    assert not target.requires_grad
    (clip.image_features(torch.randn(3, 3, 32, 32)) * target).sum().backward()
    clip.zero_grad()


def test_class_weights_are_the_normalised_mean_of_normalised_sentences(clip: Clip) -> None:
    weights = clip.class_weights(["cat", "do{}g"])
    assert weights.shape == (2, 20)
    rows = [clip.encode_text([prompt.replace("{}", "cat")])[0] for prompt in CONFIG.prompts]
    mean = (rows[0] + rows[1]) / 2
    torch.testing.assert_close(weights[0], mean / mean.norm())
    torch.testing.assert_close(clip.class_weights(["cat"], ["a {}."])[0], rows[0])


def test_classify_is_the_softmax_of_scaled_products(clip: Clip, pictures: list[Image.Image]) -> None:
    names = ["cat", "dog", "house"]
    probabilities = clip.classify(pictures, names)
    assert probabilities.shape == (3, 3)
    logits = clip.encode_image(pictures) @ clip.class_weights(names).mT / 0.07
    torch.testing.assert_close(probabilities, logits.softmax(dim=1))
    assert not probabilities.requires_grad


def test_a_locked_text_tower_gets_no_gradient_and_stays_in_evaluation_mode() -> None:
    clip = replace(CONFIG, lock_text=True).build().train()
    assert not any(module.training for module in clip.text.modules())
    assert clip.image.training
    assert not any(parameter.requires_grad for parameter in clip.text.parameters())
    image, text, scale = clip(torch.randn(2, 3, 32, 32), clip.text.tokenize(["a", "b"]))
    assert not text.requires_grad
    (scale * image @ text.mT).logsumexp(dim=1).sum().backward()
    assert clip.logit_scale.grad is not None
    assert all(parameter.grad is not None for parameter in clip.image.parameters())


def test_an_unlocked_text_tower_is_trained() -> None:
    clip = CONFIG.build().train()
    clip.text_features(clip.text.tokenize(["a"])).sum().backward()
    assert all(parameter.grad is not None for parameter in clip.text.parameters())


@pytest.mark.parametrize(
    "pixels",
    [torch.zeros(1, 3, 32, 31), torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 32, 32).long()],
)
def test_tensors_of_another_shape_or_type_are_refused(clip: Clip, pixels: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="pixels: expected"):
        clip.encode_image(pixels)


def test_a_broken_picture_and_texts_that_are_no_strings_are_refused(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        clip.encode_image([b"no picture"])
    with pytest.raises(ConfigError, match="list of strings"):
        clip.encode_text(clip.text.tokenize(["a"]))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="names: expected a list"):
        clip.class_weights("cat")
    with pytest.raises(ConfigError, match="names: expected a list"):
        clip.class_weights([])
    with pytest.raises(ConfigError, match="prompts: expected a list"):
        clip.class_weights(["cat"], "a {}")
    with pytest.raises(ConfigError, match="has no {}"):
        clip.class_weights(["cat"], ["a"])


def test_another_image_size_reaches_encoder_preprocessing_and_config() -> None:
    clip = CONFIG.build().eval()
    picture = Image.effect_noise((90, 120), 60).convert("RGB")
    clip.set_image_size(64, 96)
    assert clip.image.image_size == clip.preprocess.image_size == clip.config.image.image_size == (64, 96)
    assert clip.encode_image(picture).shape == (1, clip.image.embed_dim)
    assert clip.config.build().state_dict()["image.position"].shape == clip.image.position.shape
    with pytest.raises(ShapeError, match="multiples of 16"):
        clip.set_image_size(50, 50)
    assert clip.preprocess.image_size == (64, 96)
