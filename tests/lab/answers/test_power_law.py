import numpy as np
import pytest

from eyesmith.lab.answers.power_law import fit_power_law

SAMPLES = np.array([1e4, 3e4, 1e5, 3e5, 1e6])


def test_an_exact_law_is_found() -> None:
    errors = 1.8 * SAMPLES[:3] ** -0.11
    law = fit_power_law(SAMPLES[:3], errors, np.repeat(errors[None], 5, axis=0))
    assert law.exponent.value == pytest.approx(0.11, abs=1e-12)
    assert law.scale == pytest.approx(1.8)
    assert law.floor is None
    assert law.residual < 1e-12
    assert (law.exponent.low, law.exponent.high) == pytest.approx((0.11, 0.11))
    np.testing.assert_allclose(law.error(SAMPLES[:3]), errors)


def test_two_budgets_give_the_slope_between_them() -> None:
    law = fit_power_law(SAMPLES[:2], np.array([0.9, 0.6]), np.array([[0.9, 0.6]]))
    assert law.exponent.value == pytest.approx(np.log(0.9 / 0.6) / np.log(3))


def test_a_floor_is_found_where_there_are_budgets_enough() -> None:
    errors = 0.2 + 30 * SAMPLES**-0.4
    law = fit_power_law(SAMPLES, errors, np.repeat(errors[None], 3, axis=0))
    assert law.floor is not None
    assert law.floor.value == pytest.approx(0.2, abs=0.01)
    assert law.exponent.value == pytest.approx(0.4, abs=0.02)


def test_the_fit_is_scipys() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(0)
    errors = (0.1 + 20 * SAMPLES**-0.35) * np.exp(generator.normal(0, 0.02, len(SAMPLES)))
    law = fit_power_law(SAMPLES, errors, errors[None])

    def residuals(unknown):
        scale, exponent, floor = unknown
        return np.log(floor + np.exp(scale) * SAMPLES**-exponent) - np.log(errors)

    peer = optimize.least_squares(residuals, (3.0, 0.3, 0.05))
    assert law.floor is not None
    assert law.exponent.value == pytest.approx(peer.x[1], rel=0.05)
    assert law.floor.value == pytest.approx(peer.x[2], abs=0.02)
    assert law.residual**2 * len(SAMPLES) <= 2 * peer.cost * 1.05
    straight = fit_power_law(SAMPLES[:3], errors[:3], errors[None, :3])
    assert straight.exponent.value == pytest.approx(-np.polyfit(np.log(SAMPLES[:3]), np.log(errors[:3]), 1)[0])
