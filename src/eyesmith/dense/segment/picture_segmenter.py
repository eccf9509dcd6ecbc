"""A segmenter with its eye: pictures and names in, segments out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.frozen import FrozenEncoder, check_dense
from eyesmith.dense.fusion import Fusion
from eyesmith.dense.regions import crop_boxes
from eyesmith.dense.result import ClassMap, FoundObjects
from eyesmith.dense.segment.classes import MAX_SCALE, frozen_logits, fused
from eyesmith.dense.segment.head import SegmentHead
from eyesmith.dense.segment.inference import (
    Answer,
    Instances,
    Panoptic,
    PanopticRule,
    instances,
    panoptic,
    semantic,
)
from eyesmith.dense.segment.segments import mask_boxes, segments_found
from eyesmith.dense.view import Fit, ViewConfig, fit, view_pixels
from eyesmith.dense.vocabulary import Names, Vocabulary, encode_vocabulary
from eyesmith.errors import ConfigError, DataError
from eyesmith.images.decode import ImageSource, open_image
from eyesmith.models.clip import Clip

Source = Literal["head", "dense", "crop"]
_CROPS = 256  # that the eye sees at a time


@dataclass(frozen=True, kw_only=True)
class SegmentPredictConfig:
    """How predictions become segments. The defaults are FC-CLIP's; Sliding FC-CLIP has 0.45 and 0.7."""

    source: Source = "dense"
    """Beside the head: nothing; the eye's own map, averaged inside each mask; or each mask cut out and looked at."""
    alpha: float = 0.4
    """Share of the eye's word for classes that were trained."""
    beta: float = 0.8
    """Share of it for others."""
    temperature: float = 0.0
    """Factor on the eye's cosines; 0 takes its own, at most 100."""
    crops: int = 40
    """Masks of a picture that are cut out and looked at, those that are least likely void; the rest keeps the head's
    word."""
    crop_alpha: float = 0.35
    """`alpha` where masks are cut out."""
    crop_beta: float = 0.65
    """`beta` there."""
    white: bool = True
    """Paste what is cut out on white by its mask; else the square around it."""
    rule: PanopticRule = field(default_factory=PanopticRule)

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ConfigError(f"predict.source: expected one of {', '.join(get_args(Source))}, got {self.source!r}")
        shares = (self.alpha, self.beta, self.crop_alpha, self.crop_beta)
        if not all(0 <= one <= 1 for one in shares) or self.temperature < 0 or self.crops < 1:
            raise ConfigError(
                "predict: expected alpha, beta, crop_alpha and crop_beta in 0..1, temperature of 0 or more and crops "
                f"of 1 or more, got {self}"
            )

    def fusion(self, source: Source) -> Fusion:
        """The exponents where `source` is asked."""
        if source == "crop":
            return Fusion(alpha=self.crop_alpha, beta=self.crop_beta, is_renormalised=True)
        return Fusion(alpha=self.alpha, beta=self.beta, is_renormalised=True)


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """What was found in one picture, at its own size. is_thing: of each name, whether it is counted."""

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    answer: Answer
    panoptic: Panoptic

    def semantic(self) -> Tensor:
        """The name of each pixel as its place in `names`, int64 [H, W]; every pixel has one."""
        return semantic(self.answer)

    def instances(self, count: int = 100) -> Instances:
        """The `count` best masks of things, which may overlap."""
        return instances(self.answer, self.is_thing, count=count)

    @property
    def found(self) -> list[str]:
        """The name of each segment."""
        return [self.names[one.label] for one in self.panoptic.segments]

    def class_map(self) -> ClassMap:
        """The class of each pixel by its segment, none where there is no segment."""
        return segments_found(self.panoptic, self.names)[0]

    def objects(self) -> FoundObjects:
        """The segments as objects with boxes and masks, best first."""
        return segments_found(self.panoptic, self.names)[1]


class PictureSegmenter:
    """Outlines named things in pictures; the names are exchanged by `use`.

    Raises ConfigError for a source that the eye cannot give: where it pools by a token of its own, its map is in no
    space of texts.
    """

    def __init__(
        self,
        clip: Clip,
        head: SegmentHead,
        view: ViewConfig,
        predict: SegmentPredictConfig,
        *,
        trained: Sequence[Sequence[str]],
        things: Sequence[bool],
        prompts: str = "",
    ) -> None:
        """trained: the synonyms of each class that the head learnt, its name first; things: which of them are counted.
        prompts: of `dense.prompts`, "" for the model's own.
        """
        self.clip, self.head, self.view, self.predict = clip, head, view, predict
        self.trained, self.prompts = tuple(tuple(one) for one in trained), prompts
        self._trained_things = {one[0]: bool(is_thing) for one, is_thing in zip(trained, things, strict=True)}
        self.eye: FrozenEncoder = view.around(clip.image)
        self.seen = torch.zeros(0, dtype=torch.bool)
        self.is_thing: tuple[bool, ...] = ()
        self._known: Vocabulary | None = None  # where void was learnt against anything at all
        if head.config.loss.learns == "things":
            self._known = encode_vocabulary(clip, self.trained, prompts=prompts or None).to(self.device)
        if predict.source == "dense":
            check_dense(clip)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.classes.void.device

    @property
    def names(self) -> tuple[str, ...]:
        """What is looked for."""
        assert self.head.vocabulary is not None
        return self.head.vocabulary.names

    def use(self, names: Names | None = None, things: Sequence[bool] | None = None) -> Vocabulary:
        """Look for these from now on; None: what it was trained on. Raises as `encode_vocabulary` does.

        things: which of them are counted; None: as in training where a name was there, all others are.
        """
        vocabulary = encode_vocabulary(
            self.clip, self.trained if names is None else names, prompts=self.prompts or None
        )
        if things is not None and len(things) != len(vocabulary):
            raise DataError(f"things: expected one for each of {len(vocabulary)} names, got {len(things)}")
        self.head.use(vocabulary)
        known = [synonym for one in self.trained for synonym in one]
        self.seen = vocabulary.seen(known).to(self.device)
        told = [self._trained_things.get(name, True) for name in vocabulary.names]
        self.is_thing = tuple(bool(one) for one in (told if things is None else things))
        return vocabulary

    def __call__(self, image: ImageSource, names: Names | None = None) -> Segmented:
        """What is found in one picture. names: as `use` takes them; None: the present ones.

        Raises ImageError for a broken picture, or one too large.
        """
        if names is not None or self.head.vocabulary is None:
            self.use(names)
        picture = open_image(image, exif=self.clip.preprocess.exif)
        how = fit((picture.height, picture.width), self.view.side_px)
        pixels = view_pixels(picture, how, self.view.side_px, self.clip.image.mean)
        source = self.predict.source
        answer = self.search(pixels[None].to(self.device), (source,))[0][source]
        return self.finish(answer, how, (picture.height, picture.width))

    def finish(self, answer: Answer, how: Fit, size: tuple[int, int]) -> Segmented:
        """The segments of an answer of `search`. how: the fit of the picture; size: its height and width."""
        square = (self.view.side_px, self.view.side_px)
        own = answer.at(size, padded=square, valid=(how.height, how.width))
        found = panoptic(own, self.is_thing, self.predict.rule)
        return Segmented(names=self.names, is_thing=self.is_thing, answer=own, panoptic=found)

    @torch.no_grad()
    def search(
        self, pixels: Tensor, sources: Sequence[Source], *, maps: Mapping[str, Tensor] | None = None
    ) -> list[dict[Source, Answer]]:
        """What is found by each source in pictures, masks as fine as the head makes them.

        pixels: uint8 [B, 3, S, S]. maps: of the eye, where they are known.
        """
        if "dense" in sources:
            check_dense(self.clip)
        if maps is None:
            maps = self.eye.pyramid(pixels, self.head.taps)
        was_training = self.head.training
        self.head.eval()
        last = self.head.answer(maps, self._known)
        self.head.train(was_training)
        outside: dict[Source, Tensor | None] = {}
        if "dense" in sources:
            outside["dense"] = self._dense(pixels, last.masks)
        results: list[dict[Source, Answer]] = []
        for row in range(len(pixels)):
            one: dict[Source, Answer] = {}
            for source in sources:
                logits = last.classes[row : row + 1].float()
                if source == "crop":
                    one[source] = self._cropped(pixels[row], logits[0], last.masks[row])
                    continue
                table = outside.get(source)
                both = fused(
                    logits, None if table is None else table[row : row + 1], self.seen, self.predict.fusion(source)
                )
                one[source] = Answer(classes=both.classes[0], void=both.void[0], masks=last.masks[row])
            results.append(one)
        return results

    def _scale(self) -> float:
        return self.predict.temperature or min(float(self.clip.logit_scale.detach().exp()), MAX_SCALE)

    def _dense(self, pixels: Tensor, masks: Tensor) -> Tensor:
        assert self.head.vocabulary is not None
        return frozen_logits(self.eye.dense(pixels), masks, self.eye.project, self.head.vocabulary, self._scale())

    def _cropped(self, pixels: Tensor, logits: Tensor, masks: Tensor) -> Answer:
        """Of one picture: the masks that are least likely void are looked at by themselves. logits: [Q, K + 1]."""
        assert self.head.vocabulary is not None
        fusion = self.predict.fusion("crop")
        alone = fused(logits, None, self.seen, fusion)
        side = (pixels.shape[1], pixels.shape[2])
        shown = F.interpolate(masks[None].float(), size=side, mode="bilinear", align_corners=False)[0] > 0
        likely = (alone.void - 2 * (shown.flatten(1).sum(1) > 0).float()).argsort(stable=True)[: self.predict.crops]
        likely = likely[shown[likely].flatten(1).any(1)]
        if not len(likely):
            return Answer(classes=alone.classes, void=alone.void, masks=masks)
        vectors = self._looked_at(pixels, shown[likely])
        outside = self._scale() * self.head.vocabulary.scores(vectors)
        both = fused(logits[likely], outside, self.seen, fusion)
        classes = alone.classes.clone()
        classes[likely] = both.classes
        return Answer(classes=classes, void=alone.void, masks=masks)

    def _looked_at(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Unit vectors [n, D] of what is inside masks, bool [n, S, S], seen at the eye's own size."""
        boxes = mask_boxes(masks)
        size = (self.clip.image.image_size[0], self.clip.image.image_size[1])
        which = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        cut = crop_boxes(pixels[None], boxes, which, size)
        if self.predict.white:
            as_pixels = (masks.to(torch.uint8) * 255)[:, None].expand(-1, 3, -1, -1)
            share = crop_boxes(as_pixels, boxes, torch.arange(len(boxes), device=boxes.device), size).float() / 255
            cut = (cut * share + 255 * (1 - share)).round().to(torch.uint8)
        parts = [self.clip.image(part) for part in cut.split(_CROPS)]
        return F.normalize(torch.cat(parts).float(), dim=-1)
