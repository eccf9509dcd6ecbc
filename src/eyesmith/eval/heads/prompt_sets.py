"""Sets of prompts compared on the same images, paired: is one really better, or was it luck?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.statistics import Interval, Paired, compare_paired, holm
from eyesmith.eval.statistics.metrics import similarity, target_ranks, wilson_interval


@dataclass(frozen=True, kw_only=True)
class PromptSetResult:
    """accuracy: top-1 with Wilson's interval. against_first: this set minus the first one, paired; p_holm: its p-value
    adjusted for all sets tried; None for the first set itself."""

    name: str
    accuracy: Interval
    against_first: Paired | None
    p_holm: float | None


def compare_prompt_sets(
    images: ImageFeatures,
    texts: TextFeatures,
    names: Sequence[str],
    prompt_sets: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    device: torch.device | None = None,
) -> list[PromptSetResult]:
    """Zero-shot top-1 of each prompt set on the same labelled images, each against the first.

    names: the classes, by label. prompt_sets: templates by name, at least two sets. device: see `similarity`. Choose
    prompts on images that are not those of the reported number: the best of many sets is too good on the images it was
    chosen on.
    """
    if len(prompt_sets) < 2:
        raise ConfigError(f"prompt_sets: expected at least two to compare, got {len(prompt_sets)}")
    if images.labels is None:
        raise DataError("prompt sets are compared by accuracy, which needs labelled images")
    hits = {name: _hits(images, texts, names, prompts, device) for name, prompts in prompt_sets.items()}
    first = next(iter(hits))
    paired = {name: compare_paired(hits[first], one, seed=seed) for name, one in hits.items() if name != first}
    adjusted = dict(zip(paired, holm([one.p for one in paired.values()]), strict=True))
    return [
        PromptSetResult(
            name=name,
            accuracy=Interval(float(one.mean()), *wilson_interval(float(one.sum()), len(one))),
            against_first=paired.get(name),
            p_holm=adjusted.get(name),
        )
        for name, one in hits.items()
    ]


def _hits(
    images: ImageFeatures,
    texts: TextFeatures,
    names: Sequence[str],
    prompts: Sequence[str],
    device: torch.device | None,
) -> Tensor:
    assert images.labels is not None
    scores = similarity(images.features, texts.class_weights(names, prompts), device=device)  # [N, K]
    return (target_ranks(scores, images.labels) == 0).double()
