"""Panoptic, semantic and instance labels as classes and masks."""

import pytest
import torch

from eyesmith.dense.segment.targets import (
    MaskTargets,
    Segment,
    instance_targets,
    panoptic_targets,
    semantic_targets,
    sized,
)
from eyesmith.errors import DataError

IDS = torch.tensor([[7, 7, 0, 9], [8, 8, 0, 9], [5, 5, 4, 4]])
THINGS = [True, False, True]


def test_things_stay_apart_and_stuff_is_joined() -> None:
    segments = [Segment(7, 0), Segment(8, 0), Segment(5, 1), Segment(4, 1), Segment(9, 2, is_crowd=True)]
    found = panoptic_targets(IDS, segments, THINGS)
    assert found.labels.tolist() == [0, 0, 1]
    assert torch.equal(found.masks, torch.stack([IDS == 7, IDS == 8, (IDS == 5) | (IDS == 4)]))


def test_a_map_and_a_list_that_disagree_are_told() -> None:
    with pytest.raises(DataError, match="segment 3: has no pixel"):
        panoptic_targets(IDS, [Segment(3, 0)], THINGS)
    with pytest.raises(DataError, match="segment 7: class 3 of 3"):
        panoptic_targets(IDS, [Segment(7, 3)], THINGS)
    with pytest.raises(DataError, match="an id appears twice"):
        panoptic_targets(IDS, [Segment(7, 0), Segment(7, 1)], THINGS)
    with pytest.raises(DataError, match=r"expected \[H, W\], got \[2, 2, 3\]"):
        panoptic_targets(torch.zeros(2, 2, 3, dtype=torch.int64), [], THINGS)


def test_semantic_maps_leave_out_what_is_ignored() -> None:
    found = semantic_targets(torch.tensor([[0, 255], [3, 3]]))
    assert found.labels.tolist() == [0, 3]
    assert found.masks.sum((1, 2)).tolist() == [1, 2]
    assert len(semantic_targets(torch.full((2, 2), 255))) == 0
    assert semantic_targets(torch.full((2, 2), 255), ignored=None).labels.tolist() == [255]
    with pytest.raises(DataError, match="class map"):
        semantic_targets(torch.zeros(2))


def test_empty_instances_are_left_out() -> None:
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, 0, 0] = True
    assert instance_targets(torch.tensor([5, 6, 7]), masks).labels.tolist() == [6]
    assert len(instance_targets(torch.tensor([5, 6, 7]), masks).visible(min_px=2)) == 0


def test_sizes_follow_the_pixels_centres() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2, 2:] = True
    larger = sized(MaskTargets(torch.tensor([0]), masks), (8, 8))
    assert torch.equal(larger.masks[0, ::2, ::2], masks[0])
    assert torch.equal(larger.masks[0, 1::2, 1::2], masks[0])
    assert torch.equal(sized(larger, (4, 4)).masks, masks)
    none = MaskTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, 4, dtype=torch.bool))
    assert sized(none, (2, 6)).masks.shape == (0, 2, 6)


def test_what_is_no_target_is_told() -> None:
    with pytest.raises(DataError, match="masks of bool"):
        MaskTargets(torch.tensor([0]), torch.zeros(1, 2, 2))
    with pytest.raises(DataError, match=r"labels \[n\]"):
        MaskTargets(torch.tensor([0, 1]), torch.zeros(1, 2, 2, dtype=torch.bool))
    with pytest.raises(DataError, match="0 or more"):
        MaskTargets(torch.tensor([-1]), torch.zeros(1, 2, 2, dtype=torch.bool))
