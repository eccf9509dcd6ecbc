"""Assignment by overlap against a loop, draws that are functions of their place, and scipy's best assignment."""

import itertools

import pytest
import torch

from eyesmith.dense import matching
from eyesmith.dense.boxes import iou
from eyesmith.dense.matching import IGNORED, NOTHING, assignment, match, sample
from eyesmith.errors import ConfigError, DataError


def some_boxes(count: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draws) * 60
    return torch.cat([corner, corner + 10 + 30 * torch.rand(count, 2, generator=draws)], 1)


def by_loop(boxes, truths, positive, negative, forced_from):
    overlaps = iou(boxes, truths)
    found = []
    for row in overlaps:
        best = float(row.max())
        found.append(int(row.argmax()) if best >= positive else NOTHING if best < negative else IGNORED)
    if forced_from is not None:
        for truth in range(len(truths)):
            best = float(overlaps[:, truth].max())
            if best >= forced_from:
                for box in range(len(boxes)):
                    if float(overlaps[box, truth]) == best:
                        found[box] = truth
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", [(0.7, 0.3, 0.3), (0.5, 0.5, None)])
def test_matches_are_those_of_a_loop(
    monkeypatch: pytest.MonkeyPatch, seed: int, rule: tuple[float, float, float | None]
) -> None:
    boxes, truths = some_boxes(200, seed), some_boxes(6, seed + 100)
    for pairs in (1 << 23, 500):  # all truths at a time, two at a time
        monkeypatch.setattr(matching, "_PAIRS", pairs)
        found = match(boxes, truths, positive=rule[0], negative=rule[1], forced_from=rule[2])
        assert found.tolist() == by_loop(boxes, truths, *rule)


def test_without_truths_all_is_background_but_crowds() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    assert match(boxes, torch.zeros(0, 4), positive=0.5, negative=0.5).tolist() == [NOTHING, NOTHING]
    crowd = torch.tensor([[0.0, 0.0, 30.0, 30.0]])
    assert match(boxes, torch.zeros(0, 4), positive=0.5, negative=0.5, ignored=crowd).tolist() == [IGNORED, NOTHING]
    assert match(boxes, boxes[:1], positive=0.5, negative=0.5, ignored=crowd).tolist() == [0, NOTHING]


def test_a_truth_of_no_area_forces_nothing() -> None:
    boxes = some_boxes(5, 0)
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert match(boxes, point, positive=0.7, negative=0.3, forced_from=0.0).tolist() == [NOTHING] * 5


def test_a_draw_is_a_function_of_seed_row_and_layer() -> None:
    matched = torch.tensor([0] * 40 + [NOTHING] * 200 + [IGNORED] * 60)
    drawn = sample(matched, 64, 0.25, seed=5, row=3)
    assert len(drawn.positives) == 16
    assert len(drawn.negatives) == 48
    assert bool((matched[drawn.positives] == 0).all())
    assert bool((matched[drawn.negatives] == NOTHING).all())
    again = sample(matched, 64, 0.25, seed=5, row=3)
    assert torch.equal(drawn.positives, again.positives)
    assert torch.equal(drawn.negatives, again.negatives)
    for seed, row, layer in ((6, 3, 0), (5, 4, 0), (5, 3, 1)):
        assert not torch.equal(drawn.negatives, sample(matched, 64, 0.25, seed=seed, row=row, layer=layer).negatives)


def test_every_box_is_drawn_as_often() -> None:
    matched = torch.full((50,), NOTHING)
    counts = torch.zeros(50)
    for row in range(400):
        counts[sample(matched, 10, 0.5, seed=1, row=row).negatives] += 1
    assert float(counts.sum()) == 4000
    assert 50 < float(counts.min()) < 80 < float(counts.max()) < 115  # 80 with a deviation of 8


def test_few_boxes_are_all_taken() -> None:
    drawn = sample(torch.tensor([0, NOTHING, IGNORED]), 512, 0.25, seed=0, row=0)
    assert drawn.positives.tolist() == [0]
    assert drawn.negatives.tolist() == [1]
    empty = sample(torch.zeros(0, dtype=torch.int64), 512, 0.25, seed=0, row=0)
    assert len(empty.positives) == len(empty.negatives) == 0
    with pytest.raises(ConfigError, match="sampling"):
        sample(torch.zeros(3).long(), 0, 0.5, seed=0, row=0)


def test_the_assignment_is_the_cheapest_of_all() -> None:
    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    rows, columns = assignment(cost)
    best = min(sum(float(cost[i, j]) for i, j in enumerate(some)) for some in itertools.permutations(range(5), 4))
    assert float(cost[rows, columns].sum()) == pytest.approx(best)
    with pytest.raises(DataError, match="not finite"):
        assignment(torch.full((2, 2), float("nan")))
