"""WinoGAViL: which of a few pictures fit a cue. Source: DataComp's evaluation (Jaccard index of the chosen set)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.evaluation.evaluation_set import EvaluationSet, Instance
from eyesmith.errors import DataError
from eyesmith.eval.kinds.kind import (
    Answered,
    Asked,
    Kind,
    Metrics,
    PairedValues,
    Records,
    Span,
    check_same,
    resampled_span,
    text_array,
)
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import mean
from eyesmith.eval.statistics.metrics import check_finite, similarity

ALL, MAIN = "avg_jaccard_score", "jaccard_score_10-12"


class Association(Kind):
    """Records: cues [I], jaccard [I] fp64 (index of each instance), num_candidates [I] int32."""

    name = "association"
    arrays = ("cues", "jaccard", "num_candidates")
    main = MAIN
    counted = "instances"
    half_images = True

    def size(self, found: EvaluationSet) -> int:
        return len(found.instances)

    def answer(self, asked: Asked) -> Answered:
        found, images, instances = asked.found, asked.images, asked.found.instances
        place = {index: row for row, index in enumerate(images.indices)}
        lost = [index for one in instances for index in one.candidates if index not in place]
        if lost:
            raise DataError(f"{found.name}: image {found.source.keys[lost[0]]} is a candidate and cannot be read")
        if not instances:
            raise DataError(f"{found.name}: has no instances")
        features = torch.zeros(max(place) + 1, images.features.shape[1])
        features[torch.tensor(images.indices)] = images.features
        cues = asked.texts([cue_prompt(one.cue) for one in instances])
        scores = jaccard_scores(features, cues, instances, half=asked.half)
        return Answered(
            records={
                "cues": text_array([one.cue for one in instances]),
                "jaccard": scores.numpy(),
                "num_candidates": np.array([len(one.candidates) for one in instances], dtype=np.int32),
            }
        )

    def metrics(self, task: Task, records: Records) -> Metrics:
        return association_metrics(torch.from_numpy(records["jaccard"]), records["num_candidates"].tolist())

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        scores = torch.from_numpy(records["jaccard"])
        large = scores[torch.from_numpy(records["num_candidates"]) >= 10]
        found = {ALL: resampled_span(scores, mean)}
        return found | ({MAIN: resampled_span(large, mean)} if len(large) else {})

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        check_same(one, other, "cues")
        check_same(one, other, "num_candidates")
        many = one["num_candidates"] >= 10
        rows = many if many.any() else ~many
        left, right = one["jaccard"][rows].astype(float), other["jaccard"][rows].astype(float)
        return PairedValues(name=MAIN if many.any() else ALL, left=left, right=right)


def cue_prompt(cue: str) -> str:
    """The one sentence of a cue: lower case, with its article."""
    text = cue.lower()
    return f"{'An' if text[:1] in tuple('aeiou') else 'A'} {text}"


def jaccard_scores(images: Tensor, cues: Tensor, instances: Sequence[Instance], *, half: torch.dtype | None) -> Tensor:
    """The Jaccard index |chosen and gold| / |chosen or gold| of each instance, [I] fp64.

    images: [N, D] unit rows; cues: [I, D] unit rows. Chosen are as many candidates as are gold, the nearest to the
    cue; of equal ones the last, which is where numpy's argsort, by which the reference chooses, puts them for as few
    candidates as an instance has. half: similarities are rounded to this format first, which makes ties common.
    """
    scores = []
    for row, instance in enumerate(instances):
        close = similarity(cues[row : row + 1], images[torch.tensor(instance.candidates)])  # [1, n]
        if half is not None:
            close = close.to(half).float()
        check_finite(close)
        gold = {place for place, is_gold in enumerate(instance.gold) if is_gold}
        ascending = close[0].argsort(stable=True).tolist()
        chosen = set(ascending[len(ascending) - len(gold) :])
        scores.append(len(chosen & gold) / len(chosen | gold) if gold else 0.0)
    return torch.tensor(scores, dtype=torch.float64)


def association_metrics(scores: Tensor, sizes: Sequence[int]) -> dict[str, float | None]:
    """Means over all instances, and over those with 5, 6, 10, 12, at most 6 and at least 10 candidates.

    None where there is no such instance.
    """
    size = torch.tensor(sizes)
    parts = {ALL: size > 0}
    parts |= {f"jaccard_score_{count}": size == count for count in (5, 6, 10, 12)}
    parts |= {"jaccard_score_5-6": size <= 6, MAIN: size >= 10}
    return {name: float(scores[part].mean()) if bool(part.any()) else None for name, part in parts.items()}
