"""Suppression without a loop equals the loop."""

import pytest
import torch

from eyesmith.dense import nms as module
from eyesmith.dense.boxes import iou
from eyesmith.dense.nms import nms, nms_table
from eyesmith.errors import ShapeError


def greedy(
    boxes: torch.Tensor, scores: torch.Tensor, threshold: float, labels: torch.Tensor | None = None
) -> list[int]:
    overlaps = iou(boxes, boxes)
    stays: list[int] = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        rivals = [one for one in stays if labels is None or labels[one] == labels[place]]
        if all(float(overlaps[place, one]) <= threshold for one in rivals):
            stays.append(place)
    return stays


def crowded(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draws) * 40
    boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(count, 2, generator=draws)], 1)
    return boxes, (torch.rand(count, generator=draws) * 20).round() / 20  # with ties


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_it_is_greedy(monkeypatch: pytest.MonkeyPatch, seed: int, threshold: float) -> None:
    boxes, scores = crowded(200, seed)
    labels = torch.randint(4, (200,), generator=torch.Generator().manual_seed(seed))
    for block in (1024, 17):
        monkeypatch.setattr(module, "_BLOCK", block)
        assert nms(boxes, scores, threshold).tolist() == greedy(boxes, scores, threshold)
        assert nms(boxes, scores, threshold, labels=labels).tolist() == greedy(boxes, scores, threshold, labels)


def test_a_chain_of_boxes_that_save_one_another() -> None:
    """Each overlaps the next alone: every second one stays."""
    starts = torch.arange(50).float() * 5
    boxes = torch.stack([starts, torch.zeros(50), starts + 10, torch.full((50,), 10.0)], 1)
    assert nms(boxes, torch.arange(50, 0, -1).float(), 0.3).tolist() == list(range(0, 50, 2))


@pytest.mark.parametrize("pairs", [1 << 24, 64])
def test_the_table_is_suppression_class_by_class(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    monkeypatch.setattr(module, "_PAIRS", pairs)
    boxes, _ = crowded(80, 3)
    scores = (torch.rand(80, 7, generator=torch.Generator().manual_seed(0)) * 10).round() / 10
    stays = nms_table(boxes, scores, 0.4, floor=0.15)
    for label in range(7):
        allowed = (scores[:, label] > 0.15).nonzero()[:, 0]
        expected = allowed[greedy(boxes[allowed], scores[allowed, label], 0.4)]
        assert stays[:, label].nonzero()[:, 0].tolist() == expected.sort().values.tolist()


def test_ten_thousand_boxes_need_little_memory() -> None:
    draws = torch.Generator().manual_seed(0)
    corner = torch.rand(10_000, 2, generator=draws) * 500
    boxes, scores = torch.cat([corner, corner + 20], 1), torch.rand(10_000, generator=draws)
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                sizes.append(found.numel())
            return found

    with Watch():
        stays = nms(boxes, scores, 0.5)
    assert max(sizes) < 1 << 24  # 10,000 squared is 1e8
    assert stays[0] == scores.argmax()
    kept = boxes[stays]
    overlaps = iou(kept, kept).fill_diagonal_(0)
    assert float(overlaps.max()) <= 0.5
    assert bool((iou(boxes, kept).amax(1) > 0.5).all())  # whoever is gone was beaten, and who stays is itself there


def test_none_and_one() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert nms_table(torch.zeros(0, 4), torch.zeros(0, 3), 0.5).shape == (0, 3)
    assert nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5).tolist() == [0]


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ShapeError, match="scores: expected finite"):
        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([float("nan")]), 0.5)
    with pytest.raises(ShapeError, match="one a box"):
        nms(torch.zeros(2, 4), torch.zeros(3), 0.5)
