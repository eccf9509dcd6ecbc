"""Boxes against loops and worked examples."""

import math

import pytest
import torch

from eyesmith.dense.boxes import areas, check_boxes, clip, decode, encode, flipped, inside, iou
from eyesmith.errors import ShapeError


def some_boxes(count: int, *, seed: int, size: int = 100) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * size
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def test_iou_is_that_of_a_loop_over_pairs() -> None:
    ours, theirs = some_boxes(20, seed=0), some_boxes(30, seed=1)
    for i, (a0, b0, a1, b1) in enumerate(ours.tolist()):
        for j, (c0, d0, c1, d1) in enumerate(theirs.tolist()):
            shared = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
            union = (a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared
            assert float(iou(ours, theirs)[i, j]) == pytest.approx(shared / union, abs=1e-5)
            assert float(inside(ours, theirs)[i, j]) == pytest.approx(shared / ((a1 - a0) * (b1 - b0)), abs=1e-5)


def test_boxes_without_area_overlap_nothing() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert iou(point, point).tolist() == [[0.0]]
    assert inside(point, point).tolist() == [[0.0]]
    assert areas(torch.tensor([[5.0, 5.0, 4.0, 9.0]])).tolist() == [0.0]
    assert iou(torch.zeros(0, 4), point).shape == (0, 1)


def test_decoding_undoes_encoding() -> None:
    origins, targets = some_boxes(50, seed=2) + torch.tensor([0.0, 0.0, 3.0, 3.0]), some_boxes(50, seed=3)
    targets = targets + torch.tensor([0.0, 0.0, 3.0, 3.0])
    for spread in ((1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)):
        torch.testing.assert_close(decode(origins, encode(origins, targets, spread), spread), targets)


def test_coding_by_hand() -> None:
    """A box of 10 by 20 to one twice as wide, a width to the right."""
    moves = encode(torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[5.0, 0.0, 25.0, 20.0]]), (0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(moves, torch.tensor([[10.0, 0.0, math.log(2) / 0.2, 0.0]]))


def test_decoding_is_bounded_and_clipped() -> None:
    origin = torch.tensor([[40.0, 40.0, 50.0, 50.0]])
    wild = decode(origin, torch.tensor([[0.0, 0.0, 100.0, -100.0]]))
    torch.testing.assert_close(wild[0, 2] - wild[0, 0], torch.tensor(625.0))
    torch.testing.assert_close(wild[0, 3] - wild[0, 1], torch.tensor(0.16), atol=1e-4, rtol=0)
    assert decode(origin, torch.tensor([[0.0, 0.0, 100.0, 100.0]]), size=(60, 80)).tolist() == [[0, 0, 80, 60]]
    assert clip(torch.tensor([[-5.0, 3.0, 200.0, 90.0]]), (60, 80)).tolist() == [[0, 3, 80, 60]]


def test_two_mirrors_change_nothing() -> None:
    boxes = some_boxes(10, seed=4)
    turned = flipped(boxes, 100)
    assert bool((turned[:, 2:] >= turned[:, :2]).all())
    torch.testing.assert_close(areas(turned), areas(boxes))
    torch.testing.assert_close(flipped(turned, 100), boxes)
    torch.testing.assert_close(iou(turned, turned), iou(boxes, boxes))


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (torch.zeros(3), "expected floats"),
        (torch.zeros(3, 4, dtype=torch.int64), "expected floats"),
        (torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, float("nan"), 1.0, 1.0]]), "row 1"),
        (torch.tensor([[2.0, 0.0, 1.0, 1.0]]), "x0 <= x1"),
    ],
)
def test_what_is_no_box_is_named(boxes: torch.Tensor, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        check_boxes(boxes)
