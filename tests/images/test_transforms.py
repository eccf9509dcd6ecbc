import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from eyesmith.errors import ConfigError, ImageError
from eyesmith.images import transforms
from eyesmith.images.crop import sample_rng
from eyesmith.images.pixels import normalize
from eyesmith.images.transforms import PreprocessConfig, TrainTransformConfig, evaluation_pixels, training_pixels


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(10 * torch.log10(255**2 / (a.float() - b.float()).square().mean().clamp(min=1e-6)))


def _hashed(j: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in -1..1 made by integer arithmetic alone."""
    h = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(j * 0x9E3779B9 % 2**32)
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return (h.astype(np.float64) / 2**32 * 2 - 1).reshape(shape)


def _fixture_picture() -> Image.Image:
    noise = (_hashed(9, (200, 301, 3)) + 1) * 127.5
    y, x = np.mgrid[:200, :301]
    ramp = np.stack([y * 255 / 199, x * 255 / 300, (x + y) * 255 / 499], axis=-1)
    return Image.fromarray((0.3 * noise + 0.7 * ramp).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "mean", "std", "corner", "inside"),
    [
        (
            224,
            [0.06121421232819557, 0.15205149352550507, 0.32060667872428894],
            [0.8007619380950928, 0.5808335542678833, 0.4899543225765228],
            [-0.7411757707595825, -0.17628143727779388, -0.3568345308303833],
            [0.30991095304489136, 0.09385836124420166, 0.3968290388584137],
        ),
        (
            256,
            [0.06127274036407471, 0.15247106552124023, 0.32090404629707336],
            [0.8008390069007874, 0.5810659527778625, 0.49000293016433716],
            [-0.7119789123535156, -0.16127367317676544, -0.34261447191238403],
            [0.13472984731197357, -0.4764367938041687, -0.02977302484214306],
        ),
    ],
)
def test_exact_pixels_equal_the_recorded_ones_of_open_clip(
    size: int, mean: list[float], std: list[float], corner: list[float], inside: list[float]
) -> None:
    config = PreprocessConfig(image_size=(size, size))
    pixels = normalize(evaluation_pixels(_fixture_picture(), config), config.mean, config.std)
    assert pixels.shape == (3, size, size)
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor(mean), atol=2e-6, rtol=0)
    torch.testing.assert_close(pixels.std((1, 2)), torch.tensor(std), atol=2e-6, rtol=0)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor(corner), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels[:, 100, 57], torch.tensor(inside), atol=1e-6, rtol=0)


def test_pixels_are_contiguous_bytes_of_the_asked_size(natural, encoded, tmp_path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(natural(150, 100), "JPEG"))
    for mode in ("exact", "fast"):
        for size in ((48, 48), (30, 70), (200, 200)):
            for resize in ("shortest", "squash"):
                config = PreprocessConfig(image_size=size, resize=resize)
                views = [
                    evaluation_pixels(source, config, mode=mode) for source in (path, str(path), path.read_bytes())
                ]
                assert views[0].shape == (3, *size)
                assert views[0].dtype == torch.uint8
                assert views[0].is_contiguous()
                assert torch.equal(views[0], views[1])
                assert torch.equal(views[0], views[2])


def test_a_picture_of_the_right_size_is_untouched(natural) -> None:
    picture = natural(48, 48)
    for mode in ("exact", "fast"):
        pixels = evaluation_pixels(picture, PreprocessConfig(image_size=(48, 48)), mode=mode)
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), np.asarray(picture))


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_one_pixel_fills_the_view(encoded, mode) -> None:
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.new("RGB", (1, 1), "white"), kind)
        assert (evaluation_pixels(data, PreprocessConfig(image_size=(32, 48)), mode=mode) == 255).all()
        assert (
            training_pixels(data, TrainTransformConfig(image_size=(32, 48)), random.Random(0), mode=mode) == 255
        ).all()


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (2, 3000)])
def test_a_strip_costs_no_more_memory_than_its_crop(mode, size: tuple[int, int], monkeypatch) -> None:
    made: list[int] = []
    resize = Image.Image.resize

    def watched(self, size, *args, **options):
        made.append(size[0] * size[1])
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    strip = Image.effect_noise((size[1], size[0]), 90).convert("RGB")
    assert evaluation_pixels(strip, PreprocessConfig(image_size=(224, 224)), mode=mode).shape == (3, 224, 224)
    assert max(made) <= 1 << 24


def test_the_middle_alone_is_within_two_levels_of_the_whole(natural, monkeypatch) -> None:
    for size in ((40, 300), (333, 25), (64, 64), (17, 90)):
        for mode in ("RGB", "L", "RGBA", "P"):
            picture, config = natural(*size).convert(mode), PreprocessConfig(image_size=(48, 48))
            monkeypatch.setattr(transforms, "_WHOLE_RESIZE_PIXELS", 1 << 24)
            whole = evaluation_pixels(picture, config).int()
            monkeypatch.setattr(transforms, "_WHOLE_RESIZE_PIXELS", 0)
            middle = evaluation_pixels(picture, config).int()
            if mode == "P":  # the nearest pixel may be another one where two are equally near
                assert ((whole - middle).abs().amax(0) > 0).float().mean() < 0.02
            else:
                assert (whole - middle).abs().max() <= 2


@pytest.mark.parametrize(("height", "width"), [(375, 500), (480, 640), (768, 1024), (900, 600)])
@pytest.mark.parametrize("size", [48, 224])
def test_fast_pixels_are_near_the_exact_ones(natural, encoded, height: int, width: int, size: int) -> None:
    data = encoded(natural(height, width), "JPEG", quality=90)
    config = PreprocessConfig(image_size=(size, size))
    exact, fast = (evaluation_pixels(data, config, mode=mode) for mode in ("exact", "fast"))
    assert _psnr(exact, fast) > 34  # docs/images.md


def test_fast_pixels_of_a_photograph_are_near_the_exact_ones() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    data = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg").read_bytes()
    for size in (48, 96, 112, 224, 336):
        config = PreprocessConfig(image_size=(size, size))
        exact, fast = (evaluation_pixels(data, config, mode=mode) for mode in ("exact", "fast"))
        assert _psnr(exact, fast) > 34


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_without_a_scaled_decode_fast_is_within_one_level(natural, encoded, kind: str) -> None:
    data = encoded(natural(90, 120), kind)
    for resize in ("shortest", "squash"):
        for interpolation in ("bicubic", "bilinear"):
            config = PreprocessConfig(image_size=(64, 64), interpolation=interpolation, resize=resize)
            exact, fast = (evaluation_pixels(data, config, mode=mode).int() for mode in ("exact", "fast"))
            assert (exact - fast).abs().max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_fast_equals_exact_in_modes_that_only_pillow_resizes(natural, mode: str) -> None:
    picture, config = natural(70, 90).convert(mode), PreprocessConfig(image_size=(48, 48))
    assert torch.equal(evaluation_pixels(picture, config), evaluation_pixels(picture, config, mode="fast"))
    train = TrainTransformConfig(image_size=(48, 48), scale=(0.3, 1.0))
    views = [training_pixels(picture, train, random.Random(0), mode=m) for m in ("exact", "fast")]
    assert torch.equal(*views)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_training_view_is_a_function_of_seed_epoch_and_sample(natural, encoded, mode) -> None:
    data = encoded(natural(120, 160), "JPEG")
    config = TrainTransformConfig(
        image_size=(48, 48),
        scale=(0.3, 1.0),
        color_jitter=(0.4, 0.4, 0.4, 0.1),
        color_jitter_prob=0.8,
        grayscale_prob=0.2,
        horizontal_flip_prob=0.5,
    )
    torch.manual_seed(0)
    random.seed(0)
    first = training_pixels(data, config, sample_rng(0, 1, 2), mode=mode)
    torch.rand(3)
    random.random()
    assert torch.equal(first, training_pixels(data, config, sample_rng(0, 1, 2), mode=mode))
    assert not torch.equal(first, training_pixels(data, config, sample_rng(0, 2, 2), mode=mode))
    assert training_pixels(data, config, np.random.default_rng(0), mode=mode).shape == (3, 48, 48)


def test_fast_training_views_show_what_the_exact_ones_show(natural, encoded) -> None:
    data = encoded(natural(480, 640), "JPEG", quality=90)
    config = TrainTransformConfig(
        image_size=(96, 96),
        scale=(0.4, 1.0),
        color_jitter=(0.3, 0.3, 0.3, 0.1),
        color_jitter_prob=0.5,
        grayscale_prob=0.3,
    )
    for sample in range(12):
        exact, fast = (training_pixels(data, config, sample_rng(0, 0, sample), mode=mode) for mode in ("exact", "fast"))
        assert _psnr(exact, fast) > 24  # the edges of the box are rounded to the scaled picture's pixels


def test_prob_one_always_grays_and_flips(natural) -> None:
    picture = natural(48, 48)
    config = TrainTransformConfig(image_size=(48, 48), scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip_prob=1.0)
    pixels = training_pixels(picture, config, random.Random(0))
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), np.asarray(picture)[:, ::-1])
    assert torch.equal(pixels, training_pixels(picture, config, random.Random(0), mode="fast"))
    gray = training_pixels(picture, TrainTransformConfig(image_size=(48, 48), grayscale_prob=1.0), random.Random(0))
    assert torch.equal(gray[0], gray[1])
    assert torch.equal(gray[0], gray[2])


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_bad_input_is_an_image_error(natural, encoded, mode, tmp_path) -> None:
    whole = encoded(natural(200, 200), "JPEG")
    sources = [b"", b"no image", whole[:20], whole[: len(whole) // 2], tmp_path, tmp_path / "none.png", "a\0b.png"]
    for source in sources:
        with pytest.raises(ImageError):
            evaluation_pixels(source, PreprocessConfig(image_size=(48, 48)), mode=mode)
        with pytest.raises(ImageError):
            training_pixels(source, TrainTransformConfig(image_size=(48, 48)), random.Random(0), mode=mode)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image_size": (0, 48)}, "image_size"),
        ({"image_size": (48,)}, "image_size"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"resize": "longest"}, "resize"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
    ],
)
def test_a_preprocess_config_without_sense_is_refused(changes: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        PreprocessConfig(**{"image_size": (48, 48), **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.1)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"grayscale_prob": 1.5}, "grayscale_prob"),
        ({"color_jitter_prob": 0.5}, "color_jitter"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, "color_jitter"),
    ],
)
def test_a_train_config_without_sense_is_refused(changes: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        TrainTransformConfig(**{"image_size": (48, 48), **changes})


def test_an_unknown_mode_is_refused(natural) -> None:
    with pytest.raises(ConfigError, match="mode"):
        evaluation_pixels(natural(8, 8), PreprocessConfig(image_size=(8, 8)), mode="faster")


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied_when_asked_for(natural, encoded, orientation: int, kind: str, mode) -> None:
    """Against Pillow's own turn of the same picture, given upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encoded(natural(72, 100), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    plain = PreprocessConfig(image_size=(48, 48), resize="squash")
    asked = replace(plain, exif="apply")
    wanted = evaluation_pixels(upright, plain)
    for source in (turned, Image.open(io.BytesIO(turned))):
        found = evaluation_pixels(source, asked, mode=mode)
        assert int((found.int() - wanted.int()).abs().max()) <= (0 if mode == "exact" else 2)
    if orientation > 1:
        assert not evaluation_pixels(turned, plain).equal(wanted)  # the default, as open_clip
    train = TrainTransformConfig(image_size=(48, 48), scale=(0.5, 1.0), exif="apply")
    views = [training_pixels(picture, train, sample_rng(0, 0, 3), mode=mode) for picture in (turned, upright)]
    assert int((views[0].int() - views[1].int()).abs().max()) <= (0 if mode == "exact" else 2)


def test_another_rule_for_exif_is_refused() -> None:
    with pytest.raises(ConfigError, match="exif: expected one of ignore, apply"):
        PreprocessConfig(image_size=(48, 48), exif="auto")  # pyright: ignore[reportArgumentType]
