"""The loss beside transformers' own on the same points; rows shared out; broken targets."""

import re
from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from torch import Tensor

from eyesmith.dense.segment.losses import (
    Counts,
    MaskLossConfig,
    Prediction,
    SeededPoints,
    mask_losses,
    match,
)
from eyesmith.dense.segment.targets import MaskTargets
from eyesmith.errors import ConfigError, DataError
from eyesmith.models.foreign.torchvision import ensure_torchvision

SMALL = MaskLossConfig(num_points=48)


def made(
    rows: int = 3, queries: int = 7, classes: int = 5, layers: int = 3, counts: Sequence[int] = (4, 1, 3), seed: int = 0
) -> tuple[list[Prediction], list[MaskTargets]]:
    draws = torch.Generator().manual_seed(seed)
    predictions = [
        Prediction(
            torch.randn(rows, queries, classes + 1, generator=draws, requires_grad=True),
            (4 * torch.randn(rows, queries, 9, 11, generator=draws)).requires_grad_(),
        )
        for _ in range(layers)
    ]
    targets = [
        MaskTargets(
            torch.randint(0, classes, (count,), generator=draws), torch.rand(count, 18, 22, generator=draws) < 0.3
        )
        for count in counts
    ]
    return predictions, targets


class Given:
    """Points out of one table, for ours and for theirs."""

    def __init__(self, config: MaskLossConfig, targets: Sequence[MaskTargets], layers: int) -> None:
        draws = torch.Generator().manual_seed(5)
        total = sum(len(one) for one in targets)
        self.matchings = [torch.rand(config.num_points, 2, generator=draws) for _ in targets]
        evenly = config.num_points - config.num_uncertain
        self.candidates = [torch.rand(total, config.num_candidates, 2, generator=draws) for _ in range(layers)]
        self.evenly = [torch.rand(total, evenly, 2, generator=draws) for _ in range(layers)]
        self.sizes = (config.num_points, config.num_candidates, evenly)

    def matching(self, row: int) -> Tensor:
        return self.matchings[row]

    def sampling(self, layer: int, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        assert sum(counts) == len(self.candidates[layer])
        return self.candidates[layer], self.evenly[layer]

    def as_rand(self) -> "type[torch.rand]":  # pyright: ignore
        """Stands in for torch.rand while theirs runs: the last layer first, then the others in order."""
        order = [len(self.candidates) - 1, *range(len(self.candidates) - 1)]
        seen = dict.fromkeys(self.sizes, 0)

        def rand(*shape: int, **_: object) -> Tensor:
            place = seen[shape[1]]
            seen[shape[1]] += 1
            if shape[1] == self.sizes[0]:
                return self.matchings[place % len(self.matchings)][None]
            return (self.candidates if shape[1] == self.sizes[1] else self.evenly)[order[place]]

        return rand  # pyright: ignore


def test_losses_and_gradients_equal_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    predictions, targets = made()
    given = Given(SMALL, targets, 3)
    ours = mask_losses(predictions, targets, given, SMALL)
    ours.total(SMALL).backward()
    gradients = [(one.classes.grad, one.masks.grad) for one in predictions]
    theirs_in = [
        Prediction(one.classes.detach().requires_grad_(), one.masks.detach().requires_grad_()) for one in predictions
    ]
    config = transformers.Mask2FormerConfig(num_labels=5, train_num_points=48)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    loss = Mask2FormerLoss(config, weights)
    monkeypatch.setattr(torch, "rand", given.as_rand())
    found = loss(
        theirs_in[-1].masks,
        theirs_in[-1].classes,
        [one.masks.float() for one in targets],
        [one.labels for one in targets],
        [{"masks_queries_logits": one.masks, "class_queries_logits": one.classes} for one in theirs_in[:-1]],
    )
    monkeypatch.undo()
    for name, values in (("cross_entropy", ours.classes), ("mask", ours.masks), ("dice", ours.dice)):
        theirs = [found[f"loss_{name}_{layer}"] for layer in range(2)] + [found[f"loss_{name}"]]
        torch.testing.assert_close(values, torch.stack(theirs), rtol=1e-5, atol=1e-6)
    torch.stack([weights[re.sub(r"_\d$", "", name)] * value for name, value in found.items()]).sum().backward()
    for (classes, masks), theirs in zip(gradients, theirs_in, strict=True):
        torch.testing.assert_close(classes, theirs.classes.grad, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(masks, theirs.masks.grad, rtol=1e-5, atol=1e-7)
        assert masks is not None
        assert masks.abs().sum() > 0


def test_the_matching_is_the_cheapest_of_all() -> None:
    """Beside a loop over every injective assignment, its costs written out in another way."""
    predictions, targets = made(rows=1, queries=5, counts=(3,), layers=1)
    classes, masks = (one[0].detach() for one in predictions[0])
    where = SeededPoints(SMALL, torch.tensor([0]), seed=1).matching(0)
    grid = 2 * where[None, None] - 1
    target = torch.nn.functional.grid_sample(targets[0].masks[None].float(), grid, align_corners=False)[0, :, 0]
    logits = torch.nn.functional.grid_sample(masks[None], grid, align_corners=False)[0, :, 0]
    cost = torch.zeros(5, 3)
    for query in range(5):
        for place in range(3):
            bce = torch.nn.functional.binary_cross_entropy_with_logits(logits[query], target[place])
            sure = logits[query].sigmoid()
            dice = 1 - (2 * (sure * target[place]).sum() + 1) / (sure.sum() + target[place].sum() + 1)
            cost[query, place] = 5 * bce + 5 * dice - 2 * classes[query].softmax(0)[targets[0].labels[place]]
    best = min(permutations(range(5), 3), key=lambda chosen: sum(cost[q, p] for p, q in enumerate(chosen)))
    queries, chosen = match(classes, masks, targets[0].labels, where, target, SMALL)
    assert dict(zip(chosen.tolist(), queries.tolist(), strict=True)) == dict(enumerate(best))


def test_a_batch_in_parts_is_the_batch() -> None:
    """Rows with their places in the global batch, and counts of all of it: what processes and parts rely on."""
    predictions, targets = made(counts=(4, 0, 3))
    rows = torch.tensor([0, 1, 2])
    whole = mask_losses(predictions, targets, SeededPoints(SMALL, rows, seed=3), SMALL)
    counts = Counts.of(targets, 7, SMALL)
    parts = []
    for own in (slice(0, 1), slice(1, 3)):
        some = [Prediction(one.classes[own], one.masks[own]) for one in predictions]
        parts.append(mask_losses(some, targets[own], SeededPoints(SMALL, rows[own], seed=3), SMALL, counts))
    for together, one, other in zip(whole, *parts, strict=True):
        torch.testing.assert_close(together, one + other)
    again = mask_losses(predictions, targets, SeededPoints(SMALL, rows, seed=4), SMALL)
    assert not torch.equal(again.masks, whole.masks), "another step draws other points"
    assert torch.equal(again.classes[:0], whole.classes[:0])


def test_points_differ_between_rows_layers_and_masks_and_fill_the_square() -> None:
    config = MaskLossConfig(num_points=2000)
    points = SeededPoints(config, torch.tensor([3, 4]), seed=0)
    one, _ = points.sampling(0, [2, 1])
    other, evenly = points.sampling(1, [2, 1])
    assert one.shape == (3, 6000, 2)
    assert evenly.shape == (3, 500, 2)
    flat = [*one, *other, points.matching(0).repeat(3, 1), points.matching(1).repeat(3, 1)]
    for place, here in enumerate(flat):
        assert all(not torch.equal(here[:100], there[:100]) for there in flat[place + 1 :])
    torch.testing.assert_close(one.mean((0, 1)), torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)
    counts = torch.histogramdd(one[0], bins=[4, 4], range=[0, 1, 0, 1]).hist
    assert counts.min() > 6000 / 16 * 0.8


def test_no_object_is_all_there_is_to_learn_of_an_empty_picture() -> None:
    predictions, _ = made(rows=2, layers=2)
    targets = [MaskTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5, 5, dtype=torch.bool))] * 2
    losses = mask_losses(predictions, targets, SeededPoints(SMALL, torch.arange(2), seed=0), SMALL)
    expected = -predictions[1].classes.log_softmax(-1)[..., -1].mean()
    torch.testing.assert_close(losses.classes[1], expected)
    assert losses.masks.tolist() == [0, 0]
    losses.total(SMALL).backward()
    grad = predictions[0].masks.grad
    assert grad is not None
    assert not grad.any()


def test_more_masks_than_queries_and_a_broken_query() -> None:
    predictions, targets = made(rows=1, queries=2, counts=(4,), layers=1)
    losses = mask_losses(predictions, targets, SeededPoints(SMALL, torch.tensor([0]), seed=0), SMALL)
    assert torch.isfinite(losses.total(SMALL))
    classes, masks = (one[0].detach().clone() for one in made(rows=1, queries=4, counts=(3,), layers=1)[0][0])
    masks[1] = float("nan")
    where = torch.rand(9, 2)
    queries, _ = match(classes, masks, torch.tensor([0, 1, 2]), where, torch.rand(3, 9), SMALL)
    assert queries.tolist() == [0, 2, 3], "it is matched last"


def test_a_mask_that_is_found_costs_nearly_nothing() -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, :8], masks[1, 8:] = True, True
    target = MaskTargets(torch.tensor([2, 0]), masks)
    classes = torch.full((1, 3, 4), -20.0)
    classes[0, 0, 0] = classes[0, 1, 3] = classes[0, 2, 2] = 20.0  # query 1 says nothing
    logits = torch.stack([masks[1], torch.zeros(16, 16, dtype=torch.bool), masks[0]]).float()[None] * 60 - 30
    evenly = MaskLossConfig(num_points=200, importance_frac=0)  # the uncertain ones all lie on the border, a ramp
    points = SeededPoints(evenly, torch.tensor([0]), seed=0)
    losses = mask_losses([Prediction(classes, logits)], [target], points, evenly)
    assert losses.classes.item() < 1e-6
    assert losses.total(evenly) < 3
    # turned round, each query has the mask of the other, and its class is wrong
    assert mask_losses([Prediction(classes, -logits)], [target], points, evenly).total(evenly) > 50


def test_things_alone_may_be_learnt_whatever_they_are_called() -> None:
    """Equal to one class whose probability is the sum, so that other labels change nothing."""
    predictions, targets = made()
    things = MaskLossConfig(num_points=48, learns="things")
    points = SeededPoints(SMALL, torch.arange(3), seed=0)
    found = mask_losses(predictions, targets, points, things)
    others = [MaskTargets((one.labels + 1) % 5, one.masks) for one in targets]
    assert torch.equal(torch.stack(found), torch.stack(mask_losses(predictions, others, points, things)))
    table = predictions[0].classes.softmax(-1)
    summed = torch.stack([table[..., :-1].sum(-1), table[..., -1]], -1).log()
    one_class = [Prediction(summed, predictions[0].masks)]
    alone = [MaskTargets(one.labels * 0, one.masks) for one in targets]
    expected = mask_losses(one_class, alone, points, SMALL)
    torch.testing.assert_close(torch.stack(found)[:, :1], torch.stack(expected))


def test_what_cannot_be_is_named() -> None:
    predictions, targets = made()
    points = SeededPoints(SMALL, torch.arange(3), seed=0)
    with pytest.raises(DataError, match="row 1: class 5 of 5; the vocabulary must hold"):
        wrong = [targets[0], MaskTargets(torch.tensor([5]), targets[1].masks), targets[2]]
        mask_losses(predictions, wrong, points, SMALL)
    with pytest.raises(DataError, match="for 2 targets"):
        mask_losses(predictions, targets[:2], points, SMALL)
    with pytest.raises(ConfigError, match="expected 1 to 62 layers, got 0"):
        mask_losses([], targets, points, SMALL)
    for change in (
        {"class_weight": -1},
        {"num_points": 0},
        {"importance_frac": 2},
        {"no_object_weight": 0},
        {"learns": "x"},
    ):
        with pytest.raises(ConfigError, match="loss"):
            MaskLossConfig(**change)  # pyright: ignore
    with pytest.raises(ConfigError, match="less than 131072"):
        MaskLossConfig(num_points=100_000)
