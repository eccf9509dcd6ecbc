import itertools

import pytest

from eyesmith.optim import warmup_cosine


def _rates(total: int, warmup: int) -> list[float]:
    return [warmup_cosine(step, peak=2.0, warmup_steps=warmup, total_steps=total) for step in range(total)]


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
