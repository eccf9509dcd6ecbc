"""WinoGAViL: which of a few pictures fit a cue. Source: DataComp's evaluation (Jaccard index of the chosen set)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from eyesmith.data.evaluation.evaluation_set import Instance
from eyesmith.eval.metrics import similarity, top_candidates

MAIN = "jaccard_score_10-12"


def cue_prompt(cue: str) -> str:
    """The one sentence of a cue: lower case, with its article."""
    text = cue.lower()
    return f"{'An' if text[:1] in tuple('aeiou') else 'A'} {text}"


def jaccard_scores(images: Tensor, cues: Tensor, instances: Sequence[Instance], *, half: torch.dtype | None) -> Tensor:
    """The Jaccard index |chosen and gold| / |chosen or gold| of each instance, [I] fp64.

    images: [N, D] unit rows; cues: [I, D] unit rows. Chosen are as many candidates as are gold, the nearest to the
    cue; of equal ones the first (the reference leaves that open). half: similarities are rounded to this format first.
    """
    scores = []
    for row, instance in enumerate(instances):
        close = similarity(cues[row : row + 1], images[torch.tensor(instance.candidates)])  # [1, n]
        if half is not None:
            close = close.to(half).float()
        gold = {place for place, is_gold in enumerate(instance.gold) if is_gold}
        chosen = set(top_candidates(close, len(gold))[1][0].tolist())
        scores.append(len(chosen & gold) / len(chosen | gold) if gold else 0.0)
    return torch.tensor(scores, dtype=torch.float64)


def association_metrics(scores: Tensor, sizes: Sequence[int]) -> dict[str, float | None]:
    """Means over all instances, and over those with 5, 6, 10, 12, at most 6 and at least 10 candidates.

    None where there is no such instance.
    """
    size = torch.tensor(sizes)
    parts = {"avg_jaccard_score": size > 0}
    parts |= {f"jaccard_score_{count}": size == count for count in (5, 6, 10, 12)}
    parts |= {"jaccard_score_5-6": size <= 6, MAIN: size >= 10}
    return {name: float(scores[part].mean()) if bool(part.any()) else None for name, part in parts.items()}
