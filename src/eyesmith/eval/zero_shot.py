"""Zero-shot classification: the class whose prompts lie nearest to the image."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features import ImageFeatures, encode_source
from eyesmith.eval.metrics import similarity, target_ranks, wilson_interval
from eyesmith.eval.results import ResultRow
from eyesmith.eval.text_features import TextFeatures
from eyesmith.models.clip import Clip


class ZeroShot:
    """The zero-shot task of one split: `run` in a training hook, `rows` for a result file.

    source: labelled images. names: the candidate classes, all classes of the source when None. prompts: templates with
    a place for the name, the model's own when None. top_k: the metrics; k above the number of candidates gives none.
    A k-th place is shared by nobody: equal scores rank by candidate order. Intervals are Wilson's over images, for
    these classes; chance is k / candidates.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str,
        names: Sequence[str] | None = None,
        prompts: Sequence[str] | None = None,
        top_k: Sequence[int] = (1, 5),
        batch_size: int = 64,
        task: str = "zero_shot",
    ) -> None:
        self.source, self.split, self.task = source, split, task
        self.prompts = None if prompts is None else tuple(prompts)
        self.top_k = tuple(top_k)
        self.batch_size = batch_size
        if any(k < 1 for k in self.top_k):
            raise ConfigError(f"top_k: expected numbers from 1 on, got {self.top_k}")
        classes = source.classes
        if classes is None or source.labels is None:
            raise DataError(f"{source.name}: zero-shot classification needs labelled images, this source has no labels")
        self.names = classes if names is None else tuple(names)
        self._candidate_of = candidate_map(source.name, classes, self.names)
        self._texts: TextFeatures | None = None

    def run(self, clip: Clip) -> Iterator[tuple[str, float]]:
        """Yield ("split/top1", fraction) and so on; text features are kept from call to call while they hold."""
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
        """One row a metric. images, texts: features computed before, to share them between tasks."""
        images, scores = self.scores(clip, images=images, texts=texts)
        ranks = target_ranks(scores, self.targets(images))  # [N]
        rows = []
        for k in self.top_k:
            if k > len(self.names):
                continue
            hits = int((ranks < k).sum())
            low, high = wilson_interval(hits, len(ranks))
            rows.append(
                ResultRow(
                    model=model_name or clip.config.name,
                    task=self.task,
                    split=self.split,
                    metric=f"top{k}",
                    value=hits / len(ranks),
                    low=low,
                    high=high,
                    n=len(ranks),
                    chance=k / len(self.names),
                )
            )
        return rows

    def scores(
        self, clip: Clip, *, images: ImageFeatures | None = None, texts: TextFeatures | None = None
    ) -> tuple[ImageFeatures, Tensor]:
        """The image features and the cosine of each image with each candidate, [N, K] fp32."""
        images = images or encode_source(clip, self.source, batch_size=self.batch_size)
        weights = (texts or TextFeatures(clip)).class_weights(self.names, self.prompts or clip.prompts)
        return images, similarity(images.features, weights)

    def targets(self, images: ImageFeatures) -> Tensor:
        """The right candidate of each image, [N] int64. DataError for an image of a class that is no candidate."""
        assert images.labels is not None  # the source has labels, see __init__
        targets = torch.tensor([self._candidate_of.get(label, -1) for label in images.labels.tolist()])
        if bool((targets < 0).any()):
            row = int((targets < 0).nonzero()[0])
            classes = self.source.classes
            assert classes is not None
            raise DataError(
                f"{self.source.name}: image {images.keys[row]} is of class {classes[int(images.labels[row])]!r}, which "
                f"is not among the {len(self.names)} candidates of split {self.split!r}"
            )
        return targets


def candidate_map(source_name: str, classes: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Class index -> candidate index, by position when `names` are the classes, else by name.

    Equal names among the classes are allowed in the first case only (ImageNet has two "missile"); else DataError.
    """
    if tuple(names) == tuple(classes):
        return {index: index for index in range(len(classes))}
    place = {name: index for index, name in enumerate(names)}
    if len(place) != len(names):
        twice = next(name for index, name in enumerate(names) if place[name] != index)
        raise DataError(f"{source_name}: candidate {twice!r} is listed twice, so it is unclear which one is right")
    known = set(classes)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{source_name}: candidate {unknown[0]!r} is no class of the data set ({len(classes)} classes)")
    return {index: place[name] for index, name in enumerate(classes) if name in place}
