"""Other packages' transforms, read and done by ours: equal pixels on pictures."""

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.errors import CheckpointError
from eyesmith.images import PreprocessConfig, evaluation_pixels
from eyesmith.images.pixels import normalize
from eyesmith.models.foreign.packages import import_open_clip, import_timm, import_transformers
from eyesmith.models.foreign.transforms import of_open_clip, of_timm, of_transformers

SIZES = ((64, 64), (67, 90), (131, 64), (33, 41), (71, 48))  # width, height: odd rests, small and large
PROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
COLOURS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


def _pictures(*modes: str) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    made = []
    for number, (width, height) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        made.append(picture.convert(modes[number % len(modes)] if modes else "RGB"))
    return made


def _ours(picture: Image.Image, config: PreprocessConfig) -> torch.Tensor:
    return normalize(evaluation_pixels(picture, config)[None], config.mean, config.std)[0]


@pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")
@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_pixels_are_open_clips(resize: str, interpolation: str) -> None:
    import_open_clip("a test")
    from open_clip.transform import PreprocessCfg, image_transform_v2

    fields: dict[str, Any] = COLOURS | {"size": 48, "resize_mode": resize, "interpolation": interpolation}
    theirs = image_transform_v2(PreprocessCfg(**fields), is_train=False)
    config = of_open_clip(fields, "a test")
    for picture in _pictures("RGB", "L", "RGBA", "P", "RGB"):
        torch.testing.assert_close(_ours(picture, config), theirs(picture), rtol=0, atol=2e-6)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.parametrize("crop", ["center", "squash"])
@pytest.mark.parametrize("share", [0.875, 0.95, 1.0])
def test_pixels_are_timms(crop: str, share: float) -> None:
    timm = import_timm("a test")
    fields = {"input_size": (3, 48, 48), "crop_mode": crop, "crop_pct": share, "interpolation": "bicubic", **COLOURS}
    theirs = timm.data.create_transform(**fields)
    config = of_timm(fields, "a test")
    for picture in _pictures():
        torch.testing.assert_close(_ours(picture, config), theirs(picture), rtol=0, atol=2e-6)


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}),
        ("BitImageProcessorPil", {"size": {"shortest_edge": 57}, "crop_size": {"height": 48, "width": 48}}),
        ("SiglipImageProcessorPil", {"size": {"height": 48, "width": 48}}),
        ("ViTImageProcessorPil", {"size": {"height": 48, "width": 48}}),
    ],
)
def test_pixels_are_transformers(name: str, fields: dict[str, Any]) -> None:
    transformers = import_transformers("a test")
    processor = getattr(transformers, name)(**fields)
    config = of_transformers(processor.to_dict(), (48, 48), "a test")
    for picture in _pictures("RGB", "L", "RGBA", "P", "RGB"):
        rgb = picture.convert("RGB") if name.startswith("ViT") else picture  # it leaves this to its user
        theirs = torch.as_tensor(np.array(processor(rgb, return_tensors="np")["pixel_values"][0]))
        torch.testing.assert_close(_ours(picture, config), theirs, rtol=0, atol=2e-6)


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
def test_pixels_of_the_librarys_fast_processor_are_within_a_level() -> None:
    transformers = import_transformers("a test")
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    config = of_transformers(processor.to_dict(), (48, 48), "a test")
    for picture in _pictures():
        theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
        assert float((_ours(picture, config) - theirs).abs().max()) < 1.01 / 255 / min(config.std)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            lambda: of_open_clip({"size": 32, "resize_mode": "longest"}, "x"),
            "x: open_clip resizes pictures by 'longest'",
        ),
        (lambda: of_timm({"input_size": (3, 32, 32), "crop_mode": "border"}, "x"), "x: timm cuts pictures by 'border'"),
        (lambda: of_timm({"interpolation": "lanczos"}, "x"), "x: resizes pictures by 'lanczos'"),
        (lambda: of_transformers({"do_pad": True}, (32, 32), "x"), "none padded"),
        (lambda: of_transformers({"rescale_factor": 1.0}, (32, 32), "x"), "scaled by 1.0"),
        (lambda: of_transformers({}, (32, 32), "x"), "names no image_mean"),
        (
            lambda: of_transformers(
                {"image_mean": [0.5], "image_std": [0.5], "size": {"shortest_edge": 3}}, (3, 3), "x"
            ),
            "keep their shape",
        ),
    ],
)
def test_steps_that_are_not_known_are_refused(read: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read()


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: of_timm({"input_size": -1}, "x"), "x: size: expected pixels, got -1"),
        (lambda: of_timm({"input_size": ["a", "b", "c"]}, "x"), "x: size: expected a number, got 'b'"),
        (lambda: of_timm({"input_size": [3, math.inf, 32]}, "x"), "x: size: expected a number, got inf"),
        (lambda: of_timm({"crop_pct": {"a": 1}}, "x"), "x: crop_pct: expected a number"),
        (lambda: of_timm({"crop_pct": 10**400}, "x"), "x: crop_pct: expected a number"),
        (lambda: of_timm({"mean": 0.5}, "x"), "x: mean: expected three numbers, got 0.5"),
        (lambda: of_open_clip({"size": 32, "std": ["a", "b", "c"]}, "x"), "x: std: expected a number, got 'a'"),
        (lambda: of_transformers(PROCESSOR | {"resample": [3]}, (32, 32), "x"), r"x: resizes pictures by \[3\]"),
        (lambda: of_transformers(PROCESSOR | {"rescale_factor": []}, (32, 32), "x"), "x: rescale_factor: expected a"),
        (lambda: of_transformers(PROCESSOR | {"size": False}, (32, 32), "x"), "x: size: expected pixels, got False"),
        (lambda: of_transformers(PROCESSOR | {"size": {"shortest_edge": None}}, (32, 32), "x"), "x: size: expected a"),
        (lambda: of_transformers(PROCESSOR | {"size": {"height": 32, "width": "w"}}, (32, 32), "x"), "got 'w'"),
    ],
)
def test_what_is_no_number_is_named(read: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read()
