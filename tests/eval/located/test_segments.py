"""Panoptic quality by torchmetrics and by hand with crowds and void; mIoU by torchmetrics; borders by their rule."""

import numpy as np
import pytest
import torch

from eyesmith.data.annotations import VOID
from eyesmith.errors import DataError, ShapeError
from eyesmith.eval.located import PanopticQuality, PixelScores, picture_intervals
from eyesmith.eval.located.pixels import border
from eyesmith.models.foreign.torchvision import ensure_torchvision

ensure_torchvision()  # torchmetrics imports it where it is installed
from torchmetrics.classification import MulticlassJaccardIndex  # noqa: E402
from torchmetrics.detection import PanopticQuality as Peer  # noqa: E402


def regions(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """A map of `count` blocks, some of them gone: VOID."""
    found = np.full((height, width), VOID)
    for place in range(count):
        top, left = rng.integers(0, height), rng.integers(0, width)
        found[top : top + rng.integers(2, 12), left : left + rng.integers(2, 12)] = place
    return found


def shifted(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    return np.roll(labels, tuple(rng.integers(-1, 2, 2)), (0, 1))


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_equals_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours = PanopticQuality(4)
    peer = Peer(
        things={0, 1},
        stuffs={2, 3},
        allow_unknown_preds_category=True,
        return_per_class=True,
        return_sq_and_rq=True,
    )
    for _ in range(4):
        truth = regions(rng, 24, 30, 7)
        found = shifted(rng, truth)
        # nothing is left open: the peer forgives a miss where a model says nothing, COCO's rules do not
        found[(found == VOID) | (found == 6)] = 7
        labels = rng.integers(0, 2, 7)  # things only: the peer merges stuff
        guesses = np.append(np.where(rng.random(7) < 0.8, labels, rng.integers(0, 2, 7)), rng.integers(0, 2))
        ours.add(truth, labels, found, guesses)
        peer.update(as_pairs(found, guesses), as_pairs(truth, labels))
    quality = ours.quality()
    expected = peer.compute().numpy()  # [K, 3]: pq, sq, rq
    present = ~np.isnan(quality.pq)
    assert present.tolist() == [True, True, False, False]
    np.testing.assert_allclose(quality.pq[present], expected[present, 0], atol=1e-6)
    np.testing.assert_allclose(quality.sq[present], expected[present, 1], atol=1e-6)
    np.testing.assert_allclose(quality.rq[present], expected[present, 2], atol=1e-6)
    assert quality.mean() > 0.1


def as_pairs(segments: np.ndarray, classes: np.ndarray) -> torch.Tensor:
    """[1, H, W, 2]: class and number of each pixel; void is a class that the peer does not know."""
    return torch.tensor(np.stack([np.append(classes, 99)[segments], segments + 1], -1))[None]


def line(*runs: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(count, value) for value, count in runs])[None]


def test_panoptic_quality_by_hand_with_crowds_and_void() -> None:
    # 10 pixels of object 0, 10 of a crowd (1) of the same class, 10 void, 10 of object 2, another class
    truth = line((0, 10), (1, 10), (VOID, 10), (2, 10))
    quality = PanopticQuality(2)
    # found, all as class 0: 8 of object 0; the crowd (excused); 3 void and 7 of object 2 (wrong)
    found = line((0, 8), (VOID, 6), (1, 10), (VOID, 3), (2, 3), (2, 7), (VOID, 3))
    quality.add(truth, [0, 0, 1], found, [0, 0, 0], crowd=[False, True, False])
    found_here = quality.quality()
    assert quality.counts[0].tolist() == [[0.8, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(found_here.pq, [0.8 / 1.5, 0])
    np.testing.assert_allclose(found_here.sq, [0.8, 0])
    np.testing.assert_allclose(found_here.rq, [1 / 1.5, 0])
    assert found_here.mean() == pytest.approx(0.8 / 3)


def test_void_is_taken_out_of_the_union() -> None:
    quality = PanopticQuality(1)
    quality.add(line((0, 10), (VOID, 10)), [0], line((0, 6), (VOID, 4), (0, 5), (VOID, 5)), [0])
    assert quality.counts[0][0].tolist() == [0.6, 1, 0, 0]
    background = PanopticQuality(1)
    background.add(
        line((0, 10), (VOID, 10)), [0], line((0, 6), (VOID, 4), (0, 5), (VOID, 5)), [0], void=np.zeros((1, 20), bool)
    )
    assert background.counts[0][0].tolist() == [0, 0, 1, 1]  # 6 of 15: pixels of no object are no void there


def test_an_empty_picture_and_a_class_that_is_only_found() -> None:
    quality = PanopticQuality(2)
    quality.add(line((VOID, 8)), [], line((0, 8)), [1], void=np.zeros((1, 8), bool))
    assert np.isnan(quality.quality().pq[0])
    assert quality.quality().pq[1] == 0
    with pytest.raises(DataError, match="of no pictures"):
        PanopticQuality(2).quality()


def test_segments_that_do_not_fit() -> None:
    quality = PanopticQuality(2)
    with pytest.raises(ShapeError, match="expected two maps"):
        quality.add(line((0, 8)), [0], line((0, 7)), [0])
    with pytest.raises(DataError, match="found: a pixel belongs to segment 1 of 1"):
        quality.add(line((0, 8)), [0], line((1, 8)), [0])
    with pytest.raises(DataError, match="truth: labels reach from 2 to 2, there are 2 classes"):
        quality.add(line((0, 8)), [2], line((0, 8)), [0])


def test_a_picture_counted_twice_is_two_pictures() -> None:
    rng = np.random.default_rng(0)
    once, twice, pixels, more_pixels = PanopticQuality(3), PanopticQuality(3), PixelScores(3), PixelScores(3)
    for place in range(4):
        truth = regions(rng, 20, 20, 6)
        found, labels = shifted(rng, truth), rng.integers(0, 3, 6)
        once.add(truth, labels, found, labels)
        pixels.add(np.append(labels, VOID)[truth], np.append(labels, VOID)[found])
        for _ in range(place):
            twice.add(truth, labels, found, labels)
            more_pixels.add(np.append(labels, VOID)[truth], np.append(labels, VOID)[found])
    weights = np.arange(4)[None].astype(float)
    np.testing.assert_allclose(once.by_class(weights)[0], twice.quality().pq)
    np.testing.assert_allclose(pixels.by_class(weights)[0], more_pixels.iou())
    spans = picture_intervals(once.by_class, {"all": np.ones(3, bool)}, 4, replicates=50)
    assert spans["all"].low <= once.quality().mean() <= spans["all"].high


@pytest.mark.parametrize("seed", range(3))
def test_mean_iou_equals_torchmetrics_over_the_whole_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, peer = PixelScores(5), MulticlassJaccardIndex(5, average=None, ignore_index=255)
    for _ in range(3):
        truth, found = rng.integers(-1, 5, (9, 13)), rng.integers(0, 5, (9, 13))
        scores.add(truth, found)
        peer.update(torch.tensor(found), torch.tensor(np.where(truth == VOID, 255, truth)))
    np.testing.assert_allclose(scores.iou(), peer.compute().numpy(), atol=1e-7)


def test_mean_iou_of_two_maps_of_the_facts() -> None:
    """Over the set, not the mean of each picture's."""
    scores = PixelScores(2)
    scores.add(np.array([[0, 0], [0, 1]]), np.array([[0, 0], [1, 1]]))
    scores.add(np.array([[1, 1], [1, 1]]), np.array([[1, 0], [0, 0]]))
    assert scores.iou().tolist() == [2 / (3 + 5 - 2), 2 / (5 + 3 - 2)]


def test_nothing_found_background_and_void() -> None:
    scores = PixelScores(2)
    truth, found = np.array([[0, 0, VOID, VOID]]), np.array([[0, VOID, 0, 1]])
    scores.add(truth, found)
    assert scores.iou()[0] == 0.5
    assert np.isnan(scores.iou()[1])
    counted = PixelScores(2)
    counted.add(truth, found, background=np.array([[False, False, True, True]]))
    assert counted.iou().tolist() == [1 / 3, 0]
    with pytest.raises(DataError, match="found: labels reach from 0 to 2; expected -1 .void. to 1"):
        scores.add(truth, np.array([[0, 0, 0, 2]]))
    with pytest.raises(ShapeError, match="expected two maps of labels"):
        scores.add(truth, found[0])
    with pytest.raises(DataError, match="switch of borders was off"):
        scores.border_iou()


def test_a_border_is_what_lies_near_an_edge() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 0:70] = True  # the diagonal is 100: a border of 2 pixels, at the picture's edge too
    slow = np.zeros_like(mask)
    for y in range(60):
        for x in range(80):
            window = mask[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
            inside = window.all() and 2 <= y < 58 and 2 <= x < 78
            slow[y, x] = mask[y, x] and not inside
    np.testing.assert_array_equal(border(mask), slow)
    scores = PixelScores(1, borders=True)
    moved = np.roll(mask, 3, 0)
    scores.add(np.where(mask, 0, VOID), np.where(moved, 0, VOID), background=~mask)
    expected = (border(mask) & border(moved)).sum() / (border(mask) | border(moved)).sum()
    assert scores.border_iou()[0] == expected < scores.iou()[0]
