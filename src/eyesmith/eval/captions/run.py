"""Caption tests of a model: does it know who does what to whom, or only which words there are?"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from eyesmith.errors import DataError
from eyesmith.eval.captions.answers import PAIR_CHANCE, negative_answers, pair_answers
from eyesmith.eval.captions.reading import caption_test_kind, image_source, read_negatives, read_pairs
from eyesmith.eval.feature_store import FeatureStore
from eyesmith.eval.metrics import wilson_interval
from eyesmith.eval.results import ResultRow
from eyesmith.eval.text_features import TextFeatures
from eyesmith.models.clip import Clip


def evaluate_captions(
    clip: Clip,
    path: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    store: FeatureStore | None = None,
    texts: TextFeatures | None = None,
) -> list[ResultRow]:
    """Result rows of whichever caption test `path` holds: of all items, then of each category (the row's split).

    pairs: text_score, image_score and group_score. negatives: accuracy. Scores are cosines: scale and bias of a model
    change no order. Equal scores count as wrong. Intervals are Wilson's. store, texts: to share features.
    Raises DataError when the path holds no such test, or an image cannot be read.
    """
    kind = caption_test_kind(path)
    if kind is None:
        raise DataError(
            f"{path}: no caption test; expected pairs.jsonl or negatives.jsonl (see docs/compare-models.md)"
        )
    name, store, texts = model_name or clip.config.name, store or FeatureStore(clip), texts or TextFeatures(clip)
    where = Path(path).name
    if kind == "pairs":
        items = read_pairs(path)
        images = _features(store, [image for one in items for image in one.images], where).view(len(items), 2, -1)
        captions = texts([caption for one in items for caption in one.captions]).view(len(items), 2, -1)
        # fp64, rounded once: equal captions then have equal scores
        scores = (captions.double() @ images.double().mT).float()  # [N, 2 captions, 2 images]
        answers = {f"{metric}_score": right for metric, right in pair_answers(scores).items()}
        chances = {f"{metric}_score": torch.full((len(items),), chance) for metric, chance in PAIR_CHANCE.items()}
        return _rows(answers, chances, [one.category for one in items], model=name, task="pairs")
    items = read_negatives(path)
    images = _features(store, [one.image for one in items], where).double()  # [N, D]
    right = (images * texts([one.caption for one in items]).double()).sum(1).float()  # [N]
    wrong = [(texts(one.negatives).double() @ image).float() for one, image in zip(items, images, strict=True)]
    chances = torch.tensor([1 / (1 + len(one.negatives)) for one in items])
    categories = [one.category for one in items]
    answer = {"accuracy": negative_answers(right, wrong)}
    return _rows(answer, {"accuracy": chances}, categories, model=name, task="negatives")


def _features(store: FeatureStore, images: Sequence[Path], name: str) -> Tensor:
    source, place = image_source(images, name=name)
    found = store(source)
    if found.broken:
        raise DataError(f"{name}: {found.broken[0].reason}; a caption test needs all of its images")
    return found.features[torch.tensor([place[image] for image in images])]


def _rows(
    answers: Mapping[str, Tensor], chances: Mapping[str, Tensor], categories: Sequence[str], *, model: str, task: str
) -> list[ResultRow]:
    known = sorted(set(categories) - {""})
    parts = [("all", torch.ones(len(categories), dtype=torch.bool))]
    parts += [(one, torch.tensor([category == one for category in categories])) for one in known if len(known) > 1]
    rows = []
    for split, part in parts:
        for metric, right in answers.items():
            hits, n = int(right[part].sum()), int(part.sum())
            low, high = wilson_interval(hits, n)
            chance = float(chances[metric][part].double().mean())
            rows.append(
                ResultRow(
                    model=model,
                    task=task,
                    split=split,
                    metric=metric,
                    value=hits / n,
                    low=low,
                    high=high,
                    n=n,
                    chance=chance,
                )
            )
    return rows
