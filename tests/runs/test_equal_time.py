from dataclasses import replace

import pytest

from eyesmith.runs.equal_time import TIMED_STEPS, WARM_UP_STEPS, Trial, epochs_at_equal_time
from eyesmith.tasks.contrastive import TrainConfig


@pytest.mark.parametrize(("their_s", "our_s", "epochs"), [(2.0, 1.0, 6.0), (1.0, 2.0, 1.5), (1.0, 100.0, 1.0)])
def test_epochs_follow_the_ratio_of_the_steps(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, their_s: float, our_s: float, epochs: float
) -> None:
    """Three epochs of a reference whose steps take their_s; a machine that slows down over time slows both."""
    load = iter(1.0 + 0.1 * i // 2 for i in range(1000))
    monkeypatch.setattr(Trial, "step_s", lambda trial: next(load) * (our_s if trial._config.seed else their_s))
    assert epochs_at_equal_time(replace(config, seed=1), config) == pytest.approx(epochs)


def test_a_trial_takes_one_step_at_a_time(config: TrainConfig) -> None:
    trial = Trial(config)
    for step in range(1, WARM_UP_STEPS + TIMED_STEPS + 1):
        assert trial.step_s() > 0
        assert trial._state.step == step
