from dataclasses import replace

import pytest
import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads import Labelled, ZeroShotHead, align, fit_logistic, probe, shared_samples
from eyesmith.eval.heads.choose import accuracy
from eyesmith.eval.statistics.metrics import wilson_interval

NAMES = ("ant", "bee", "cat")


def made(count=60, seed=0, noise=0.6, names=NAMES, name="made"):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(names)
    order = torch.tensor([NAMES.index(one) for one in names])
    rows = torch.eye(10)[order][labels] + noise * torch.randn(count, 10, generator=generator)
    features = torch.nn.functional.normalize(rows, dim=-1)
    keys = tuple(f"{seed}-{index}" for index in range(count))
    return Labelled(features=features, labels=labels, keys=keys, names=tuple(names), name=name)


def test_a_linear_probe_uses_all_training_samples_at_the_chosen_setting():
    train, test = made(), made(300, 1)
    found = probe(train, test)
    fit = found.fits[0]
    assert fit.validation is not None
    expected = fit_logistic(train.features, train.labels, 3, c=fit.settings["c"], tolerance=1e-6)(test.features)
    torch.testing.assert_close(fit.logits, expected, atol=1e-3, rtol=1e-3)
    value, low, high = found.metrics["acc1"]
    assert value == accuracy(expected, test.labels)
    assert (low, high) == wilson_interval(round(value * 300), 300)
    assert (found.n, found.label) == (300, "linear")


@pytest.mark.parametrize("head", ["linear", "gaussian"])
def test_the_test_labels_have_no_part_in_any_choice(head):
    train, test = made(), made(90, 1)
    mixed = ZeroShotHead(weights=torch.eye(10)[:3], scale=20.0)
    one = probe(train, test, head=head, zero_shot=mixed, shots=4, seeds=(0, 1))
    other_labels = Labelled(
        features=test.features, labels=test.labels.flip(0), keys=test.keys, names=test.names, name="x"
    )
    other = probe(train, other_labels, head=head, zero_shot=mixed, shots=4, seeds=(0, 1))
    for a, b in zip(one.fits, other.fits, strict=True):
        assert a.settings == b.settings
        assert a.logits.equal(b.logits)


def test_more_shots_are_better_and_seeds_widen_the_interval():
    train, test = made(90, noise=0.5), made(400, 1, noise=0.5)
    few, many = (probe(train, test, shots=shots, seeds=(0, 1, 2)) for shots in (1, 16))
    assert few.metrics["acc1"][0] < many.metrics["acc1"][0]
    assert few.metrics["acc1"][2] - few.metrics["acc1"][1] > many.metrics["acc1"][2] - many.metrics["acc1"][1]
    assert (few.label, many.label) == ("linear, 1 shot", "linear, 16 shots")
    shares = [accuracy(fit.logits, test.labels) for fit in few.fits]
    assert few.metrics["acc1"][0] == pytest.approx(sum(shares) / 3)


def test_zero_shot_helps_a_gaussian_head_with_few_samples():
    train, test = made(30, noise=1.0), made(400, 1, noise=1.0)
    alone = probe(train, test, head="gaussian")
    assert alone.fits[0].settings["alpha"] == float("inf")
    mixed = probe(train, test, head="gaussian", zero_shot=ZeroShotHead(weights=torch.eye(10)[:3], scale=20.0))
    assert mixed.metrics["acc1"][0] > alone.metrics["acc1"][0]
    given = probe(
        train,
        test,
        head="gaussian",
        shrinkage=0.5,
        alpha=0.0,
        zero_shot=ZeroShotHead(weights=torch.eye(10)[:3], scale=20.0),
    )
    assert given.fits[0].validation is None
    torch.testing.assert_close(given.fits[0].logits, (20 * test.features[:, :3]).double(), atol=1e-5, rtol=0)


def test_classes_are_matched_by_name():
    train, test = made(), made(60, 1, names=("cat", "ant"))
    moved = align(test, train)
    assert moved.names == NAMES
    assert [NAMES[label] for label in moved.labels.tolist()[:4]] == ["cat", "ant", "cat", "ant"]
    assert probe(train, test).metrics["acc1"][0] > 0.6
    strange = Labelled(features=test.features, labels=test.labels, keys=test.keys, names=("cow", "ant"), name="farm")
    with pytest.raises(DataError, match="farm: class 'cow' is not among the 3 classes of made"):
        probe(train, strange)


def test_one_sample_a_class_needs_no_validation():
    found = probe(made(3), made(30, 1))
    assert found.fits[0].validation is None
    assert found.fits[0].settings == {"c": 10.0}


def test_pictures_of_both_sets_are_found():
    train, test = made(), made(10, 1)
    both = Labelled(
        features=torch.cat([test.features, train.features[7:8]]),
        labels=torch.cat([test.labels, train.labels[7:8]]),
        keys=(*test.keys, "again"),
        names=NAMES,
        name="both",
    )
    assert shared_samples(train, test) == []
    assert shared_samples(train, both) == [("0-7", "again")]


def test_a_class_without_training_samples_is_named():
    train = made()
    train = replace(train, features=train.features[train.labels != 1], labels=train.labels[train.labels != 1])
    with pytest.raises(DataError, match="class 'bee' has no training sample"):
        probe(train, made(30, 1))


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="head"):
        probe(made(), made(9, 1), head="mlp")
    with pytest.raises(ConfigError, match="seeds"):
        probe(made(), made(9, 1), seeds=(1, 1))


def test_all_right_is_no_certainty():
    found = probe(made(noise=0.0), made(30, 1, noise=0.0), seeds=(0, 1), shots=2)
    for value, low, high in found.metrics.values():
        assert value == 1
        assert (low, high) == pytest.approx(wilson_interval(30, 30))
