"""A detector as a folder that needs nothing of ours: one ONNX file, and a card; compared with the detector first."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from eyesmith.dense.detect.detections import Detections
from eyesmith.dense.detect.graph import DetectorGraph
from eyesmith.dense.detect.object_detector import ObjectDetector
from eyesmith.dense.view import Fit, fit, view_pixels
from eyesmith.errors import ConfigError, EyesmithError
from eyesmith.files import sha256_file, write_json
from eyesmith.hub.export import onnx_file
from eyesmith.hub.export.bundle import FORMAT, check_place, whole_folder
from eyesmith.hub.export.card import CARD_FILE
from eyesmith.hub.export.graph import trace
from eyesmith.hub.export.target import ExportTarget
from eyesmith.hub.parity import sample_images
from eyesmith.images import ImageSource
from eyesmith.images.decode import open_image

FILE = "detector.onnx"
SCORE_BOUND, BOX_BOUND_PX = 1e-4, 0.05
MIN_EQUAL_FRAC = 0.99  # a box whose overlap lies at the threshold goes either way, and takes others with it


@dataclass(frozen=True, kw_only=True)
class DetectorExport:
    """What was written, and how it compares with the detector."""

    folder: Path
    files: tuple[str, ...]
    """Relative to the folder."""
    pictures: int
    """That both searched."""
    detections: int
    """Of the detector in them."""
    equal_frac: float
    """Share of the detections of both sides that the other has: label, score within 1e-4, corners within 0.05 pixels
    of the square; 1 where neither finds anything."""


def export_detector(
    finder: ObjectDetector,
    out: str | os.PathLike[str],
    target: ExportTarget | None = None,
    *,
    name: str = "",
    images: Sequence[ImageSource] = (),
    overwrite: bool = False,
) -> DetectorExport:
    """Write a detector with its eye and its present names to the folder `out`, after the file was compared with it.

    The folder holds detector.onnx (pixels and sizes in; boxes, scores, labels and counts out, see `DetectorGraph`; any
    number of pictures at once) and card.json (names, shapes, preparation, settings, the comparison). It appears whole
    or not at all. Masks are not among what the file finds. name: of the model, for the card. images: what to compare
    with, instead of nine pictures that every installation has. Raises ConfigError for a form other than fp32 ONNX of
    bytes, for regions that are cut out and for sliding windows; MissingDependencyError without the export packages;
    EyesmithError when the file does not find what the detector finds.
    """
    target = target or ExportTarget()
    if target.format != "onnx" or target.pixels != "uint8" or target.is_dynamic_size or target.part != "both":
        raise ConfigError(
            "to, part, pixels, dynamic_size: a detector is one file, fp32, of bytes at its own size; expected onnx and "
            "the others left out"
        )
    graph, folder = DetectorGraph(finder), Path(out)
    onnx_file.require_onnx()
    if finder.device.type != "cpu":
        raise ConfigError(f"finder: expected it on the CPU to be exported, got {finder.device}")
    check_place(folder, overwrite=overwrite)
    side, per_image = finder.view.side_px, _per_image(finder)
    pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8)  # torch.export takes a batch of 1 for a constant
    sizes = torch.full((2, 2), float(side))
    batch = Dim("batch")
    program = trace(graph, (pixels, sizes), {"pixels": {0: batch}, "sizes": {0: batch}}, strict=False)
    card = _card(finder, name, per_image)
    with whole_folder(folder) as part:
        onnx_file.write_onnx(
            program,
            part / FILE,
            takes={key: one["shape"] for key, one in card["input"].items()},
            gives={key: one["shape"] for key, one in card["output"].items()},
            opset=target.opset,
            external_data=onnx_file.has_external_data(program, is_wanted=target.external_data),
            facts={"eyesmith.model": name, "eyesmith.part": "detector", "eyesmith.classes": "\n".join(finder.names)},
        )
        shown, total, equal = _compared(finder, onnx_file.OnnxRunner(part / FILE), images)
        if equal < MIN_EQUAL_FRAC:
            raise EyesmithError(
                f"onnx: of what the detector and the file find in {shown} pictures {equal:.1%} is equal, at least "
                f"{MIN_EQUAL_FRAC:.0%} is asked for; nothing was written"
            )
        files = sorted(path.name for path in part.iterdir())
        parity = {"pictures": shown, "detections": total, "equal_frac": equal}
        card |= {"opset": target.opset, "parity": parity}
        card["files"] = {file: sha256_file(part / file) for file in files}
        write_json(part / CARD_FILE, card)
    return DetectorExport(folder=folder, files=(CARD_FILE, *files), pictures=shown, detections=total, equal_frac=equal)


def _per_image(finder: ObjectDetector) -> int:
    """Rows of the file's tables: as many as are asked for, or as there can be."""
    config, side = finder.detector.rpn.config, finder.view.side_px
    anchors = [math.ceil(side / stride) ** 2 * config.num_anchors for stride in finder.detector.rpn.strides]
    proposals = min(config.after_nms, sum(min(config.before_nms, one) for one in anchors))
    return min(finder.predict.per_image, proposals * len(finder.names))


def _card(finder: ObjectDetector, name: str, per_image: int) -> dict[str, Any]:
    side, predict = finder.view.side_px, finder.predict
    alpha, beta, temperature = predict.settings(float(finder.clip.logit_scale.detach().exp()))
    card: dict[str, Any] = {
        "format": FORMAT,
        "made_by": f"eyesmith {metadata.version('eyesmith')}",
        "model": name,
        "file": FILE,
        "precision": "fp32",
        "classes": list(finder.names),
        "input": {
            "pixels": {
                "dtype": "uint8",
                "shape": ["batch", 3, side, side],
                "values": "RGB bytes 0..255, batch x channels x height x width; normalised inside",
            },
            "sizes": {
                "dtype": "float32",
                "shape": ["batch", 2],
                "values": "height and width of what of each square shows the picture",
            },
        },
        "output": {
            "boxes": {
                "dtype": "float32",
                "shape": ["batch", per_image, 4],
                "values": "x0, y0, x1, y1 in pixels of the square, best first",
            },
            "scores": {"dtype": "float32", "shape": ["batch", per_image], "values": "0..1"},
            "labels": {"dtype": "int64", "shape": ["batch", per_image], "values": "places in classes"},
            "counts": {
                "dtype": "int64",
                "shape": ["batch"],
                "values": "rows that are detections; behind them boxes and scores are 0, labels -1",
            },
        },
        "preprocess": {
            "side_px": side,
            "how": "resize by side_px / longer side, both sides rounded, to the square's upper left corner (bilinear, "
            "antialiased, in bytes: Pillow's); fill the rest with the mean; divide boxes by the ratio of sizes to the "
            "picture's own to have its pixels",
            "mean": list(finder.clip.image.mean),
            "is_normalized_inside": True,
        },
        "settings": {
            "source": predict.source,
            "alpha": alpha,
            "beta": beta,
            "temperature": temperature,
            "nms": predict.nms,
            "floor": predict.floor,
        },
    }
    if finder.detector.mask is not None:
        card["masks"] = "the detector has masks; they are not among what this file finds"
    return card


def _compared(
    finder: ObjectDetector, run: onnx_file.OnnxRunner, images: Sequence[ImageSource]
) -> tuple[int, int, float]:
    """Pictures that both searched, what the detector found, and the share of both sides' that is equal."""
    total = equal = both = 0
    pictures = [open_image(one) for one in images] or sample_images()
    for picture in pictures:
        how = fit((picture.height, picture.width), finder.view.side_px)
        pixels = view_pixels(picture, how, finder.view.side_px, finder.clip.image.mean)
        sizes = torch.tensor([[float(how.height), float(how.width)]])
        source = finder.predict.source
        ours = finder.search(pixels[None], [how], (source,))[0][source]
        boxes, scores, labels, counts = run.outputs(pixels[None], sizes)
        count = int(counts[0])
        hits = _equal(ours, how, boxes[0, :count], scores[0, :count], labels[0, :count])
        total, both = total + len(ours.scores), both + len(ours.scores) + count
        equal += int(hits.any(1).sum() + hits.any(0).sum())
    return len(pictures), total, equal / both if both else 1.0


def _equal(ours: Detections, how: Fit, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """bool [n, m]: which of our detections is which of the file's."""
    apart = (how.boxes(ours.boxes_px)[:, None] - boxes[None]).abs().amax(2)
    same = (ours.labels[:, None] == labels[None]) & ((ours.scores[:, None] - scores[None]).abs() <= SCORE_BOUND)
    return same & (apart <= BOX_BOUND_PX)
