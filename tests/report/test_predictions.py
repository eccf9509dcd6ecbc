"""Choices of what a report shows, on predictions made by hand: no model."""

import io
from typing import Any

import pytest
import torch
from PIL import Image

from eyesmith.data.sample import Finding, Sample
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.statistics.metrics import target_ranks, wilson_interval
from eyesmith.report.predictions import Predictions, apportion, confusions, gallery, styles


class Drawings:
    """One-coloured drawings, sample i shows class i % K in style "thin" or "thick" by turns."""

    name = "drawings"

    def __init__(self, num: int, num_classes: int) -> None:
        self.problems: list[Finding] = []
        self.classes = tuple(f"thing {index}" for index in range(num_classes))
        self.labels = [index % num_classes for index in range(num)]
        self.keys = [f"k{num - index:03}" for index in range(num)]  # the order of keys is not the order of samples

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            self.keys[index], self.image_bytes(index), self.texts(index), {"style": ("thin", "thick")[index % 2]}
        )

    def image_bytes(self, index: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (index, self.labels[index], 0)).save(buffer, "PNG")
        return buffer.getvalue()

    def texts(self, index: int) -> tuple[str, ...]:
        return (self.classes[self.labels[index]],)

    def text_findings(self, index: int) -> list[Finding]:
        return []

    def where(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return ""


def made(scores: list[list[float]], targets: list[int]) -> Predictions:
    num, num_classes = len(scores), len(scores[0])
    source = Drawings(num, num_classes)
    source.labels = targets
    images = ImageFeatures(
        features=torch.eye(num),
        indices=tuple(range(num)),
        keys=tuple(source.keys),
        labels=torch.tensor(targets),
        broken=(),
    )
    values = torch.tensor(scores)
    return Predictions(
        split="unseen_drawing",
        source=source,
        images=images,
        names=source.classes,
        targets=torch.tensor(targets),
        probabilities=values,
        ranks=target_ranks(values, torch.tensor(targets)),
    )


@pytest.fixture
def hundred() -> Predictions:
    """50 right, 30 right among five, 20 missed, of 10 candidates."""
    scores, targets = [], []
    for index in range(100):
        target = index % 10
        rank = 0 if index < 50 else 3 if index < 80 else 9
        row: list[Any] = [0.0] * 10
        others = [other for other in range(10) if other != target]
        for place, name in enumerate([*others[:rank], target, *others[rank:]]):
            row[name] = (10 - place) / 55
        scores.append(row)
        targets.append(target)
    return made(scores, targets)


def test_apportion_keeps_the_proportion() -> None:
    assert apportion([50, 30, 20], 10) == [5, 3, 2]
    assert apportion([100, 68, 94], 24) == [9, 6, 9]
    assert apportion([3, 0, 1], 24) == [3, 0, 1]
    assert apportion([999, 1], 10) == [10, 0]
    assert apportion([0, 0, 0], 5) == [0, 0, 0]


def test_gallery_has_the_split_s_own_share_of_mistakes(hundred: Predictions) -> None:
    made_gallery = gallery(hundred, num=20)
    assert [(group.outcome, group.total, len(group.examples)) for group in made_gallery.groups] == [
        ("first", 50, 10),
        ("top5", 30, 6),
        ("missed", 20, 4),
    ]
    for group in made_gallery.groups:
        for example in group.examples:
            places = [place for place, guess in enumerate(example.guesses) if guess.is_true]
            assert places == {"first": [0], "top5": [3], "missed": []}[group.outcome]
            assert [guess.probability for guess in example.guesses] == pytest.approx([p / 55 for p in (10, 9, 8, 7, 6)])


def test_gallery_takes_every_kth_in_the_order_of_keys(hundred: Predictions) -> None:
    first = gallery(hundred, num=20).groups[0]
    # the 50 right ones by key are the samples 49, 48 ... 0; every fifth from the third on: 47, 42 ... 2
    assert [example.truth for example in first.examples] == ["thing 7", "thing 2"] * 5
    assert gallery(hundred, num=20) == gallery(hundred, num=20)


def test_styles_count_hits_of_each_style(hundred: Predictions) -> None:
    only = made([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], [0, 1, 1, 1])
    found = {style.style: style for style in styles(only, hundred)}
    assert list(found) == ["thick", "thin"]
    assert (found["thin"].ours.value, found["thick"].ours.value) == (0.5, 0.5)
    assert found["thin"].num_samples == 2
    assert (found["thin"].ours.low, found["thin"].ours.high) == wilson_interval(1, 2)
    baseline = found["thin"].baseline
    assert baseline is not None
    assert baseline.value == 0.5


def test_confusions_are_frequent_first_then_certain() -> None:
    scores = [[0.1, 0.9, 0.0], [0.45, 0.55, 0.0], [0.0, 0.02, 0.98], [0.2, 0.3, 0.5], [0.9, 0.1, 0.0]]
    found, num = confusions(made(scores, [0, 0, 1, 0, 0]), "nowhere")
    assert num == 3
    assert [(one.truth, one.guess, one.count) for one in found] == [
        ("thing 0", "thing 1", 2),
        ("thing 1", "thing 2", 1),
        ("thing 0", "thing 2", 1),
    ]
    assert (found[0].guess_probability, found[0].truth_probability) == pytest.approx(
        (0.9, 0.1)
    )  # the most certain case
    assert found[0].guess_picture is not None  # sample 2 shows thing 1
    assert found[1].guess_picture is None  # nothing shows thing 2


def test_no_confusions_when_all_is_right() -> None:
    assert confusions(made([[0.9, 0.1], [0.1, 0.9]], [0, 1]), "nowhere") == ((), 0)
