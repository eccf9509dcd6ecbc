import math

import pytest
import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads import GaussianStatistics, choose_c, choose_mixture, draw_shots, fit_logistic, validation_split
from eyesmith.eval.heads.choose import accuracy

LABELS = torch.tensor([0] * 10 + [1] * 5 + [2] * 1)


def test_the_held_out_part_is_a_share_of_every_class_that_can_spare_one():
    train, held = validation_split(LABELS, frac=0.2)
    assert sorted(train.tolist() + held.tolist()) == list(range(16))
    assert torch.bincount(LABELS[held], minlength=3).tolist() == [2, 1, 0]
    assert validation_split(LABELS, seed=1)[1].tolist() != held.tolist()
    assert validation_split(LABELS)[1].equal(held)
    with pytest.raises(DataError, match="no class has two"):
        validation_split(torch.arange(4))
    with pytest.raises(ConfigError, match="frac"):
        validation_split(LABELS, frac=1.0)


def test_shots_are_nested_and_validation_is_apart():
    labels = torch.arange(60) % 3
    small, large = draw_shots(labels, 3, 2, seed=4)[0], draw_shots(labels, 3, 8, seed=4)
    assert set(small.tolist()) < set(large[0].tolist())
    assert torch.bincount(labels[large[0]]).tolist() == [8, 8, 8]
    assert torch.bincount(labels[large[1]]).tolist() == [4, 4, 4]
    assert not set(large[0].tolist()) & set(large[1].tolist())
    assert draw_shots(labels, 3, 2, seed=5)[0].tolist() != small.tolist()
    assert len(draw_shots(labels, 3, 20, seed=0)[1]) == 0


def test_a_class_with_too_few_samples_is_named():
    with pytest.raises(DataError, match="class 'owl' has 1 training samples, 2 shots need 2"):
        draw_shots(LABELS, 3, 2, seed=0, names=["cat", "dog", "owl"])
    with pytest.raises(ConfigError, match="shots"):
        draw_shots(LABELS, 3, 0, seed=0)


def noisy(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.eye(12)[:3]
    rows = centres[labels] + 0.45 * torch.randn(count, 12, generator=generator)
    return torch.nn.functional.normalize(rows, dim=-1), labels


def test_c_is_the_best_on_the_held_out_part_and_the_smallest_among_equals():
    train, held = noisy(36, 0), noisy(300, 1)
    chosen = choose_c(train, held, 3, grid=(100.0, 0.01, 1.0))
    expected = {c: accuracy(fit_logistic(*train, 3, c=c)(held[0]), held[1]) for c in (0.01, 1.0, 100.0)}
    assert dict(chosen.tried) == pytest.approx(expected)
    assert chosen.accuracy == max(expected.values())
    assert chosen.value == min(c for c, share in expected.items() if share == chosen.accuracy)
    with pytest.raises(ConfigError, match="grid"):
        choose_c(train, held, 3, grid=())


def test_a_useless_classifier_is_not_mixed_in_and_a_perfect_one_is():
    train, held = noisy(60, 0), noisy(300, 1)
    statistics = GaussianStatistics(*train, 3)
    wrong = 50 * torch.nn.functional.one_hot((held[1] + 1) % 3, 3).float()
    right = 50 * torch.nn.functional.one_hot(held[1], 3).float()
    shrinkage, chosen = choose_mixture(statistics, held, wrong)
    assert chosen.value > 5  # mostly or only the Gaussian head
    assert 0 < shrinkage < 1
    _, chosen = choose_mixture(statistics, held, right)
    assert (chosen.accuracy, dict(chosen.tried)[0.0]) == (1, 1)
    assert chosen.value < 100
    _, chosen = choose_mixture(statistics, held, None, alphas=(math.inf,))
    assert chosen.value == math.inf
    with pytest.raises(ConfigError, match="there are none"):
        choose_mixture(statistics, held, None)
