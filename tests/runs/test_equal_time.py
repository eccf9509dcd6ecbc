from dataclasses import replace

import pytest

from eyesmith.data.buckets import BucketConfig
from eyesmith.models.captioner import CaptionerConfig
from eyesmith.models.lora import LoraConfig
from eyesmith.runs.equal_time import TIMED_STEPS, WARM_UP_STEPS, Trial, epochs_at_equal_time
from eyesmith.tasks.caption import Captioning, CaptionTaskConfig
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


def test_a_trial_steps_what_the_run_trains(config: TrainConfig) -> None:
    """A decoder beside the towers, adapters in the place of their weights, steps of fewer pictures than a batch."""
    fields = {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__}
    told = Trial(CaptionTaskConfig(**{**fields, "caption": CaptionerConfig(width=16, depth=1, heads=2)}))
    assert isinstance(told._objective, Captioning)
    assert "captioner.words.weight" in told._state.trained()
    adapted = Trial(replace(config, lora=LoraConfig(rank=2)))
    assert all(".lora_" in name or name == "logit_scale" for name in adapted._state.trained())
    sized = Trial(replace(config, batch_size=8, buckets=BucketConfig(cells=(4, 9), ratios=(1.0,), tokens=72)))
    assert (sized.steps_per_epoch, sized.samples_per_step) == (3, 8.0)
    assert all(trial.step_s() > 0 for trial in (told, adapted, sized))
