"""A detector with its eye, and names that stay, as one computation of fixed sizes, which can leave the house.

What is found varies in number, which a file for other programs has no sizes for. So nothing is ever left out here:
proposals and detections that suppression takes away stay in their tables with a score below 0, and sort last. Pooling
and suppression are ONNX's own operators, which compute what ours do. B pictures, S side, P proposals, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.boxes import UNIT, decode
from eyesmith.dense.detect.detector import Regions
from eyesmith.dense.detect.object_detector import ObjectDetector
from eyesmith.dense.detect.predict import class_scores
from eyesmith.dense.detect.roi import SPREAD, BoxHead, level_of
from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.errors import ConfigError
from eyesmith.images.pixels import normalize

_GONE = -1.0  # the score of what suppression took away


class DetectorGraph(nn.Module):
    """pixels uint8 [B, 3, S, S] and sizes fp32 [B, 2] -> boxes [B, M, 4], scores [B, M], labels [B, M], counts [B].

    As `ObjectDetector.search` gives them with the present names, in pixels of the square, best first, M of a picture
    (`predict.per_image`); from `counts` on, boxes and scores are 0 and labels -1. sizes: height and width of what of
    each square shows the picture. It computes in ONNX only: torch has no bodies for the two operators. Raises
    ConfigError for what no file of fixed sizes can do.
    """

    seen: Tensor

    def __init__(self, finder: ObjectDetector) -> None:
        super().__init__()
        config = finder.predict
        if config.source == "crop":
            raise ConfigError(
                "source: a file cannot cut regions out and see each by itself; export it with source=dense or detector"
            )
        if isinstance(finder.eye, SlidingEncoder):
            raise ConfigError(
                "view.window_px: a detector that sees in sliding windows cannot be exported; train one that sees its "
                "squares whole (view.window_px=0)"
            )
        if finder.detector.vocabulary is None:
            raise ConfigError("classes: none are set; call use(names) on the detector")
        self.eye = finder.eye.inner  # registered, as tracing wants every weight of a module's own
        self.detector, self.config = finder.detector, config
        self.register_buffer("seen", finder.seen)
        self.own_temperature = float(finder.clip.logit_scale.detach().exp())

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        detector = self.detector
        pixels = normalize(pixels, self.eye.mean, self.eye.std)
        pyramid = detector.neck(self.eye.pyramid(pixels, detector.taps))
        origins, objectness = self._proposals(pyramid, sizes)  # [B, P, 4], [B, P]
        count = origins.shape[1]
        rows = torch.arange(pixels.shape[0], device=pixels.device)[:, None].expand(-1, count).flatten()
        flat = origins.flatten(0, 1)
        vectors, moves = detector.box(self._pooled(pyramid[: detector.config.num_levels], flat, rows))
        boxes = _inside(decode(flat, moves, SPREAD).unflatten(0, (-1, count)), sizes)
        outside = None
        if self.config.source == "dense":
            outside = self._dense_vectors(self.eye.dense(pixels), flat, rows)
        regions = Regions(flat, boxes.flatten(0, 1), objectness.flatten().clamp(min=0), vectors)
        scores = class_scores(
            detector, regions, outside, self.seen, self.config, own_temperature=self.own_temperature
        ).unflatten(0, (-1, count))  # [B, P, K]
        is_there = (objectness >= 0) & _has_area(boxes)
        return self._selected(boxes, scores * is_there[..., None])

    def _proposals(self, pyramid: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [B, P, 4], best first, and scores [B, P], below 0 where there is none."""
        rpn = self.detector.rpn
        boxes, scores = [], []
        for logits, moves, anchors in zip(*rpn(pyramid), strict=True):
            top = logits.topk(min(rpn.config.before_nms, logits.shape[1]), dim=1)
            picked = moves.gather(1, top.indices[..., None].expand(-1, -1, 4))
            own = decode(anchors[top.indices].flatten(0, 1), picked.flatten(0, 1), UNIT)
            own = _inside(own.unflatten(0, (-1, top.indices.shape[1])), sizes)
            likely = torch.where(_has_area(own), top.values.sigmoid(), _GONE)
            stays = _suppressed(own, likely[..., None], rpn.config.nms, floor=_GONE / 2)[..., 0]
            boxes.append(own)
            scores.append(torch.where(stays, likely, _GONE))
        both = torch.cat(scores, 1)
        top = both.topk(min(rpn.config.after_nms, both.shape[1]), dim=1)
        return torch.cat(boxes, 1).gather(1, top.indices[..., None].expand(-1, -1, 4)), top.values

    def _pooled(self, heads: Sequence[Tensor], boxes: Tensor, rows: Tensor) -> Tensor:
        """[R, C, 7, 7], each box from its level."""
        levels = level_of(boxes, len(heads), self.detector.config.box.finest_px)
        found = None
        for level, (features, stride) in enumerate(zip(heads, self.detector.neck.strides, strict=False)):
            is_here = (levels == level)[:, None]
            # a box without an area costs nothing and gives zeros, so every level may be asked for every box
            own = _roi_align(features, boxes * is_here, rows, BoxHead.POOL, stride)
            found = own if found is None else found + own
        assert found is not None
        return found

    def _dense_vectors(self, dense: Tensor, boxes: Tensor, rows: Tensor) -> Tensor:
        """As `predict.dense_vectors`: [R, D], unit rows."""
        first, eye = self.config.background == "class", self.eye
        if first:
            dense = F.normalize(eye.project(dense.permute(0, 2, 3, 1)), dim=-1).permute(0, 3, 1, 2)
        pooled = _roi_align(dense, boxes, rows, 1, float(eye.stride))[:, :, 0, 0]
        return F.normalize((pooled if first else eye.project(pooled)).float(), dim=-1)

    def _selected(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config, num_classes = self.config, scores.shape[2]
        stays = _suppressed(boxes, scores, config.nms, floor=config.floor)
        table = torch.where(stays, scores, _GONE).flatten(1)  # [B, P * K]
        top = table.topk(min(config.per_image, table.shape[1]), dim=1)
        is_there = top.values >= 0
        places, labels = top.indices // num_classes, top.indices % num_classes
        chosen = boxes.gather(1, places[..., None].expand(-1, -1, 4)) * is_there[..., None]
        found = torch.where(is_there, top.values, 0.0)
        return chosen, found, torch.where(is_there, labels, -1), is_there.sum(1)


def _inside(boxes: Tensor, sizes: Tensor) -> Tensor:
    """[B, P, 4] cut to each picture; sizes: [B, 2] of height, width."""
    most = torch.cat([sizes.flip(1), sizes.flip(1)], 1)[:, None]
    return torch.minimum(boxes.clamp(min=0), most)


def _has_area(boxes: Tensor) -> Tensor:
    return ((boxes[..., 2:] - boxes[..., :2]) > 0).all(-1)


def _suppressed(boxes: Tensor, scores: Tensor, threshold: float, *, floor: float) -> Tensor:
    """Where suppression class by class leaves boxes: bool [B, N, K]. boxes: [B, N, 4]; scores: [B, N, K].

    Equals `nms_table` of each picture.
    """
    batch, count, num_classes = scores.shape
    device = scores.device
    found = torch.onnx.ops.symbolic(
        "NonMaxSuppression",
        (
            boxes,
            scores.mT,
            torch.tensor([count], device=device),
            torch.tensor([threshold], device=device),
            torch.tensor([floor], device=device),
        ),
        dtype=torch.int64,
        # as many rows as there may be: at run time there are fewer, and all that follows takes any number
        shape=(batch * count * num_classes, 3),
        version=11,
    )
    places = (found[:, 0] * count + found[:, 2]) * num_classes + found[:, 1]
    table = scores.new_zeros(batch * count * num_classes, dtype=torch.int64)
    return table.scatter(0, places, places * 0 + 1).view(batch, count, num_classes) > 0


def _roi_align(features: Tensor, boxes: Tensor, rows: Tensor, side: int, stride: float) -> Tensor:
    """[R, C, side, side], as `dense.roi_align` with as many samples as a bin has cells."""
    return torch.onnx.ops.symbolic(
        "RoiAlign",
        (features, boxes, rows),
        {
            "output_height": side,
            "output_width": side,
            "sampling_ratio": 0,
            "spatial_scale": 1.0 / stride,
            "mode": "avg",
            "coordinate_transformation_mode": "half_pixel",
        },
        dtype=features.dtype,
        shape=(boxes.shape[0], features.shape[1], side, side),
        version=16,
    )
