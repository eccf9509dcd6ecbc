import math
import random
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from eyesmith.errors import EyesmithError, ShapeError
from eyesmith.eval.statistics import metrics
from eyesmith.eval.statistics.metrics import (
    chance_of_hit,
    clustered_interval,
    exact_device,
    similarity,
    target_ranks,
    top_candidates,
    wilson_interval,
)


def slow_order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_top_k_equal_a_slow_sort_also_with_many_ties(seed: int) -> None:
    rng = random.Random(seed)
    scores = [[rng.randrange(4) / 4 for _ in range(9)] for _ in range(40)]
    targets = [rng.randrange(9) for _ in range(40)]
    orders = [slow_order(row) for row in scores]
    ranks = target_ranks(torch.tensor(scores), torch.tensor(targets))
    assert ranks.tolist() == [order.index(target) for order, target in zip(orders, targets, strict=True)]
    values, indices = top_candidates(torch.tensor(scores), 5)
    assert indices.tolist() == [order[:5] for order in orders]
    assert values.tolist() == [[row[i] for i in order[:5]] for row, order in zip(scores, orders, strict=True)]


def test_equal_scores_go_to_the_lowest_index() -> None:
    scores = torch.zeros(3, 4)
    assert target_ranks(scores, torch.tensor([0, 1, 3])).tolist() == [0, 1, 3]
    assert top_candidates(scores, 2)[1].tolist() == [[0, 1]] * 3


def test_scores_that_are_not_finite_are_never_counted_as_right() -> None:
    scores = torch.zeros(3, 4)
    scores[1, 2] = math.nan
    with pytest.raises(EyesmithError, match="1 of 3"):
        target_ranks(scores, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(EyesmithError, match="not finite"):
        top_candidates(scores, 2)


def test_wrong_shapes_and_targets_raise() -> None:
    with pytest.raises(ShapeError, match=r"\[3, 4\] and \[2\]"):
        target_ranks(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"outside 0\.\.3"):
        target_ranks(torch.zeros(3, 4), torch.tensor([0, 4, 0]))
    with pytest.raises(ShapeError, match=r"\[3, 4\] and \[2, 5\]"):
        similarity(torch.zeros(3, 4), torch.zeros(2, 5))


def test_equal_rows_have_equal_similarity_wherever_they_stand() -> None:
    torch.manual_seed(0)
    row, other = torch.nn.functional.normalize(torch.randn(2, 384), dim=-1)
    for count in (3, 17, 130):
        candidates = torch.nn.functional.normalize(torch.randn(count, 384), dim=-1)
        candidates[[0, count // 2, count - 1]] = row
        scores = similarity(other[None], candidates)[0]
        assert scores[0] == scores[count // 2] == scores[count - 1]


# Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_values(hits: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_inside() -> None:
    assert wilson_interval(29, 29)[1] == 1.0
    low, high = wilson_interval(7, 50)
    assert wilson_interval(43, 50) == pytest.approx((1 - high, 1 - low))
    with pytest.raises(ValueError, match="5 of 4"):
        wilson_interval(5, 4)
    with pytest.raises(ValueError, match="n > 0"):
        wilson_interval(0, 0)


def test_clusters_of_one_give_wilson() -> None:
    correct = torch.tensor([True, False, False, True, False])
    assert clustered_interval(correct, torch.tensor([3, 9, 1, 0, 7])) == wilson_interval(2, 5)


def test_repeating_every_answer_adds_no_certainty() -> None:
    torch.manual_seed(1)
    correct = torch.rand(400) < 0.3
    once = wilson_interval(int(correct.sum()), 400)
    five = clustered_interval(correct.repeat_interleave(5), torch.arange(400).repeat_interleave(5))
    assert five == pytest.approx(once, abs=2e-4)


@pytest.mark.parametrize("value", [True, False])
def test_where_nothing_varies_a_cluster_counts_once(value: bool) -> None:
    correct = torch.full((60,), value)
    assert clustered_interval(correct, torch.arange(20).repeat(3)) == wilson_interval(20 * value, 20)


def test_clustered_interval_holds_the_truth_about_95_times_in_100() -> None:
    torch.manual_seed(2)
    held = 0
    for _ in range(400):
        chance = torch.distributions.Beta(0.8, 1.2).sample((80,))  # every cluster has a chance of its own, mean 0.4
        correct = torch.rand(80, 5) < chance[:, None]
        low, high = clustered_interval(correct.flatten(), torch.arange(80).repeat_interleave(5))
        held += low <= 0.4 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_chance_equals_counting_every_draw() -> None:
    positives, candidates, k = (1, 3, 5), 7, 3
    draws = list(combinations(range(candidates), k))
    slow = sum(any(pick < p for pick in draw) for p in positives for draw in draws) / len(draws) / len(positives)
    assert chance_of_hit(candidates, positives, k) == pytest.approx(slow)
    assert chance_of_hit(262, [1], 5) == pytest.approx(5 / 262)
    assert chance_of_hit(4, [2], 4) == 1.0


def test_similarity_in_blocks_is_similarity_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = F.normalize(torch.randn(37, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    right = F.normalize(torch.randn(11, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    expected = (left.double() @ right.double().T).float()
    assert torch.equal(similarity(left, right), expected)
    monkeypatch.setattr(metrics, "_BLOCK_SCORES", 50)  # four rows
    assert torch.equal(similarity(left, right, device=torch.device("cpu")), expected)
    assert similarity(left[:0], right).shape == (0, 11)


def test_exact_products_are_not_asked_of_a_device_without_fp64() -> None:
    assert exact_device(torch.device("mps")) == torch.device("cpu")
    assert exact_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
