"""A detector as one ONNX file: what onnxruntime finds is what the detector finds, suppression and all."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from eyesmith.dense.detect.detector import Detector, DetectorConfig
from eyesmith.dense.detect.export import export_detector
from eyesmith.dense.detect.object_detector import ObjectDetector
from eyesmith.dense.detect.predict import PredictConfig
from eyesmith.dense.detect.roi import BoxHeadConfig, MaskHeadConfig
from eyesmith.dense.detect.rpn import RpnConfig
from eyesmith.dense.view import ViewConfig, fit, view_pixels
from eyesmith.errors import ConfigError
from eyesmith.hub.export.onnx_file import OnnxRunner
from eyesmith.hub.export.target import ExportTarget
from eyesmith.models.clip import Clip, ClipConfig

SIDE = 64
HEAD = DetectorConfig(
    width=16,
    num_levels=4,
    rpn=RpnConfig(width=16, num_convs=1, before_nms=60, after_nms=40),
    box=BoxHeadConfig(width=16, num_convs=1, fc_dim=16, finest_px=8.0),
)
NAMES = [("cat", "kitten"), ("dog",), ("ship",), ("house", "hut", "home")]


@pytest.fixture(autouse=True, scope="module")
def _no_trace_records() -> Iterator[None]:
    logger = logging.getLogger("torch.__trace")  # torch's tracer writes tens of thousands of records
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def make(model: ClipConfig, head: DetectorConfig = HEAD, predict: PredictConfig | None = None) -> ObjectDetector:
    """A detector of random weights that finds much: everything overlaps something."""
    torch.manual_seed(3)
    clip = model.build()
    assert isinstance(clip, Clip)
    detector = Detector(head, clip.image.taps, clip.image.half_tap, clip.image.embed_dim).eval()
    with torch.no_grad():
        for value in detector.rpn.parameters():
            value.normal_(std=0.1)  # so that scores and boxes differ from place to place
        for value in detector.box.placing.parameters():
            value.normal_(std=0.1)
    predict = predict or PredictConfig(floor=0.02)
    finder = ObjectDetector(clip.eval(), detector, ViewConfig(side_px=SIDE), predict, trained=["cat", "ship"])
    finder.use(NAMES)
    return finder


def pictures() -> list[Image.Image]:
    made = []
    for place, size in enumerate(((90, 60), (40, 100), (64, 64))):
        image = Image.new("RGB", size, (30 * place, 90, 160))
        draw = ImageDraw.Draw(image)
        draw.ellipse((5, 8, 30 + 2 * place, 40), fill="red")
        draw.rectangle((20, 30, 60, 58), fill="yellow")
        made.append(image)
    return made


def compare(finder: ObjectDetector, run: OnnxRunner) -> int:
    """Ours beside the file's, a picture at a time and all together; the number of detections."""
    images = pictures()
    fits = [fit((one.height, one.width), SIDE) for one in images]
    mean = finder.clip.image.mean
    pixels = torch.stack([view_pixels(one, how, SIDE, mean) for one, how in zip(images, fits, strict=True)])
    sizes = torch.tensor([[float(how.height), float(how.width)] for how in fits])
    together = run.outputs(pixels, sizes)
    total = 0
    for row, (image, how) in enumerate(zip(images, fits, strict=True)):
        ours = finder(image)
        alone = [value[0] for value in run.outputs(pixels[row : row + 1], sizes[row : row + 1])]
        for boxes, scores, labels, count in (alone, [value[row] for value in together]):
            assert int(count) == len(ours.scores)
            total += int(count)
            torch.testing.assert_close(scores[:count], ours.scores, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(how.back(boxes[:count]), ours.boxes_px, atol=1e-3, rtol=1e-4)
            assert labels[:count].tolist() == ours.labels.tolist()
            assert not boxes[count:].any()
            assert not scores[count:].any()
            assert (labels[count:] == -1).all()
    return total


MASKED = replace(
    HEAD, background="learned", num_levels=3, has_masks=True, mask=MaskHeadConfig(width=8, num_convs=1, pool=4)
)


@pytest.mark.parametrize(
    ("head", "predict"),
    [
        (HEAD, PredictConfig(floor=0.02)),
        (MASKED, PredictConfig(background="class", nms=0.7, floor=0.0, per_image=30, objectness=0.5)),
    ],
)
def test_onnxruntime_finds_what_we_find(
    tiny_model: ClipConfig, tmp_path: Path, head: DetectorConfig, predict: PredictConfig
) -> None:
    pytest.importorskip("onnxruntime")
    finder, out = make(tiny_model, head, predict), tmp_path / "out"
    report = export_detector(finder, out, name="small", images=pictures())
    assert report.files == ("card.json", "detector.onnx")
    assert report.equal_frac == 1.0
    assert compare(finder, OnnxRunner(out / "detector.onnx")) > 20
    card = json.loads((out / "card.json").read_text())
    assert card["classes"] == ["cat", "dog", "ship", "house"]
    assert card["input"]["pixels"]["shape"] == ["batch", 3, SIDE, SIDE]
    assert card["output"]["boxes"]["shape"] == ["batch", predict.per_image, 4]
    assert ("masks" in card) == head.has_masks
    assert str(tmp_path) not in (out / "card.json").read_text()
    with pytest.raises(ConfigError, match="is there already"):
        export_detector(finder, out, images=pictures())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("crop", "cannot cut regions out"),
        ("sliding", "sliding windows cannot be exported"),
        ("format", "expected onnx"),
    ],
)
def test_what_no_file_can_do_is_refused(tiny_model: ClipConfig, tmp_path: Path, change: str, message: str) -> None:
    finder = make(tiny_model)
    target = ExportTarget(format="torch_export") if change == "format" else ExportTarget()
    if change == "crop":
        finder.predict = finder.predict.looking_at("crop")
    if change == "sliding":
        view = ViewConfig(side_px=SIDE, window_px=32)
        finder = ObjectDetector(finder.clip, finder.detector, view, finder.predict, trained=["cat"])
    with pytest.raises(ConfigError, match=message):
        export_detector(finder, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()
