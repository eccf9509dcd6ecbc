"""Objects by names alone and without training: boxes that somebody gives, or regions of a segmentation, looked at."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from eyesmith.data.annotations.types import Annotations
from eyesmith.dense.result import FoundObjects
from eyesmith.dense.training_free.crops import Crop, checked_boxes, classify_crops, find_crops
from eyesmith.dense.training_free.segment import SegmentConfig, TrainingFreeSegmenter
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError, DataError
from eyesmith.images import ImageSource, open_image
from eyesmith.models.clip import Clip


class BoxFinder:
    """Names for boxes or masks that are given: each is cut out and classified; `vocabulary` may be exchanged."""

    def __init__(
        self, clip: Clip, vocabulary: Vocabulary, *, crops: str | Sequence[Crop] = "crop", threshold: float = 0.0
    ) -> None:
        """crops: ways to look, or a name in CROPS. threshold: objects with a lower probability are left out."""
        self.clip, self.vocabulary, self.crops = clip, vocabulary, find_crops(crops)
        self.threshold = _checked(threshold)

    def __call__(self, image: ImageSource, boxes: Tensor, *, masks: Tensor | None = None) -> FoundObjects:
        """The likeliest class of each box, best first. boxes: [N, 4] xyxy in pixels; masks: bool [N, H, W].

        Raises what `crop_features` does.
        """
        picture = open_image(image, exif=self.clip.preprocess.exif)
        size = (picture.height, picture.width)
        boxes = checked_boxes(boxes, size)
        found = classify_crops(self.clip, picture, boxes, self.vocabulary, masks=masks, crops=self.crops)
        scores, labels = found.max(dim=1) if len(boxes) else (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        whole = FoundObjects(
            boxes_px=boxes, scores=scores, labels=labels, names=self.vocabulary.names, size=size, masks=masks
        )
        kept = whole[whole.scores >= self.threshold]
        return kept.best(len(kept))


class RegionFinder:
    """Objects out of a training-free segmentation: its connected regions, each looked at by itself once more.

    Objects of one class that touch are one object, which no method without training can tell; a trained detector can.
    """

    def __init__(
        self,
        clip: Clip,
        vocabulary: Vocabulary,
        config: SegmentConfig | None = None,
        *,
        crops: str | Sequence[Crop] | None = "white",
        threshold: float = 0.0,
        limit: int = 100,
    ) -> None:
        """crops: how regions are looked at once more; None leaves them the segmentation's word. limit: objects of a
        picture at most. Regions smaller than a cell of the encoder are left out."""
        self.segmenter = TrainingFreeSegmenter(clip, vocabulary, config)
        self.clip, self.limit = clip, limit
        self.crops = None if crops is None else find_crops(crops)
        self.threshold = _checked(threshold)
        if limit < 1:
            raise ConfigError(f"limit: expected 1 or more objects, got {limit}")

    def __call__(self, image: ImageSource) -> FoundObjects:
        """What is in a picture, best first. Raises ImageError as `open_image` does."""
        picture = open_image(image, exif=self.clip.preprocess.exif)
        cells = self.segmenter(picture)
        least = max(1, round(cells.cell_px[0] * cells.cell_px[1]))
        found = cells.class_map().objects(min_px=least, limit=self.limit)
        if self.crops is not None and len(found):
            vocabulary = self.segmenter.vocabulary
            probabilities = classify_crops(
                self.clip, picture, found.boxes_px, vocabulary, masks=found.masks, crops=self.crops
            )
            scores, labels = probabilities.max(dim=1)
            found = replace(found, scores=scores, labels=labels)
        kept = found[found.scores >= self.threshold]
        return kept.best(len(kept))


def given_boxes(annotations: Annotations, file: str | os.PathLike[str]) -> tuple[Tensor, Tensor | None]:
    """The boxes [N, 4] of a picture in a set of annotations, and masks [N, H, W] where all have one; crowds left out.

    The picture is found by its path, or its name where one alone has it. Raises DataError where none has.
    """
    path = Path(file)
    names = [Path(one.file) for one in annotations.pictures]
    places = [place for place, one in enumerate(names) if path == one or path.parts[-len(one.parts) :] == one.parts]
    places = places or [place for place, one in enumerate(names) if one.name == path.name]
    if len(places) != 1:
        what = "no picture" if not places else f"{len(places)} pictures"
        raise DataError(f"{annotations.path}: has {what} called {path.name}; its pictures are {_some(names)}")
    objects = annotations.objects(places[0])
    counted = ~objects.crowd
    boxes = torch.from_numpy(objects.boxes[counted])
    if not counted.any() or not objects.has_masks:
        return boxes, None
    return boxes, torch.from_numpy(objects.masks[counted])


def _some(names: Sequence[Path]) -> str:
    shown = ", ".join(str(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _checked(threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: expected a probability, got {threshold}")
    return threshold
