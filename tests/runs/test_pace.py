from dataclasses import replace

import pytest

from eyesmith.runs import pace
from eyesmith.train import TrainConfig


@pytest.mark.parametrize(("their_s", "our_s", "epochs"), [(2.0, 1.0, 6.0), (1.0, 2.0, 1.5), (1.0, 100.0, 1.0)])
def test_epochs_follow_the_ratio_of_the_steps(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, their_s: float, our_s: float, epochs: float
) -> None:
    """Three epochs of a reference whose steps take their_s; a machine that slows down over time slows both."""
    load = iter(1.0 + 0.1 * i // 2 for i in range(1000))
    monkeypatch.setattr(pace.Trial, "step_s", lambda trial: next(load) * (our_s if trial._config.seed else their_s))
    assert pace.epochs_at_equal_time(replace(config, seed=1), config) == pytest.approx(epochs)


def test_a_trial_takes_one_step_at_a_time(config: TrainConfig) -> None:
    trial = pace.Trial(config)
    for step in range(1, pace.WARM_UP_STEPS + pace.TIMED_STEPS + 1):
        assert trial.step_s() > 0
        assert trial._state.step == step
