"""Matches at one IoU: their precision is the library's, drawn pictures count as copies of them would."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from eyesmith.data.annotations import Annotations
from eyesmith.eval.located import Found, average_precision, detect_rows, found, match, picture_intervals
from eyesmith.eval.statistics.bootstrap import Interval
from eyesmith.eval.statistics.metrics import wilson_interval

Make = Callable[..., tuple[Annotations, list[Found]]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("region", ["box", "mask"])
def test_the_precision_of_matches_is_ap50(make_found: Make, seed: int, region: str) -> None:
    truth, detections = make_found(seed, masks=region == "mask", pictures=10)
    found_here = match(truth, detections, region=region)  # pyright: ignore
    expected = average_precision(truth, detections, region=region).ap50  # pyright: ignore
    np.testing.assert_allclose(found_here.average_precision(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("region", ["box", "mask"])
@pytest.mark.parametrize("per_image", [300, 4])
def test_lvis_rules_are_those_of_the_library(
    make_found: Make, with_pictures: Callable[..., Annotations], seed: int, region: str, per_image: int
) -> None:
    truth, detections = make_found(
        seed, masks=region == "mask", pictures=10, classes=6, crowds=False, frequency="rrccff", extra=20
    )
    rng, pictures = np.random.default_rng(seed), []
    for picture, objects in zip(truth.pictures, truth, strict=True):
        marked = set(objects.labels.tolist())
        absent = frozenset(label for label in range(6) if label not in marked and rng.random() < 0.5)
        pictures.append(
            replace(picture, absent=absent, not_exhaustive=frozenset(one for one in marked if rng.random() < 0.4))
        )
    pictures[0] = replace(pictures[0], absent=frozenset())
    truth = with_pictures(truth, pictures)
    # a picture in which nothing is marked, and nothing that is found there counts
    truth = replace(truth, read=lambda place, read=truth.read: read(place) if place else read(0).only([]))
    exact = average_precision(truth, detections, region=region, per_image=per_image).ap50  # pyright: ignore
    matches = match(truth, detections, region=region, per_image=per_image)  # pyright: ignore
    np.testing.assert_allclose(matches.average_precision(), exact, rtol=0, atol=1e-14)
    rows = detect_rows(
        truth, detections, model="m", setting="dense", masks=region == "mask", per_image=per_image, replicates=20
    )
    value = next(row for row in rows if (row.split, row.metric == "ap50") == ("all", region == "box"))
    assert value.value == pytest.approx(np.nanmean(exact))
    assert value.run is not None
    assert value.run["scored"]["rules"] == "lvis"


def test_at_another_iou_and_fewer_a_picture(make_found: Make) -> None:
    truth, detections = make_found(4, extra=30)
    np.testing.assert_allclose(
        match(truth, detections, iou=0.75, per_image=5).average_precision(),
        average_precision(truth, detections, per_image=5).ap75,
        rtol=0,
        atol=1e-14,
    )


def test_a_picture_that_counts_twice_is_two_pictures(make_found: Make) -> None:
    truth, detections = make_found(5, pictures=7)
    times = np.array([2, 0, 1, 3, 1, 0, 1])
    places = np.repeat(np.arange(7), times)

    class Copied:
        def __call__(self, index: int) -> object:
            return truth.objects(int(places[index]))

    copied = replace(
        truth,
        pictures=tuple(replace(truth.pictures[p], id=i) for i, p in enumerate(places.tolist())),
        read=Copied(),  # pyright: ignore
    )
    expected = average_precision(copied, [detections[p] for p in places.tolist()]).ap50
    drawn = match(truth, detections).average_precision(np.stack([times, np.ones(7)]).astype(float))
    np.testing.assert_allclose(drawn[0], expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(drawn[1], average_precision(truth, detections).ap50, rtol=0, atol=1e-14)


def test_who_found_what(make_found: Make) -> None:
    truth, _ = make_found(6, crowds=False)
    objects = truth.objects(0)
    exact = [found(one.boxes, np.ones(len(one)), one.labels) for one in truth]
    matches = match(truth, exact)
    assert matches.right.all()
    here = matches.picture == 0
    assert sorted(matches.truth_of[here].tolist()) == list(range(len(objects)))
    assert matches.objects.sum() == sum(len(one) for one in truth)
    nothing = match(truth, [found([], [], [])] * len(truth))
    assert len(nothing.picture) == 0
    assert np.nanmax(nothing.average_precision()) == 0


def test_intervals_hold_the_value_and_narrow_with_pictures(make_found: Make) -> None:
    widths = []
    for pictures in (12, 120):
        truth, detections = make_found(7, pictures=pictures)
        matches = match(truth, detections)
        groups = {"all": np.ones(4, bool), "novel": truth.novel, "none": np.zeros(4, bool)}
        spans = picture_intervals(matches.average_precision, groups, len(truth), replicates=200)
        again = picture_intervals(matches.average_precision, groups, len(truth), replicates=200)
        assert spans == again
        assert set(spans) == {"all", "novel"}
        mean = average_precision(truth, detections)
        assert spans["all"].value == pytest.approx(mean.mean("ap50"), abs=1e-14)
        assert spans["novel"].value == pytest.approx(mean.mean("ap50", truth.novel), abs=1e-14)
        assert spans["all"].low < spans["all"].value < spans["all"].high
        widths.append(spans["all"].high - spans["all"].low)
    assert widths[1] < widths[0] / 2


def test_the_bias_of_draws_is_taken_out() -> None:
    """Each class has one object, and a false find before it in another picture: a half. A picture that comes twice
    gains more by its right find than it loses by its wrong one: 0.57 in the mean of draws."""
    classes = 60

    def by_class(weights: np.ndarray) -> np.ndarray:
        right, wrong = weights[:, :classes], weights[:, classes:]
        with np.errstate(invalid="ignore"):
            return np.where(right > 0, right / (right + wrong), np.nan)

    (span,) = picture_intervals(by_class, {"all": np.ones(classes, bool)}, 2 * classes).values()
    assert span.value == 0.5
    assert (span.low + span.high) / 2 == pytest.approx(0.5, abs=0.01)
    assert 0.05 < span.high - span.low < 0.25


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_interval_at_the_bound_has_a_width(value: float) -> None:
    for replicates in (1, 50):
        (span,) = picture_intervals(
            lambda weights: np.full((len(weights), 2), value), {"all": np.ones(2, bool)}, 100, replicates=replicates
        ).values()
        assert (span.low, span.high) == wilson_interval(100 * value, 100)
    only_itself = picture_intervals(  # no draw has anything to score
        lambda weights: np.where((weights == 1).all(1, keepdims=True), 0.5, np.nan),
        {"all": np.ones(1, bool)},
        20,
        replicates=2,
    )
    assert only_itself["all"] == Interval(0.5, 0.5, 0.5)
