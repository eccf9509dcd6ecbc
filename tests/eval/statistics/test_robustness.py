import numpy as np
import pytest

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.statistics import fit_robustness_line


def test_the_line_is_least_squares_on_logits():
    rng = np.random.default_rng(0)
    plain = rng.uniform(0.5, 0.9, 12)
    shifted = rng.uniform(0.2, 0.6, 12)
    line = fit_robustness_line(list(zip(plain, shifted, strict=True)))
    slope, intercept = np.polyfit(np.log(plain / (1 - plain)), np.log(shifted / (1 - shifted)), 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert 0 <= line.r2 < 1


def test_models_on_the_line_have_no_effective_robustness():
    def on_line(accuracy):
        return 1 / (1 + np.exp(-(0.8 * np.log(accuracy / (1 - accuracy)) - 0.9)))

    line = fit_robustness_line([(a, on_line(a)) for a in (0.4, 0.6, 0.7)])
    assert line.r2 == pytest.approx(1)
    assert line.effective(0.76, on_line(0.76)) == pytest.approx(0, abs=1e-12)
    assert line.effective(0.76, on_line(0.76) + 0.2) == pytest.approx(0.2)
    assert line.expected(0.999) < 1


def test_wrong_baselines_are_named():
    with pytest.raises(DataError, match="at least 2"):
        fit_robustness_line([(0.5, 0.4)])
    with pytest.raises(DataError, match="same accuracy"):
        fit_robustness_line([(0.5, 0.4), (0.5, 0.3)])
    with pytest.raises(ConfigError, match="fractions"):
        fit_robustness_line([(76.0, 40.0), (80.0, 44.0)])
