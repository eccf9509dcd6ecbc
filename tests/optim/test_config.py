import itertools

import pytest

from eyesmith.errors import ConfigError
from eyesmith.optim.config import OptimConfig


def _rates(total: int, warmup: int) -> list[float]:
    config = OptimConfig(peak_lr=2.0, warmup_steps=warmup, warmup_frac=0.0)
    return [config.lr_at(step, total) for step in range(total)]


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    rates = _rates(100, 10)
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(2.0)


def test_the_cosine_is_half_way_down_in_the_middle_and_near_zero_at_the_end() -> None:
    rates = _rates(110, 10)
    assert rates[60] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0, abs=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert _rates(5, 0)[0] == 2.0


def test_a_constant_rate_does_not_depend_on_the_length() -> None:
    config = OptimConfig(peak_lr=3.0, warmup_steps=4, schedule="constant")
    for total in (20, 500):
        rates = [config.lr_at(step, total) for step in range(20)]
        assert rates == pytest.approx([0.75, 1.5, 2.25, 3.0, *[3.0] * 16])


@pytest.mark.parametrize(("power", "last"), [(1.0, 0.2), (2.0, 0.04)])
def test_a_cool_down_falls_to_zero_at_the_end(power: float, last: float) -> None:
    config = OptimConfig(
        peak_lr=1.0, warmup_steps=2, schedule="constant_cooldown", cooldown_frac=0.25, cooldown_power=power
    )
    rates = [config.lr_at(step, 20) for step in range(21)]
    assert rates[2:16] == [1.0] * 14
    assert rates[19] == pytest.approx(last)
    assert rates[20] == 0


def test_the_config_chooses_and_counts() -> None:
    assert OptimConfig(peak_lr=2.0, warmup_steps=10).lr_at(4, 100) == pytest.approx(1.0)
    assert OptimConfig(peak_lr=2.0, warmup_frac=0.1).lr_at(4, 100) == pytest.approx(1.0)
    assert OptimConfig(peak_lr=2.0, warmup_frac=0, schedule="constant").lr_at(99, 100) == 2.0
    cooling = OptimConfig(peak_lr=2.0, warmup_frac=0, schedule="constant_cooldown", cooldown_frac=0.5)
    assert [cooling.lr_at(step, 100) for step in (49, 50, 75)] == [2.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "wrong", [{"layer_decay": 0.0}, {"layer_decay": 1.1}, {"warmup_steps": -1}, {"text_lr_scale": -1.0}]
)
def test_numbers_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OptimConfig(**wrong)
