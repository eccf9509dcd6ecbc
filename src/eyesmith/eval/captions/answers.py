"""Which items of a caption test are right, from scores. An equal score is no answer: it counts as wrong."""

from collections.abc import Sequence

import torch
from torch import Tensor

from eyesmith.errors import ShapeError
from eyesmith.eval.metrics import check_finite

PAIR_CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
"""Of scores drawn at random, all orders alike."""


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
    return {"text": text, "image": image, "group": text & image}


def negative_answers(right: Tensor, wrong: Sequence[Tensor]) -> Tensor:
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
