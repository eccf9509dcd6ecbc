"""Retrieval: find the image of a text and a text of an image, in blocks that never hold the whole score matrix."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.features import ImageFeatures, encode_source
from eyesmith.eval.metrics import chance_of_hit, check_finite, clustered_interval, similarity
from eyesmith.eval.results import ResultRow
from eyesmith.eval.text_features import TextFeatures
from eyesmith.models.clip import Clip

Positives = Literal["own", "label"]


class Retrieval:
    """The retrieval task of one split: `run` in a training hook, `rows` for a result file.

    image_recall@k: share of all texts with a right image among the k nearest images. text_recall@k: share of the
    images that have texts with at least one right text among the k nearest texts (any hit, as CLIP_benchmark counts).
    positives "own" (the convention): right is a text's own image alone, even where another image has the same
    caption or shows the same thing. positives "label": right is every image of the same class.
    Equal scores rank by order in the source. k above the number of candidates gives no row. The intervals take texts
    of one image (with "label": queries of one class) as one cluster. Images without a text stay candidates.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str,
        positives: Positives = "own",
        top_k: Sequence[int] = (1, 5, 10),
        batch_size: int = 64,
        task: str = "retrieval",
    ) -> None:
        self.source, self.split, self.task = source, split, task
        self.positives: Positives = positives
        self.top_k = tuple(top_k)
        self.batch_size = batch_size
        if any(k < 1 for k in self.top_k):
            raise ConfigError(f"top_k: expected numbers from 1 on, got {self.top_k}")
        if positives not in ("own", "label"):
            raise ConfigError(f"positives: expected own or label, got {positives!r}")
        if positives == "label" and source.labels is None:
            raise DataError(f"{source.name}: retrieval with positives 'label' needs labels, this source has none")
        if not any(source.texts(index) for index in range(len(source))):
            raise DataError(f"{source.name}: retrieval needs captions, this source has none")
        self._texts: TextFeatures | None = None

    def run(self, clip: Clip) -> Iterator[tuple[str, float]]:
        """Yield ("split/image_recall@1", fraction) and so on."""
        if self._texts is None or not self._texts.is_current(clip):
            self._texts = TextFeatures(clip)
        for row in self.rows(clip, model_name="", texts=self._texts):
            yield f"{self.split}/{row.metric}", row.value

    def rows(
        self,
        clip: Clip,
        *,
        model_name: str,
        images: ImageFeatures | None = None,
        texts: TextFeatures | None = None,
    ) -> list[ResultRow]:
        """One row a direction and k. images, texts: features computed before, to share them between tasks."""
        images = images or encode_source(clip, self.source, batch_size=self.batch_size)
        captions = [(row, text) for row, i in enumerate(images.indices) for text in self.source.texts(i)]
        if not captions:
            raise DataError(f"{self.source.name}: no image that can be read has a caption")
        text_rows = (texts or TextFeatures(clip))([text for _, text in captions])  # [T, D]
        image_of_text = torch.tensor([row for row, _ in captions])  # [T]
        image_group = torch.arange(len(images.features))  # [N]
        if self.positives == "label":
            assert images.labels is not None  # checked in __init__
            image_group = images.labels
        text_group = image_group[image_of_text]
        asking = image_of_text.unique()  # images with texts
        ranks = {
            "image_recall": (first_hit_ranks(text_rows, images.features, text_group, image_group), text_group),
            "text_recall": (
                first_hit_ranks(images.features[asking], text_rows, image_group[asking], text_group),
                image_group[asking],
            ),
        }
        candidates = {"image_recall": image_group, "text_recall": text_group}
        rows = []
        for direction, (rank, group) in ranks.items():
            sizes = Counter(candidates[direction].tolist())
            for k in self.top_k:
                if k > len(candidates[direction]):
                    continue
                correct = rank < k
                low, high = clustered_interval(correct, group)
                rows.append(
                    ResultRow(
                        model=model_name or clip.config.name,
                        task=self.task,
                        split=self.split,
                        metric=f"{direction}@{k}",
                        value=int(correct.sum()) / len(correct),
                        low=low,
                        high=high,
                        n=len(correct),
                        chance=chance_of_hit(sizes.total(), [sizes[g] for g in group.tolist()], k),
                    )
                )
        return rows


def first_hit_ranks(
    queries: Tensor, candidates: Tensor, query_group: Tensor, candidate_group: Tensor, *, block: int = 2048
) -> Tensor:
    """How many candidates come before the first right one, for each query -> [Q] int64.

    queries: [Q, D], candidates: [N, D]; right are the candidates of the query's group (query_group [Q],
    candidate_group [N], int64). Equal scores rank by index. Memory: a few blocks of block x block scores.
    Raises ShapeError on wrong shapes, DataError for a query without any right candidate, EyesmithError for scores
    that are not finite.
    """
    if query_group.shape != queries.shape[:1] or candidate_group.shape != candidates.shape[:1]:
        raise ShapeError(
            f"retrieval: {list(queries.shape)} queries with {list(query_group.shape)} groups, "
            f"{list(candidates.shape)} candidates with {list(candidate_group.shape)} groups"
        )
    ranks = []
    for start in range(0, len(queries), block):
        rows, groups = queries[start : start + block], query_group[start : start + block]
        best = torch.full((len(rows),), -torch.inf)
        where = torch.full((len(rows),), -1)
        for first in range(0, len(candidates), block):
            scores = similarity(rows, candidates[first : first + block])  # [q, n]
            check_finite(scores)
            wrong = groups[:, None] != candidate_group[first : first + block]
            index = scores.masked_fill_(wrong, -torch.inf).argmax(1)  # the first among equals, which max leaves open
            value = scores.gather(1, index[:, None]).squeeze(1)
            better = value > best  # an equal one further on comes later
            best = torch.where(better, value, best)
            where = torch.where(better, index + first, where)
        if bool((where < 0).any()):
            raise DataError(f"query {start + int((where < 0).nonzero()[0])} has no right answer among the candidates")
        rank = torch.zeros(len(rows), dtype=torch.int64)
        for first in range(0, len(candidates), block):  # the same blocks again: equal bits, so ties stay ties
            scores = similarity(rows, candidates[first : first + block])
            earlier = torch.arange(first, first + scores.shape[1]) < where[:, None]
            rank += ((scores > best[:, None]) | ((scores == best[:, None]) & earlier)).sum(1)
        ranks.append(rank)
    return torch.cat(ranks) if ranks else torch.zeros(0, dtype=torch.int64)
