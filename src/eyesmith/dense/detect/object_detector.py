"""A detector with its eye: pictures and names in, named boxes and masks out."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.detect.detections import Detections, paste
from eyesmith.dense.detect.detector import Detector, Regions
from eyesmith.dense.detect.predict import (
    PredictConfig,
    Source,
    agnostic,
    class_scores,
    dense_vectors,
    likely_first,
    select,
)
from eyesmith.dense.frozen import FrozenEncoder, check_dense
from eyesmith.dense.regions import crop_boxes
from eyesmith.dense.view import Fit, ViewConfig, fit, view_pixels
from eyesmith.dense.vocabulary import Names, Vocabulary, encode_vocabulary
from eyesmith.images.decode import ImageSource, open_image
from eyesmith.models.clip import Clip

AGNOSTIC = "agnostic"  # what is found of anything at all, under one name
BACKGROUND = "background"


class ObjectDetector:
    """Finds named things in pictures; the names are exchanged by `use`.

    Raises ConfigError for a source that the encoder cannot give: where it pools by a token of its own, its map is in no
    space of texts.
    """

    def __init__(
        self,
        clip: Clip,
        detector: Detector,
        view: ViewConfig,
        predict: PredictConfig,
        *,
        trained: Sequence[str],
        prompts: str = "",
        background: str = BACKGROUND,
    ) -> None:
        """trained: names of the classes that the detector learnt; prompts: of `dense.prompts`, "" for the model's."""
        self.clip, self.detector, self.view, self.predict = clip, detector, view, predict
        self.trained, self.prompts, self.background = tuple(trained), prompts, background
        self.eye: FrozenEncoder = view.around(clip.image)
        self.seen = torch.zeros(0, dtype=torch.bool)
        if predict.source == "dense":
            check_dense(clip)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.detector.box.scale.device

    @property
    def names(self) -> tuple[str, ...]:
        """What is looked for."""
        assert self.detector.vocabulary is not None
        return self.detector.vocabulary.names

    def use(self, names: Names | None = None) -> Vocabulary:
        """Look for these from now on; None: what it was trained on. Raises as `encode_vocabulary` does."""
        vocabulary, ground = words(self.clip, self.trained if names is None else names, self.prompts, self.background)
        self.detector.use(vocabulary, ground)
        self.seen = vocabulary.seen(self.trained).to(self.device)
        return vocabulary

    def __call__(self, image: ImageSource, names: Names | None = None) -> Detections:
        """What is found in one picture, in its own pixels, best first. names: as `use` takes them; None: the present.

        Raises ImageError for a broken picture, or one too large.
        """
        if names is not None or self.detector.vocabulary is None:
            self.use(names)
        picture = open_image(image, exif=self.clip.preprocess.exif)
        how = fit((picture.height, picture.width), self.view.side_px)
        pixels = view_pixels(picture, how, self.view.side_px, self.clip.image.mean)
        return self.search(pixels[None].to(self.device), [how], (self.predict.source,))[0][self.predict.source]

    @torch.no_grad()
    def search(
        self,
        pixels: Tensor,
        how: Sequence[Fit],
        sources: Sequence[Source],
        *,
        maps: dict[str, Tensor] | None = None,
        dense: Tensor | None = None,
    ) -> list[dict[str, Detections]]:
        """What each source finds in pictures, and what is found of anything at all (`AGNOSTIC`).

        What one finds does not depend on which others are asked. pixels: uint8 [B, 3, S, S]; how: the fit of each;
        maps, dense: of the eye, where they are known.
        """
        for source in sources:
            if source == "dense":
                check_dense(self.clip)
        maps = self.eye.pyramid(pixels, self.detector.taps) if maps is None else maps
        if "dense" in sources and dense is None:
            dense = self.eye.dense(pixels)
        sizes = torch.tensor([[float(one.height), float(one.width)] for one in how])
        was_training = self.detector.training
        self.detector.eval()
        found, heads = self.detector.regions(maps, sizes)
        results = []
        for row, regions in enumerate(found):
            one: dict[str, Detections] = {}
            for source in sources:
                config, own, outside = self.predict.looking_at(source), regions, None
                if source == "dense" and dense is not None:
                    first = config.background == "class"
                    outside = dense_vectors(self.eye, dense[row], own.proposals, project_first=first)
                elif source == "crop":
                    own = likely_first(self.detector, regions, self.predict.crops)
                    outside = self._looked_at(pixels[row], own, heads, row)
                scale = float(self.clip.logit_scale.detach().exp())
                scores = class_scores(self.detector, own, outside, self.seen, config, own_temperature=scale)
                one[source] = self._detections(*select(own, scores, config), own, heads, row, self.names)
            keep, scores = agnostic(regions, self.detector, self.predict)
            one[AGNOSTIC] = self._detections(keep, keep * 0, scores, regions, heads, row, ("object",))
            results.append({name: _in_picture(value, how[row]) for name, value in one.items()})
        self.detector.train(was_training)
        return results

    def _looked_at(self, pixels: Tensor, regions: Regions, heads: Sequence[Tensor], row: int) -> Tensor:
        """Unit vectors [m, D] of the first regions, each cut out and seen at the encoder's own size."""
        boxes = regions.boxes[: self.predict.crops]
        if not len(boxes):
            return regions.vectors[:0]
        which = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        size = (self.clip.image.image_size[0], self.clip.image.image_size[1])
        cut = crop_boxes(pixels[None], boxes, which, size)
        if self.predict.white and self.detector.mask is not None:
            masks = self.detector.masks(heads, boxes, which + row)
            side = (pixels.shape[1], pixels.shape[2])
            shown = paste(masks, boxes, side).to(torch.uint8) * 255
            shown = torch.cat(
                [
                    crop_boxes(mask[None, None].expand(-1, 3, -1, -1), box[None], which[:1], size)
                    for mask, box in zip(shown, boxes, strict=True)
                ]
            )
            share = shown.float() / 255
            cut = (cut * share + 255 * (1 - share)).round().to(torch.uint8)
        parts = [self.clip.image(part) for part in cut.split(256)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    def _detections(
        self,
        places: Tensor,
        labels: Tensor,
        scores: Tensor,
        regions: Regions,
        heads: Sequence[Tensor],
        row: int,
        names: tuple[str, ...],
    ) -> Detections:
        boxes = regions.boxes[places]
        masks = None
        if self.detector.mask is not None:
            rows = torch.full((len(boxes),), row, device=boxes.device)
            masks = self.detector.masks(heads, boxes, rows).cpu() if len(boxes) else torch.zeros(0, 2, 2)
        return Detections(
            boxes_px=boxes.cpu(), scores=scores.cpu(), labels=labels.cpu(), names=names, size=(1, 1), masks=masks
        )


def words(clip: Clip, names: Names, prompts: str, background: str) -> tuple[Vocabulary, Tensor]:
    """The vocabulary of some names, and the vector [D] of the word for background, in one text space."""
    vocabulary = encode_vocabulary(clip, names, prompts=prompts or None)
    ground = encode_vocabulary(clip, [background], prompts=prompts or None)
    return vocabulary, ground.vectors[0]


def _in_picture(found: Detections, how: Fit) -> Detections:
    """Detections of the square as those of the picture."""
    height, width = round(how.height / how.scale_y), round(how.width / how.scale_x)
    return replace(found, boxes_px=how.back(found.boxes_px), size=(height, width))
