"""Retrieval: find the image of a text and a text of an image."""

from collections import Counter

import numpy as np
import torch
from torch import Tensor

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
    share,
    text_array,
)
from eyesmith.eval.sets.task import Task
from eyesmith.eval.statistics.bootstrap import Floats, mean
from eyesmith.eval.statistics.metrics import chance_of_hit, clustered_interval
from eyesmith.eval.statistics.pair_ranks import first_hit_ranks, pair_ranks

RECALL_AT = (1, 5, 10)
MEAN = "mean_recall@1"


class Retrieval(Kind):
    """image_retrieval_recall@k: share of texts with a right image among the k nearest; text_retrieval_recall@k: share
    of the images that have texts with a right text among the k nearest (any hit, as CLIP_benchmark counts).

    Right is a text's own image alone, even where another has the same caption; of `by_label` every image of the class.
    Intervals take the texts of one image (by label: of one class) as one cluster. Records: keys [N];
    image_retrieval_ranks [T] and text_retrieval_ranks [M] int32, how many wrong candidates came before the first right
    one (equal scores: the first); image_of_text [T]; of `by_label`, or where images have no text: asking [M], the rows
    of the M images that have texts, and label [N].
    """

    name = "retrieval"
    arrays = ("keys", "image_retrieval_ranks", "text_retrieval_ranks", "image_of_text")
    main = MEAN
    half_images = True

    def __init__(self, *, by_label: bool = False) -> None:
        self._by_label = by_label

    def answer(self, asked: Asked) -> Answered:
        found, images = asked.found, asked.images
        captions = [(row, text) for row, index in enumerate(images.indices) for text in found.captions(index)]
        if not captions:
            raise DataError(f"{found.name}: no image that can be read has a caption")
        image_of_text = torch.tensor([row for row, _ in captions])
        asking = image_of_text.unique()
        bare = len(images.features) - len(asking)
        if bare and asked.task.is_published:
            raise DataError(f"{found.name}: {bare} images have no caption; `eyesmith data check` lists them")
        rows = asked.texts.captions([text for _, text in captions])
        records: Records = {"keys": text_array(images.keys), "image_of_text": image_of_text.int().numpy()}
        if not self._by_label and not bare:
            for_text, for_image = pair_ranks(images.features, rows, image_of_text, device=asked.device)
        else:
            label = images.labels if self._by_label else torch.arange(len(images.features))
            assert label is not None  # the set was chosen for its labels
            of_text = label[image_of_text]
            for_text = first_hit_ranks(rows, images.features, of_text, label, device=asked.device)
            asking_rows, own = images.features[asking], label[asking]
            for_image = first_hit_ranks(asking_rows, rows, own, of_text, device=asked.device)
            records |= {"asking": asking.int().numpy(), "label": label.int().numpy()}
        ranks = {"image_retrieval_ranks": for_text.int().numpy(), "text_retrieval_ranks": for_image.int().numpy()}
        return Answered(records=records | ranks)

    def metrics(self, task: Task, records: Records) -> Metrics:
        found: Metrics = {}
        for way, ranks in _ways(records).items():
            found |= {f"{way}_recall@{k}": share(ranks < k) for k in RECALL_AT}
        first, second = found["image_retrieval_recall@1"], found["text_retrieval_recall@1"]
        assert first is not None
        assert second is not None
        return found | {MEAN: (first + second) / 2}

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        found: dict[str, Span] = {}
        clusters, candidates = _groups(records), _candidates(records)
        for way, ranks in _ways(records).items():
            for k in RECALL_AT:
                if k <= len(candidates[way]):  # beyond, nothing is asked
                    hits = ranks < k
                    found[f"{way}_recall@{k}"] = (*clustered_interval(hits, clusters[way]), len(hits))
        if not task.lines or MEAN in task.lines:
            found[MEAN] = resampled_span(torch.from_numpy(_by_image(records)), mean)
        return found

    def chance(self, task: Task, records: Records) -> dict[str, float]:
        found = {}
        groups = _groups(records)
        for way, candidates in _candidates(records).items():
            sizes = Counter(candidates.tolist())
            positives = [sizes[group] for group in groups[way].tolist()]
            for k in RECALL_AT:
                if k <= len(candidates):
                    found[f"{way}_recall@{k}"] = chance_of_hit(len(candidates), positives, k)
        return found | {MEAN: (found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]) / 2}

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues | None:
        for name in ("keys", "image_of_text", "label"):
            check_same(one, other, name)
        return PairedValues(name=MEAN, left=_by_image(one), right=_by_image(other), note="samples are images")


def _ways(records: Records) -> dict[str, Tensor]:
    return {way: torch.from_numpy(records[f"{way}_ranks"]) for way in ("image_retrieval", "text_retrieval")}


def _label(records: Records) -> Tensor:
    return torch.from_numpy(records.get("label", np.arange(len(records["keys"])))).long()


def _asking(records: Records) -> Tensor:
    return torch.from_numpy(records.get("asking", np.arange(len(records["keys"])))).long()


def _groups(records: Records) -> dict[str, Tensor]:
    """The group of each query, by way: its class, or the image itself."""
    label, owner = _label(records), torch.from_numpy(records["image_of_text"]).long()
    return {"image_retrieval": label[owner], "text_retrieval": label[_asking(records)]}


def _candidates(records: Records) -> dict[str, Tensor]:
    """The group of each candidate, by way."""
    label, owner = _label(records), torch.from_numpy(records["image_of_text"]).long()
    return {"image_retrieval": label, "text_retrieval": label[owner]}


def _by_image(records: Records) -> Floats:
    """A value an image, whose mean is the mean of the two R@1: an image is one draw together with its captions."""
    texts, images = records["image_retrieval_ranks"], records["text_retrieval_ranks"]
    asking = _asking(records).numpy()
    place = np.zeros(len(records["keys"]), dtype=np.int64)
    place[asking] = np.arange(len(asking))
    hits = np.bincount(place[records["image_of_text"]], weights=texts < 1, minlength=len(images))
    return (hits * (len(images) / len(texts)) + (images < 1)) / 2
