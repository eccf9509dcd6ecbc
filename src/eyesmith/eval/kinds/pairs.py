"""Pairs of images with a caption each (Winoground, MMVP-VLM): does the model know who does what to whom?"""

from pathlib import Path

import torch
from torch import Tensor

from eyesmith.data.evaluation.captions import open_caption_test
from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.errors import DataError, ShapeError
from eyesmith.eval.kinds.kind import (
    Answered,
    Asked,
    Kind,
    Metrics,
    PairedValues,
    Records,
    Span,
    check_same,
    share,
    text_array,
    wilson,
)
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.metrics import check_finite

CHANCE = {"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6}
"""Of scores drawn at random, all orders alike."""


class Pairs(Kind):
    """Records: categories [N], scores [N, 2, 2] fp32 of caption i with image j. An equal score counts as wrong."""

    name = "pairs"
    arrays = ("categories", "scores")
    main = "group_score"
    counted = "pairs"

    def open(self, task: Task, place: Path, split: str) -> EvaluationSet:
        return open_caption_test(place)

    def size(self, found: EvaluationSet) -> int:
        return len(found.pairs)

    def answer(self, asked: Asked) -> Answered:
        items, rows = asked.found.pairs, image_rows(asked)
        images = rows[torch.tensor([one.images for one in items])]  # [N, 2, D]
        captions = asked.texts([caption for one in items for caption in one.captions]).view(len(items), 2, -1)
        # fp64, rounded once: equal captions then have equal scores
        scores = (captions.double() @ images.double().mT).float()  # [N, 2 captions, 2 images]
        return Answered(records={"categories": text_array([one.category for one in items]), "scores": scores.numpy()})

    def metrics(self, task: Task, records: Records) -> Metrics:
        return {name: share(right) for name, right in pair_answers(torch.from_numpy(records["scores"])).items()}

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        return {name: wilson(right) for name, right in pair_answers(torch.from_numpy(records["scores"])).items()}

    def chance(self, task: Task, records: Records) -> dict[str, float]:
        return dict(CHANCE)

    def parts(self, records: Records) -> dict[str, Records]:
        return by_category(records)

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        check_same(one, other, "categories")
        left, right = (pair_answers(torch.from_numpy(r["scores"]))["group_score"] for r in (one, other))
        return PairedValues(name="group_score", left=left.double().numpy(), right=right.double().numpy())


def pair_answers(scores: Tensor) -> dict[str, Tensor]:
    """Right or wrong for each item, [N] bool: scores [N, 2, 2] of caption i (first) with image j (last).

    text: for both images the own caption scores higher. image: for both captions the own image does (the pairs test of
    MMVP-VLM). group: both. Source: Winoground (arXiv 2204.03162), equations 1 to 3.
    """
    if scores.ndim != 3 or scores.shape[1:] != (2, 2):
        raise ShapeError(f"pairs: expected scores [N, 2, 2], got {list(scores.shape)}")
    check_finite(scores.flatten(1))
    text = (scores[:, 0, 0] > scores[:, 1, 0]) & (scores[:, 1, 1] > scores[:, 0, 1])
    image = (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] > scores[:, 1, 0])
    return {"text_score": text, "image_score": image, "group_score": text & image}


def image_rows(asked: Asked) -> Tensor:
    """Features by the index of the image in its source. Raises DataError where one of them cannot be read."""
    if asked.images.broken:
        raise DataError(f"{asked.found.name}: {asked.images.broken[0].reason}; a caption test needs all of its images")
    return asked.images.features


def by_category(records: Records) -> dict[str, Records]:
    """The records of each category, where there are several."""
    known = sorted(set(records["categories"].tolist()) - {""})
    if len(known) < 2:
        return {}
    marks = {one: records["categories"] == one for one in known}
    return {one: {name: rows[mark] for name, rows in records.items()} for one, mark in marks.items()}
