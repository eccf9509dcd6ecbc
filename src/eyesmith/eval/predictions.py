"""What a model says of single images: the best classes with probabilities, and which classes it takes for which."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from eyesmith.eval.features import ImageFeatures
from eyesmith.eval.metrics import target_ranks, top_candidates
from eyesmith.eval.text_features import TextFeatures
from eyesmith.eval.zero_shot import ZeroShot
from eyesmith.models.clip import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The best candidates of one image.

    index, key: the image in its source; truth: its class; rank: how many candidates came before the truth (0: right);
    names, probabilities: the best candidates, best first, with the softmax over all candidates at the model's own
    temperature.
    """

    index: int
    key: str
    truth: str
    rank: int
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Images of class `truth` that were taken for `guess`: how many, and the share of all images of that class."""

    truth: str
    guess: str
    count: int
    share: float


def predictions(
    clip: Clip,
    task: ZeroShot,
    *,
    top_k: int = 5,
    images: ImageFeatures | None = None,
    texts: TextFeatures | None = None,
) -> list[Prediction]:
    """The top_k candidates of every readable image of a zero-shot task, in source order."""
    images, scores = task.scores(clip, images=images, texts=texts)
    targets = task.targets(images)
    ranks = target_ranks(scores, targets).tolist()
    _, best = top_candidates(scores, top_k)  # [N, k]
    probabilities = (scores * clip.logit_scale.detach().float().exp().cpu()).softmax(1).gather(1, best)  # [N, k]
    return [
        Prediction(
            index=index,
            key=key,
            truth=task.names[target],
            rank=rank,
            names=tuple(task.names[i] for i in row),
            probabilities=tuple(values),
        )
        for index, key, target, rank, row, values in zip(
            images.indices, images.keys, targets.tolist(), ranks, best.tolist(), probabilities.tolist(), strict=True
        )
    ]


def confusions(found: Iterable[Prediction]) -> list[Confusion]:
    """Pairs of classes that were mistaken, the most frequent first (equal counts: by share, then by name)."""
    found = list(found)
    total = Counter(one.truth for one in found)
    pairs = Counter((one.truth, one.names[0]) for one in found if one.rank)
    mistakes = [Confusion(truth, guess, count, count / total[truth]) for (truth, guess), count in pairs.items()]
    return sorted(mistakes, key=lambda one: (-one.count, -one.share, one.truth, one.guess))
