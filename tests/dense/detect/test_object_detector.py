"""A detector with its eye."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from eyesmith.dense.detect.detector import Detector, DetectorConfig
from eyesmith.dense.detect.object_detector import AGNOSTIC, ObjectDetector
from eyesmith.dense.detect.predict import PredictConfig
from eyesmith.dense.detect.roi import BoxHeadConfig
from eyesmith.dense.detect.rpn import RpnConfig
from eyesmith.dense.view import ViewConfig, fit
from eyesmith.models.clip import ClipConfig


def _finder(tiny_model: ClipConfig) -> ObjectDetector:
    torch.manual_seed(0)
    clip, view = tiny_model.build().eval(), ViewConfig(side_px=64)
    eye = view.around(clip.image)
    config = DetectorConfig(
        width=8,
        num_levels=3,
        has_extra=False,
        rpn=RpnConfig(width=8, num_convs=1, nms=0.9),
        box=BoxHeadConfig(width=8, num_convs=0, fc_dim=8, scale=5.0),
    )
    head = Detector(config, eye.taps, eye.half_tap, eye.embed_dim)
    finder = ObjectDetector(clip, head, view, PredictConfig(crops=5, floor=0.0, nms=0.9), trained=["cat", "dog"])
    finder.use(["cat", "dog", "emu"])
    return finder


def test_what_a_source_finds_does_not_depend_on_the_others(tiny_model: ClipConfig) -> None:
    finder = _finder(tiny_model)
    pixels, how = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), [fit((64, 64), 64)]
    (together,) = finder.search(pixels, how, ("detector", "dense", "crop"))
    for source in ("detector", "dense", "crop"):
        (alone,) = finder.search(pixels, how, (source,))
        for name in (source, AGNOSTIC):
            assert torch.equal(alone[name].boxes_px, together[name].boxes_px), (source, name)
            assert torch.equal(alone[name].scores, together[name].scores), (source, name)


def test_a_file_is_turned_where_the_eye_has_pictures_turned(tiny_model: ClipConfig, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise).save(tmp_path / "a.png", exif=orientation)
    finder = _finder(tiny_model)
    upright, stored = Image.fromarray(np.rot90(noise, -1).copy()), Image.fromarray(noise)
    for exif, shown in (("ignore", stored), ("apply", upright)):
        finder.clip.preprocess = replace(finder.clip.preprocess, exif=exif)
        found, wanted = finder(tmp_path / "a.png"), finder(shown)
        assert found.size == (shown.height, shown.width)
        assert torch.equal(found.boxes_px, wanted.boxes_px)
