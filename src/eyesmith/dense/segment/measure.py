"""How well pictures were cut into named segments: panoptic quality and mIoU, of parts of the classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import Annotations
from eyesmith.dense.segment.picture_segmenter import Segmented
from eyesmith.eval import ResultRow

TASK = "segment"
AGNOSTIC = "agnostic"  # the quality of outlines, whatever they are called
GROUND, VOID = -1, -2  # pixels of no segment; pixels of which nobody knows


class Tally:
    """What pictures add up to, class by class; a picture is looked at once and forgotten.

    A predicted and a true segment of one class match above an overlap of a half, the prediction's void taken out of
    the union. A prediction that is mostly void, or mostly a crowd of its class, is no mistake; a crowd is never missed.
    Source: Panoptic Segmentation (arXiv 1801.00868), with the rules of COCO.
    """

    def __init__(self, num_classes: int) -> None:
        self.overlap = np.zeros(num_classes)  # of matches, added up
        self.matched, self.wrong, self.missed = (np.zeros(num_classes, np.int64) for _ in range(3))
        self.confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)  # pixels, [true, said], ground first

    def quality(self) -> NDArray[np.float64]:
        """Panoptic quality of each class, [K]; nan where it is neither there nor said to be."""
        count = self.matched + (self.wrong + self.missed) / 2
        return np.divide(self.overlap, count, out=np.full(len(count), np.nan), where=count > 0)

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class, [K]; nan where no pixel is of it."""
        true, said, both = self.confusion.sum(1)[1:], self.confusion.sum(0)[1:], np.diag(self.confusion)[1:]
        union = true + said - both
        return np.divide(both, union, out=np.full(len(both), np.nan), where=true > 0)

    def add_panoptic(
        self,
        said: NDArray[np.integer],
        said_labels: Sequence[int],
        true: NDArray[np.integer],
        true_labels: Sequence[int],
        crowd: Sequence[bool],
    ) -> None:
        """One picture. said: of each pixel the place of its segment, [H, W], or GROUND; true: also VOID where nobody
        knows; labels: the class of each segment.
        """
        num_said, num_true = len(said_labels), len(true_labels)
        width = num_true + 2
        pairs = (said.astype(np.int64) + 1) * width + true + 2
        table = np.bincount(pairs.ravel(), minlength=(num_said + 1) * width).reshape(num_said + 1, width)
        void, inner = table[1:, 0], table[1:, 2:]  # [said], [said, true]
        said_area, true_area = table[1:].sum(1), table[:, 2:].sum(0)
        is_crowd = np.asarray(crowd, np.bool_).reshape(num_true)
        labels, truths = (np.asarray(one, np.int64) for one in (said_labels, true_labels))
        union = said_area[:, None] + true_area[None] - inner - void[:, None]
        overlap = np.divide(inner, union, out=np.zeros(inner.shape), where=union > 0)
        is_same = labels[:, None] == truths[None]
        is_match = (overlap > 0.5) & is_same & ~is_crowd[None]
        rows, columns = is_match.nonzero()
        np.add.at(self.overlap, truths[columns], overlap[rows, columns])
        np.add.at(self.matched, truths[columns], 1)
        np.add.at(self.missed, truths[~is_match.any(0) & ~is_crowd & (true_area > 0)], 1)
        excused = void + (inner * (is_crowd[None] & is_same)).sum(1)
        is_excused = excused > 0.5 * said_area
        np.add.at(self.wrong, labels[~is_match.any(1) & ~is_excused & (said_area > 0)], 1)

    def add_semantic(self, said: NDArray[np.integer], true: NDArray[np.integer]) -> None:
        """One picture. said: the class of each pixel, [H, W], or GROUND; true: also VOID, which does not count."""
        count = len(self.confusion)
        is_known = true != VOID
        pairs = (true[is_known].astype(np.int64) + 1) * count + said[is_known] + 1
        self.confusion += np.bincount(pairs, minlength=count * count).reshape(count, count)


class Measured:
    """Tallies by source, filled picture by picture.

    Where every pixel has a class or is void, mIoU is of the map of the likeliest class everywhere. Where only things
    are marked, what is between them is ground: segments there are wrong, and mIoU is of the segments, ground being a
    class that is not in the mean.
    """

    def __init__(self, data: Annotations, sources: Sequence[str], seen: NDArray[np.bool_]) -> None:
        """seen: bool [K], the base classes."""
        self.data, self.seen, self.count = data, seen, 0
        self.tallies = {source: Tally(len(data.categories)) for source in sources}
        self.outlines = {source: Tally(1) for source in sources}

    def add(self, picture: int, found: Mapping[str, Segmented]) -> None:
        """One picture by its place in the set, and what each source found in it."""
        objects, segments = self.data.objects(picture), self.data.segments(picture).astype(np.int64)
        void = self.data.void(picture)
        if self.data.kind != "instances":
            void = segments < 0 if void is None else void | (segments < 0)
        true = segments if void is None else np.where(void, VOID, segments)
        labels, crowd = objects.labels, objects.crowd.tolist()
        classes = np.concatenate([labels, [VOID, GROUND]])[true]  # -2 and -1 are the last two
        classes[np.isin(true, np.flatnonzero(objects.crowd))] = VOID
        self.count += 1
        for source, one in found.items():
            said = one.panoptic.ids.cpu().numpy() - 1
            said_labels = [segment.label for segment in one.panoptic.segments]
            self.tallies[source].add_panoptic(said, said_labels, true, labels.tolist(), crowd)
            self.outlines[source].add_panoptic(said, [0] * len(said_labels), true, [0] * len(labels), crowd)
            if self.data.kind == "instances":
                likely = np.array([*said_labels, GROUND])[said]
            else:
                likely = one.semantic().cpu().numpy()
            self.tallies[source].add_semantic(likely, classes)

    def rows(self, model: str, prefix: str = "") -> list[ResultRow]:
        """Of base, novel and all classes by source, and the quality of outlines alone."""
        rows: list[ResultRow] = []
        for source, tally in self.tallies.items():
            parts = {"base": self.seen, "novel": ~self.seen, "all": self.seen | True}
            for metric, values in (("pq", tally.quality()), ("miou", tally.iou())):
                for split, which in parts.items():
                    rows += self._row(f"{model} {source}", prefix + split, metric, values[which])
            rows += self._row(f"{model} {source}", prefix + AGNOSTIC, "pq", self.outlines[source].quality())
        return rows

    def _row(self, model: str, split: str, metric: str, values: NDArray[np.float64]) -> list[ResultRow]:
        there = values[~np.isnan(values)]
        if not len(there):
            return []
        return [
            ResultRow(
                model=model,
                task=TASK,
                split=split,
                metric=metric,
                value=float(there.mean()),
                low=None,
                high=None,
                n=self.count,
                chance=None,
            )
        ]
