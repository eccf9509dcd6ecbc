"""One right caption among wrong ones (SugarCrepe, ARO)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.evaluation.captions import open_caption_test
from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.errors import ShapeError
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
from eyesmith.eval.kinds.pairs import by_category, image_rows
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.metrics import check_finite

_BLOCK = 1024  # images whose wrong captions are in memory at a time


class Choice(Kind):
    """Records: categories [N], right [N] bool, num_captions [N] int32. An equal score counts as wrong."""

    name = "choice"
    arrays = ("categories", "right", "num_captions")
    main = "accuracy"
    counted = "items"

    def open(self, task: Task, place: Path, split: str) -> EvaluationSet:
        return open_caption_test(place)

    def size(self, found: EvaluationSet) -> int:
        return len(found.choices)

    def answer(self, asked: Asked) -> Answered:
        items, rows = asked.found.choices, image_rows(asked).double()
        answers = []
        for start in range(0, len(items), _BLOCK):
            part = items[start : start + _BLOCK]
            images = rows[torch.tensor([one.image for one in part])]  # [n, D]
            captions = asked.texts([text for one in part for text in (one.caption, *one.negatives)]).double()
            ends = np.cumsum([1 + len(one.negatives) for one in part])[:-1].tolist()
            own = torch.tensor_split(captions, ends)
            scores = [(texts @ image).float() for texts, image in zip(own, images, strict=True)]
            answers.append(right_is_best(torch.stack([one[0] for one in scores]), [one[1:] for one in scores]))
        return Answered(
            records={
                "categories": text_array([one.category for one in items]),
                "right": torch.cat(answers).numpy(),
                "num_captions": np.array([1 + len(one.negatives) for one in items], dtype=np.int32),
            }
        )

    def metrics(self, task: Task, records: Records) -> Metrics:
        return {"accuracy": share(torch.from_numpy(records["right"]))}

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        return {"accuracy": wilson(torch.from_numpy(records["right"]))}

    def chance(self, task: Task, records: Records) -> dict[str, float]:
        return {"accuracy": float((1 / records["num_captions"]).mean())}

    def parts(self, records: Records) -> dict[str, Records]:
        return by_category(records)

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        check_same(one, other, "categories")
        check_same(one, other, "num_captions")
        return PairedValues(name="accuracy", left=one["right"].astype(float), right=other["right"].astype(float))


def right_is_best(right: Tensor, wrong: Sequence[Tensor]) -> Tensor:
    """Whether the right caption scores higher than every wrong one, [N] bool.

    right: [N]; wrong: for each item the scores [M] of its wrong captions, M at least 1 and free. Chance: 1 / (1 + M).
    Source: ARO (arXiv 2210.01936), SugarCrepe (arXiv 2306.14610).
    """
    if right.ndim != 1 or len(right) != len(wrong) or any(one.ndim != 1 or not len(one) for one in wrong):
        raise ShapeError(f"negatives: expected scores [N] and N times [M], got {list(right.shape)} and {len(wrong)}")
    check_finite(right[:, None])
    for one in wrong:
        check_finite(one[None])
    return torch.tensor([bool((score > others).all()) for score, others in zip(right, wrong, strict=True)])
