"""From regions to named detections: the detector's word, and the frozen encoder's on top of it.

The detector knows the classes that it was trained on; the frozen encoder knows every word it was trained with, but not
where things are. What it says of a region comes from its own map (`dense`), or from the region cut out and looked at by
itself (`crop`). Source of the map's use and the exponents: F-ViT.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.detect.detector import Detector, Regions
from eyesmith.dense.fusion import fuse, fuse_with_background
from eyesmith.dense.nms import nms, nms_table
from eyesmith.dense.roi_align import roi_align
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Encoder

Source = Literal["detector", "dense", "crop"]


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How regions become detections."""

    source: Source = "dense"
    """Beside the detector: nothing; the encoder's own map, averaged over each proposal; or each proposal cut out."""
    alpha: float = 0.1
    """Share of the encoder's word for classes that were trained."""
    beta: float = 0.8
    """Share of it for others."""
    temperature: float = 75.0
    """Factor on the encoder's cosines."""
    background: Literal["apart", "class"] = "apart"
    """apart: classes are fused among themselves, and the detector's word on background multiplies the result; class:
    background is one more class of both (the release)."""
    objectness: float = 0.0
    """Exponent on what the proposal scored as being anything; 0 leaves it out (the release)."""
    floor: float = 0.01
    """Detections below this score are dropped."""
    nms: float = 0.4
    per_image: int = 100
    crops: int = 60
    """Proposals of a picture that are cut out and looked at; the rest keeps the detector's word."""
    white: bool = False
    """Cut out by the mask and paste on white, where the detector has masks; else the square around the box."""
    crop_alpha: float = 0.35
    """`alpha` where regions are cut out."""
    crop_beta: float = 0.65
    """`beta` there."""
    crop_temperature: float = 0.0
    """`temperature` there; 0 takes the encoder's own."""

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ConfigError(f"predict.source: expected one of {', '.join(get_args(Source))}, got {self.source!r}")
        if self.background not in ("apart", "class"):
            raise ConfigError(f"predict.background: expected apart or class, got {self.background!r}")
        if not all(0 <= value <= 1 for value in self._shares()):
            raise ConfigError(f"predict: alpha, beta, nms and floor must lie in 0..1, got {self}")
        if (
            self.temperature <= 0
            or self.crop_temperature < 0
            or self.objectness < 0
            or min(self.per_image, self.crops) < 1
        ):
            raise ConfigError(
                f"predict: temperature, per_image and crops must be positive, objectness not negative, got {self}"
            )

    def _shares(self) -> tuple[float, ...]:
        return self.alpha, self.beta, self.crop_alpha, self.crop_beta, self.nms, self.floor

    def looking_at(self, source: Source) -> "PredictConfig":
        """The same with another source."""
        return replace(self, source=source)

    def settings(self, own_temperature: float) -> tuple[float, float, float]:
        """alpha, beta and temperature of its source; own_temperature: the encoder's."""
        if self.source == "crop":
            return self.crop_alpha, self.crop_beta, self.crop_temperature or own_temperature
        return self.alpha, self.beta, self.temperature


def class_scores(
    detector: Detector,
    regions: Regions,
    outside: Tensor | None,
    seen: Tensor,
    config: PredictConfig,
    *,
    own_temperature: float = 100.0,
) -> Tensor:
    """[n, K] in 0..1. outside: unit vectors [m, D] of the first m regions by the encoder, or None; seen: bool [K].

    own_temperature: the encoder's, for crops.
    """
    logits = detector.logits(regions.vectors)  # [n, K + 1]
    # not len(), which would fix the number of pictures of an exported detector
    count = 0 if outside is None or config.source == "detector" else outside.shape[0]
    scores = _alone(logits, config)
    if count:
        assert outside is not None
        fused = _fused(detector, logits[:count], outside, seen, config, own_temperature)
        scores = torch.cat([fused, scores[count:]])
    return scores * regions.objectness[:, None] ** config.objectness if config.objectness else scores


def _alone(logits: Tensor, config: PredictConfig) -> Tensor:
    if config.background == "class":
        return logits.softmax(-1)[:, :-1]
    return logits[:, :-1].softmax(-1) * (1 - logits.softmax(-1)[:, -1:])


def _fused(
    detector: Detector, logits: Tensor, outside: Tensor, seen: Tensor, config: PredictConfig, own_temperature: float
) -> Tensor:
    vocabulary = detector.vocabulary
    assert vocabulary is not None
    alpha, beta, temperature = config.settings(own_temperature)
    named = vocabulary.scores(outside) * temperature
    if config.background == "class":
        ground = (outside @ detector.ground())[:, None] * temperature
        both = torch.cat([named, ground], 1).softmax(-1)
        return fuse_with_background(logits.softmax(-1), both, seen, alpha, beta)[:, :-1]
    nothing = logits.softmax(-1)[:, -1]
    return fuse(logits[:, :-1].softmax(-1), named.softmax(-1), seen, alpha, beta, background=nothing)


def dense_vectors(encoder: Encoder, dense: Tensor, boxes: Tensor, *, project_first: bool = False) -> Tensor:
    """Unit vectors [n, D] of one picture's boxes: the encoder's last map averaged over each.

    dense: [C, h, w]; boxes: [n, 4] in the encoder's pixels. project_first: every cell is projected and brought to
    length 1 before the average, as in the release; else the average is projected, as the encoder's own pooling is.
    """
    if not len(boxes):
        return dense.new_zeros(0, encoder.project(dense[:, :1, 0].mT).shape[-1])
    if project_first:
        dense = F.normalize(encoder.project(dense.permute(1, 2, 0)), dim=-1).permute(2, 0, 1)
    images = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    pooled = roi_align(dense[None], boxes, images, (1, 1), stride=float(encoder.stride))[:, :, 0, 0]
    return F.normalize((pooled if project_first else encoder.project(pooled)).float(), dim=-1)


def select(regions: Regions, scores: Tensor, config: PredictConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of a picture, best first: places among the regions, labels int64 [n], scores [n]."""
    boxes = regions.boxes
    has_area = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    stays = nms_table(boxes, scores * has_area[:, None], config.nms, floor=config.floor)
    places, labels = stays.nonzero(as_tuple=True)
    found = scores[places, labels]
    top = found.argsort(descending=True, stable=True)[: config.per_image]
    return places[top], labels[top], found[top]


def agnostic(regions: Regions, detector: Detector, config: PredictConfig) -> tuple[Tensor, Tensor]:
    """Detections of anything at all, best first: places among the regions, and scores.

    A score is the geometric mean of the proposal's own and of the box head's word that it is not background.
    """
    something = 1 - detector.logits(regions.vectors).softmax(-1)[:, -1]
    scores = (something * regions.objectness).sqrt()
    keep = nms(regions.boxes, scores, 0.5)[: config.per_image]
    return keep, scores[keep]


def likely_first(detector: Detector, regions: Regions, count: int) -> Regions:
    """Those that hold anything come first, alike ones apart: the first `count` are worth a look by themselves."""
    something = 1 - detector.logits(regions.vectors).softmax(-1)[:, -1]
    scores = (something * regions.objectness).sqrt()
    keep = nms(regions.boxes, scores, 0.6)
    is_left = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    is_left[keep] = False
    order = torch.cat([keep, is_left.nonzero()[:, 0]]) if len(keep) < count else keep
    return Regions(*(value[order] for value in regions))
