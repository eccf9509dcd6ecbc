"""Segments as class maps and objects."""

import pytest
import torch

from eyesmith.dense.segment.inference import FoundSegment, Panoptic
from eyesmith.dense.segment.segments import segments_found


def panoptic() -> Panoptic:
    ids = torch.tensor([[0, 1, 1, 3], [2, 1, 0, 3], [2, 2, 0, 3]])
    segments = tuple(
        FoundSegment(id=id_, label=label, is_thing=True, score=score, area_px=3)
        for id_, label, score in ((1, 1, 0.4), (2, 0, 0.9), (3, 1, 0.6))
    )
    return Panoptic(ids=ids, segments=segments)


def test_segments_are_classes_and_objects() -> None:
    classes, objects = segments_found(panoptic(), ("sky", "dog"))
    assert classes.labels.tolist() == [[-1, 1, 1, 1], [0, 1, -1, 1], [0, 0, -1, 1]]
    assert classes.scores[0].tolist() == pytest.approx([0, 0.4, 0.4, 0.6])
    assert objects.scores.tolist() == pytest.approx([0.9, 0.6, 0.4])
    assert objects.labels.tolist() == [0, 1, 1]
    assert objects.boxes_px.tolist() == [[0, 1, 2, 3], [3, 0, 4, 3], [1, 0, 3, 2]]
    assert objects.masks_px().sum((1, 2)).tolist() == [3, 3, 3]


def test_weak_segments_are_left_out_and_none_is_ordinary() -> None:
    classes, objects = segments_found(panoptic(), ("sky", "dog"), threshold=0.5)
    assert len(objects) == 2
    assert classes.labels[0].tolist() == [-1, -1, -1, 1]
    classes, objects = segments_found(panoptic(), ("sky", "dog"), threshold=1.0)
    assert len(objects) == 0
    assert bool((classes.labels == -1).all())
