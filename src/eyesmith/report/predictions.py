"""What a loaded model says about held-out pictures: examples, styles, confusions, text search.

Every choice of what to show is a rule without chance, so the same run and data give the same page.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source, split_names
from eyesmith.eval.features.images import ImageFeatures, encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.kinds.measurement import Measurement
from eyesmith.eval.sets.made import WHOLE, choose_splits, split_tasks
from eyesmith.eval.statistics.metrics import similarity, target_ranks, top_candidates, wilson_interval
from eyesmith.models.clip import Clip
from eyesmith.report.content import (
    Confusion,
    Example,
    ExampleGroup,
    Gallery,
    Guess,
    Hit,
    Interval,
    Picture,
    Search,
    StyleScore,
)
from eyesmith.report.thumbnails import thumbnail

NUM_EXAMPLES = 24
NUM_HITS = 8
NUM_CONFUSIONS = 8
NUM_GUESSES = 5


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Zero-shot scores of one split; N rows, row i is the sample `indices[i]` of `source`.

    images: the features behind them; names: the K candidates; targets: [N] int64, the right one;
    probabilities: [N, K] fp32, softmax of the scores at the model's own temperature; ranks: [N] int64, 0 where the
    first guess is right.
    """

    split: str
    source: Source
    images: ImageFeatures
    names: tuple[str, ...]
    targets: Tensor
    probabilities: Tensor
    ranks: Tensor

    @property
    def indices(self) -> tuple[int, ...]:
        """The position in `source` of each row."""
        return self.images.indices


def predict(clip: Clip, data: str | os.PathLike[str], split: str | None) -> Predictions | None:
    """Zero-shot predictions of `clip` on one split, as `eyesmith eval` makes them; None for data without labels."""
    task = next((task for task in split_tasks(data, split).tasks if task.key == "zero_shot"), None)
    if task is None:
        return None
    images = encode_source(clip, task.source)
    found = task.worded(clip)
    scores = similarity(images.features, TextFeatures(clip).class_weights(found.classes, found.templates))
    return from_scores(task, images, scores, scale=float(clip.logit_scale.detach().float().exp()))


def from_scores(task: Measurement, images: ImageFeatures, scores: Tensor, *, scale: float) -> Predictions:
    """Predictions from the cosines [N, K] of a zero-shot task; scale: the inverse temperature."""
    assert task.found.labels is not None  # it is a classification
    targets = torch.from_numpy(task.found.labels)[list(images.indices)]
    return Predictions(
        split=task.split,
        source=task.source,
        images=images,
        names=task.found.classes,
        targets=targets,
        probabilities=(scale * scores).softmax(1),
        ranks=target_ranks(scores, targets),
    )


def gallery(predictions: Predictions, *, num: int = NUM_EXAMPLES) -> Gallery:
    """`num` pictures in the split's own proportion of right, nearly right and missed; every k-th by key within each."""
    order = sorted(range(len(predictions.indices)), key=lambda row: predictions.source.keys[predictions.indices[row]])
    ranks = predictions.ranks.tolist()
    rows = {
        "first": [row for row in order if ranks[row] == 0],
        "top5": [row for row in order if 0 < ranks[row] < NUM_GUESSES],
        "missed": [row for row in order if ranks[row] >= NUM_GUESSES],
    }
    places = apportion([len(members) for members in rows.values()], num)
    groups: list[ExampleGroup] = []
    for (outcome, members), share in zip(rows.items(), places, strict=True):
        chosen = [members[(2 * place + 1) * len(members) // (2 * share)] for place in range(share)]
        examples = tuple(_example(predictions, row) for row in chosen)
        groups.append(ExampleGroup(outcome=outcome, total=len(members), examples=examples))  # type: ignore[arg-type]
    return Gallery(split=predictions.split, num_classes=len(predictions.names), groups=tuple(groups))


def apportion(sizes: Sequence[int], places: int) -> list[int]:
    """Share `places` out in proportion to `sizes` by largest remainders; nobody gets more places than its size."""
    total = sum(sizes)
    if total <= places:
        return list(sizes)
    shares = [size * places // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (-(sizes[index] * places % total), index))
    for index in by_remainder[: places - sum(shares)]:
        shares[index] += 1
    return shares


def _example(predictions: Predictions, row: int) -> Example:
    sample = predictions.source[predictions.indices[row]]
    target = int(predictions.targets[row])
    values, indices = top_candidates(predictions.probabilities[row : row + 1], NUM_GUESSES)
    guesses = tuple(
        Guess(name=predictions.names[index], probability=value, is_true=index == target)
        for value, index in zip(values[0].tolist(), indices[0].tolist(), strict=True)
    )
    return Example(
        picture=thumbnail(sample.image), truth=predictions.names[target], style=_style(sample.meta), guesses=guesses
    )


def _style(meta: dict[str, object]) -> str:
    style = meta.get("style", "")
    return style if isinstance(style, str) else ""


def styles(ours: Predictions, baseline: Predictions | None) -> tuple[StyleScore, ...]:
    """Top-1 of each style of a split, by name; nothing when the samples name no style."""
    ours_by_style = _hits_by_style(ours)
    baseline_by_style = _hits_by_style(baseline) if baseline is not None else {}
    return tuple(
        StyleScore(
            style=style,
            num_samples=len(hits),
            ours=_share(hits),
            baseline=_share(baseline_by_style[style]) if style in baseline_by_style else None,
        )
        for style, hits in sorted(ours_by_style.items())
    )


def _hits_by_style(predictions: Predictions) -> dict[str, list[bool]]:
    hits: dict[str, list[bool]] = defaultdict(list)
    for index, rank in zip(predictions.indices, predictions.ranks.tolist(), strict=True):
        style = _style(predictions.source[index].meta)
        if style:
            hits[style].append(rank == 0)
    return hits


def _share(hits: Sequence[bool]) -> Interval:
    low, high = wilson_interval(sum(hits), len(hits))
    return Interval(value=sum(hits) / len(hits), low=low, high=high)


def confusions(
    predictions: Predictions, data: str | os.PathLike[str], *, num: int = NUM_CONFUSIONS
) -> tuple[tuple[Confusion, ...], int]:
    """The worst wrong (truth, guess) pairs and how many different ones there are.

    Worst: most frequent first, then by how much more probable the guess was than the truth.
    """
    guesses = predictions.probabilities.argmax(1)
    wrong = [row for row, rank in enumerate(predictions.ranks.tolist()) if rank > 0]
    pairs = [(int(predictions.targets[row]), int(guesses[row])) for row in wrong]
    counts = Counter(pairs)
    worst: dict[tuple[int, int], tuple[float, int]] = {}
    for row, pair in zip(wrong, pairs, strict=True):
        margin = float(predictions.probabilities[row, pair[1]] - predictions.probabilities[row, pair[0]])
        worst[pair] = max(worst.get(pair, (-1.0, -1)), (margin, -row))  # equal margins: the first sample
    ordered = sorted(worst, key=lambda pair: (-counts[pair], -worst[pair][0], pair))[:num]
    chosen: list[Confusion] = []
    for target, guess in ordered:
        row = -worst[target, guess][1]
        sample = predictions.source[predictions.indices[row]]
        chosen.append(
            Confusion(
                truth=predictions.names[target],
                guess=predictions.names[guess],
                count=counts[target, guess],
                guess_probability=float(predictions.probabilities[row, guess]),
                truth_probability=float(predictions.probabilities[row, target]),
                picture=thumbnail(sample.image),
                guess_picture=_picture_of(guess, _style(sample.meta), predictions, data),
            )
        )
    return tuple(chosen), len(worst)


def _picture_of(candidate: int, style: str, predictions: Predictions, data: str | os.PathLike[str]) -> Picture | None:
    """A picture of a candidate: from the split itself, else from training; in the wanted style where there is one."""
    rows = [
        index
        for index, target in zip(predictions.indices, predictions.targets.tolist(), strict=True)
        if target == candidate
    ]
    source: Source = predictions.source
    if not rows and "train" in split_names(data):
        source = open_source(data, split="train", require_text=False)
        name, classes, labels = predictions.names[candidate], source.classes, source.labels
        if classes is not None and labels is not None:
            rows = [index for index, label in enumerate(labels) if classes[label] == name]
    if not rows:
        return None
    same_style = [index for index in rows if _style(source[index].meta) == style]
    return thumbnail(source.image_bytes((same_style or rows)[0]))


def search(
    clip: Clip,
    data: str | os.PathLike[str],
    queries: Sequence[str],
    *,
    known: Predictions | None = None,
    num: int = NUM_HITS,
) -> tuple[tuple[Search, ...], list[str], int]:
    """The nearest pictures of all held-out splits for each query; the names of those splits and the number of pictures.

    Equal scores rank by the order of the splits and samples. known: predictions whose image features need not be
    computed again.
    """
    splits = choose_splits(data)
    pool: list[tuple[Source, int]] = []
    parts: list[Tensor] = []
    for split in splits:
        source = open_source(data, split=split, require_text=False)
        is_known = known is not None and known.split == (split or WHOLE)
        images = known.images if known is not None and is_known else encode_source(clip, source)
        pool += [(source, index) for index in images.indices]
        parts.append(images.features)
    scores = similarity(TextFeatures(clip)(list(queries)), torch.cat(parts))  # [Q, N]
    values, indices = top_candidates(scores, num)
    class_names = {name.lower() for source, _ in pool[:1] for name in source.classes or ()}
    found: list[Search] = []
    for query, cosines, places in zip(queries, values.tolist(), indices.tolist(), strict=True):
        hits = tuple(_hit(pool[place], cosine) for place, cosine in zip(places, cosines, strict=True))
        found.append(Search(query=query, is_class_name=query.lower() in class_names, hits=hits))
    return tuple(found), [split for split in splits if split is not None], len(pool)


def _hit(place: tuple[Source, int], cosine: float) -> Hit:
    source, index = place
    classes, labels = source.classes, source.labels
    texts = source.texts(index)
    name = classes[labels[index]] if classes is not None and labels is not None else texts[0] if texts else ""
    return Hit(picture=thumbnail(source.image_bytes(index)), name=name, cosine=cosine)
