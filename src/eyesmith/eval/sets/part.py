"""Some images of a set, to try things out: spread evenly over its classes."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.part import PartOf


def part_of(found: EvaluationSet, count: int) -> EvaluationSet:
    """The same set with `count` of its images, or of its instances or items with the images they need.

    They lie at even distances in the order of the classes (without labels: of the set), so that each class has its
    share whatever order the set is kept in.
    """
    if found.instances or found.pairs or found.choices:
        return _with_items(found, count)
    order = np.arange(len(found)) if found.labels is None else np.argsort(found.labels, kind="stable")
    rows = np.sort(order[_spread(len(found), count)])

    def cut(values: NDArray | None) -> NDArray | None:
        return None if values is None else values[rows]

    return dataclasses.replace(
        found,
        source=PartOf(found.source, rows.tolist()),
        labels=cut(found.labels),
        multilabels=cut(found.multilabels),
        metadata=cut(found.metadata),
        texts=None if found.texts is None else tuple(found.texts[row] for row in rows),
    )


def _with_items(found: EvaluationSet, count: int) -> EvaluationSet:
    instances, pairs, choices = (
        [items[place] for place in _spread(len(items), count)]
        for items in (found.instances, found.pairs, found.choices)
    )
    used = [index for one in instances for index in one.candidates]
    used += [index for one in pairs for index in one.images] + [one.image for one in choices]
    needed = sorted(set(used))
    place = {index: row for row, index in enumerate(needed)}
    return dataclasses.replace(
        found,
        source=PartOf(found.source, needed),
        instances=tuple(
            dataclasses.replace(one, candidates=tuple(place[i] for i in one.candidates)) for one in instances
        ),
        pairs=tuple(dataclasses.replace(one, images=(place[one.images[0]], place[one.images[1]])) for one in pairs),
        choices=tuple(dataclasses.replace(one, image=place[one.image]) for one in choices),
    )


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of the places 0 .. total - 1, at even distances."""
    chosen = min(total, count)
    return (2 * np.arange(chosen) + 1) * total // (2 * max(chosen, 1))
