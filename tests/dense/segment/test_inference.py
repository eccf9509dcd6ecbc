"""Segments out of answers: the rules of overlap, stuff, void and scores, by hand and beside transformers."""

import math

import pytest
import torch

from eyesmith.dense.segment.inference import (
    Answer,
    PanopticRule,
    instances,
    panoptic,
    semantic,
)
from eyesmith.errors import ConfigError, ShapeError


def boxes(*places: tuple[int, int, int, int], side: int = 8, sure: float = 6.0) -> torch.Tensor:
    """Logits of rectangles (rows from, to, columns from, to)."""
    masks = torch.full((len(places), side, side), -sure)
    for mask, (top, bottom, left, right) in zip(masks, places, strict=True):
        mask[top:bottom, left:right] = sure
    return masks


def said(*rows: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Class probabilities, the last of each row void."""
    table = torch.tensor(rows)
    return table[:, :-1], table[:, -1]


def answer(masks: torch.Tensor, *rows: tuple[float, ...]) -> Answer:
    classes, void = said(*rows)
    return Answer(classes=classes, void=void, masks=masks)


def test_pixels_go_to_the_surest_and_the_rest_is_void() -> None:
    found = panoptic(answer(boxes((0, 4, 0, 8), (3, 8, 0, 8)), (0.9, 0.0, 0.1), (0.0, 0.6, 0.4)), [True, True])
    assert [(one.label, one.area_px) for one in found.segments] == [(0, 32), (1, 32)]
    assert found.ids[3, 0] == 1
    assert found.ids[4, 0] == 2
    assert found.segments[0].score == pytest.approx(0.9)
    assert found.mask(found.segments[1]).sum() == 32
    alone = panoptic(answer(boxes((0, 2, 0, 2)), (0.9, 0.0, 0.1)), [True, True])
    assert (alone.ids > 0).sum() == 4, "beyond a mask's own half nothing is claimed"


def test_who_wins_too_little_of_its_mask_is_dropped_and_leaves_void() -> None:
    """The second wins 6 of 8 columns' pixels: 75 %."""
    said = answer(boxes((0, 8, 0, 2), (0, 8, 0, 8)), (0.9, 0.0, 0.1), (0.0, 0.6, 0.4))
    assert [one.label for one in panoptic(said, [True, True]).segments] == [0]
    assert (panoptic(said, [True, True]).ids == 0).sum() == 48
    loose = panoptic(said, [True, True], PanopticRule(min_won_frac=0.7))
    assert [one.label for one in loose.segments] == [0, 1]


def test_stuff_is_joined_and_things_are_not() -> None:
    masks = boxes((0, 2, 0, 8), (6, 8, 0, 8))
    rows = ((0.8, 0.1, 0.1), (0.7, 0.1, 0.2))
    stuff = panoptic(answer(masks, *rows), [False, True])
    assert [(one.label, one.area_px, one.is_thing) for one in stuff.segments] == [(0, 32, False)]
    assert stuff.segments[0].score == pytest.approx(0.8)
    assert len(panoptic(answer(masks, *rows), [True, True]).segments) == 2


def test_void_queries_and_low_scores_say_nothing() -> None:
    rows = ((0.2, 0.3, 0.5), (0.6, 0.0, 0.4))
    masks = boxes((0, 4, 0, 8), (4, 8, 0, 8))
    assert [one.label for one in panoptic(answer(masks, *rows), [True, True]).segments] == [0]
    high = panoptic(answer(masks, *rows), [True, True], PanopticRule(min_score=0.8))
    assert high.segments == ()
    assert not high.ids.any()
    spread = answer(masks, (0.3, 0.3, 0.4), (0.2, 0.2, 0.6))
    assert panoptic(spread, [True, True]).segments == ()
    assert len(panoptic(spread, [True, True], PanopticRule(void="half")).segments) == 1


def slow(classes: list[list[float]], void: list[float], masks: torch.Tensor, stuff: set[int]) -> list[list[str]]:
    """The written rule, pixel by pixel: what stands at each, "" for nothing, things by query and stuff by class."""
    side = masks.shape[1]
    sure = [[[1 / (1 + math.exp(-float(v))) for v in line] for line in mask] for mask in masks]
    asked = [q for q in range(len(classes)) if max(classes[q]) > void[q]]
    best = {q: max(range(len(classes[q])), key=lambda k, q=q: classes[q][k]) for q in asked}
    shown = [["" for _ in range(side)] for _ in range(side)]
    if not asked:
        return shown
    won = [
        [max(asked, key=lambda q, y=y, x=x: classes[q][best[q]] * sure[q][y][x]) for x in range(side)]
        for y in range(side)
    ]
    for q in asked:
        own = sum(sure[q][y][x] >= 0.5 for y in range(side) for x in range(side))
        taken = sum(won[y][x] == q for y in range(side) for x in range(side))
        if not own or taken / own < 0.8:
            continue
        for y in range(side):
            for x in range(side):
                if won[y][x] == q and sure[q][y][x] >= 0.5:
                    shown[y][x] = f"stuff {best[q]}" if best[q] in stuff else f"thing {best[q]} of {q}"
    return shown


def test_it_is_the_written_rule_on_random_answers() -> None:
    """transformers' own post-processing measures a mask after its score was multiplied in, so it is no oracle here."""
    draws = torch.Generator().manual_seed(0)
    checked = 0
    for _ in range(60):
        table = (3 * torch.randn(6, 4, generator=draws)).softmax(-1)
        coarse = 4 * torch.randn(1, 6, 3, 3, generator=draws)
        masks = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear")[0]
        ours = panoptic(Answer(classes=table[:, :3], void=table[:, 3], masks=masks), [False, True, True])
        wanted = slow(table[:, :3].tolist(), table[:, 3].tolist(), masks, {0})
        names = {name for line in wanted for name in line} - {""}
        assert len(ours.segments) == len(names)
        by_id = {one.id: one for one in ours.segments}
        met: dict[int, str] = {0: ""}
        for y in range(12):
            for x in range(12):
                here = int(ours.ids[y, x])
                assert met.setdefault(here, wanted[y][x]) == wanted[y][x]
                if here:
                    assert wanted[y][x].split()[1] == str(by_id[here].label)
        checked += len(names)
    assert checked > 20


def test_semantic_is_a_sum_over_queries() -> None:
    masks = boxes((0, 8, 0, 8), (0, 8, 0, 8), (0, 4, 0, 8))
    found = semantic(answer(masks, (0.4, 0.0, 0.6), (0.4, 0.0, 0.6), (0.0, 0.5, 0.5)))
    assert not found.any(), "two weak queries of a class outdo one"
    found = semantic(answer(masks[1:], (0.4, 0.0, 0.6), (0.0, 0.5, 0.5)))
    assert torch.equal(found[:4], torch.ones(4, 8, dtype=torch.int64))
    assert not found[4:].any()


def test_instances_are_pairs_by_score_times_sureness() -> None:
    masks = torch.cat([boxes((0, 4, 0, 4), sure=0.5), boxes((4, 8, 4, 8)), torch.full((1, 8, 8), -1.0)])
    found = instances(answer(masks, (0.6, 0.3, 0.1), (0.1, 0.5, 0.4), (0.9, 0.0, 0.1)), count=4)
    sureness = torch.sigmoid(torch.tensor([6.0, 0.5]))
    assert found.labels.tolist() == [1, 0, 1]  # the third query has no pixel
    torch.testing.assert_close(found.scores, torch.stack([0.5 * sureness[0], 0.6 * sureness[1], 0.3 * sureness[1]]))
    assert torch.equal(found.masks[0], masks[1] > 0)
    things = instances(answer(masks, (0.6, 0.3, 0.1), (0.1, 0.5, 0.4), (0.9, 0.0, 0.1)), [False, True], count=4)
    assert things.labels.tolist() == [1, 1]


def test_padding_is_cut_before_masks_get_the_pictures_size() -> None:
    masks = boxes((0, 4, 0, 8))  # the upper half of the padded input
    one = answer(masks, (0.9, 0.1))
    whole = one.at((80, 40), padded=(16, 16), valid=(16, 8))
    assert whole.masks.shape == (1, 80, 40)
    assert (whole.masks[0, :36] > 0).all()
    assert (whole.masks[0, 44:] < 0).all()
    cut = one.at((80, 80), padded=(16, 16), valid=(8, 16))
    assert (cut.masks > 0).float().mean() > 0.95
    torch.testing.assert_close(one.at((8, 8)).masks, masks)


def test_one_pixel_one_class_and_nothing_at_all() -> None:
    tiny = answer(torch.ones(1, 1, 1), (1.0, 0.0))
    assert panoptic(tiny, [True]).ids.tolist() == [[1]]
    assert semantic(tiny).tolist() == [[0]]
    assert len(instances(tiny)) == 1
    none = Answer(classes=torch.zeros(0, 3), void=torch.zeros(0), masks=torch.zeros(0, 4, 4))
    assert panoptic(none, [True] * 3).segments == ()
    assert len(instances(none)) == 0


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ShapeError, match="answer"):
        Answer(classes=torch.zeros(2, 3), void=torch.zeros(2), masks=torch.zeros(3, 4, 4))
    with pytest.raises(ShapeError, match="one for each of 2 classes"):
        panoptic(answer(boxes((0, 1, 0, 1)), (0.5, 0.3, 0.2)), [True])
    with pytest.raises(ConfigError, match="min_score"):
        PanopticRule(min_score=1.5)
    with pytest.raises(ConfigError, match="1 or more instances"):
        instances(answer(boxes((0, 1, 0, 1)), (0.5, 0.5)), count=0)
