import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.statistics import calibration, expected_calibration_error, fit_temperature, reliability


def made(count=600, classes=5, seed=0, sharpen=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]  # the logits tell the truth
    return sharpen * logits, targets


def slow_error(confidence, correct, edges):
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_error_of_equal_widths_equals_a_slow_loop():
    logits, targets = made()
    found = calibration(logits, targets, bins=12)
    confidence, guess = logits.double().softmax(1).max(1)
    expected = slow_error(confidence.numpy(), (guess == targets).numpy(), np.linspace(0, 1, 13))
    assert found.error == pytest.approx(expected, abs=1e-12)
    assert sum(one.count for one in found.bins) == 600
    assert found.negative_log_likelihood == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits.double(), targets))
    )
    one_hot = torch.nn.functional.one_hot(targets, 5)
    assert found.brier == pytest.approx(float((logits.double().softmax(1) - one_hot).square().sum(1).mean()))


def test_bins_of_equal_mass_hold_equally_many():
    logits, targets = made(count=100)
    table = calibration(logits, targets, bins=7, kind="mass").bins
    assert sorted({one.count for one in table}) == [14, 15]
    assert all(a.high <= b.low for a, b in itertools.pairwise(table))
    assert len(reliability(torch.tensor([0.2, 0.4]), torch.tensor([0, 1]), bins=15, kind="mass")) == 2


def test_a_table_by_hand():
    table = reliability(torch.tensor([0.0, 0.5, 0.51, 1.0]), torch.tensor([0, 1, 1, 1]), bins=2)
    assert [(one.count, one.accuracy) for one in table] == [(2, 0.5), (2, 1.0)]  # 0.5 lies in (0, 0.5]
    assert expected_calibration_error(table) == pytest.approx(0.5 * 0.25 + 0.5 * 0.245)


@pytest.mark.parametrize("sharpen", [0.02, 0.5, 1.0, 3.0, 100.0])
def test_temperature_is_the_minimum_and_mends_the_error(sharpen):
    logits, targets = made(sharpen=sharpen)

    def loss(log_t):
        return float(torch.nn.functional.cross_entropy(logits.double() / math.exp(log_t), targets))

    best = minimize_scalar(loss, bounds=(-8, 8), method="bounded", options={"xatol": 1e-9})
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(math.exp(best.x), rel=1e-4)
    assert found == pytest.approx(sharpen, rel=0.2)
    before, after = calibration(logits, targets), calibration(logits, targets, temperature=found)
    assert after.negative_log_likelihood <= before.negative_log_likelihood + 1e-12
    assert after.error < 0.06


def test_where_no_temperature_is_best_it_says_so():
    right = torch.eye(3) * 5
    with pytest.raises(DataError, match="every sample is right"):
        fit_temperature(right, torch.arange(3))
    with pytest.raises(DataError, match="no better"):
        fit_temperature(-right, torch.arange(3))


def test_wrong_input_is_named():
    with pytest.raises(DataError, match="not logits"):
        reliability(torch.tensor([3.0]), torch.tensor([1]))
    with pytest.raises(ShapeError):
        reliability(torch.tensor([0.3]), torch.tensor([1, 0]))
    with pytest.raises(ConfigError, match="bins"):
        reliability(torch.tensor([0.3]), torch.tensor([1]), bins=0)
    with pytest.raises(ShapeError, match="outside"):
        calibration(torch.zeros(2, 3), torch.tensor([0, 3]))
