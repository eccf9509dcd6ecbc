"""What a step found is fetched at once, and a step that is not finite changes nothing, whenever that is noticed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from eyesmith.train import Readings, TrainState, new_state, train
from eyesmith.train.replay import NonFiniteError


def test_readings_are_fetched_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched, fetch = [], Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: (fetched.append(self), fetch(self))[1])
    readings = Readings({"a": torch.tensor(0.1), "b": torch.arange(6.0).view(2, 3), "none": None})
    assert ("a" in readings, "none" in readings) == (True, False)
    assert not fetched
    assert readings.number("a") == torch.tensor(0.1).item()
    assert torch.equal(readings["b"], torch.arange(6.0, dtype=torch.float64).view(2, 3))
    assert len(fetched) == 1


def _content(state: TrainState) -> dict[str, Tensor]:
    moments = {
        f"{number}/{name}": value
        for number, kept in enumerate(state.optimizer.state.values())
        for name, value in kept.items()
    }
    found = {**state.model.state_dict(), **{f"average/{name}": value for name, value in state.average.items()}}
    return {name: value.clone() for name, value in (found | moments).items()}


def _stopped(config: Any, steps: int) -> dict[str, Tensor]:
    objective = tiny.objective_of(config)
    state = new_state(objective, config)
    train(state, objective, tiny.Noise(10, objective.prepare), config, should_stop=lambda: state.step == steps)
    return _content(state)


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd", "lion", "muon"])
@pytest.mark.parametrize("broken", [1, 3])
def test_a_step_that_is_not_finite_and_those_after_it_change_nothing(name: Any, broken: int) -> None:
    """Noticed at the next logged step, the fifth: step, samples, weights, moments and average are those before it."""
    config = replace(tiny.CLASSIFY, epochs=1, log_every_steps=5)
    config = replace(config, optim=replace(config.optim, name=name))
    objective = tiny.objective_of(config)
    objective.model.image.register_forward_hook(
        lambda module, given, out: out * math.nan if state.step + 1 == broken else out
    )
    state = new_state(objective, config)
    seen: list[int] = []
    with pytest.raises(NonFiniteError, match=f"step {broken}: loss nan") as found:
        train(
            state,
            objective,
            tiny.Noise(10, objective.prepare),
            config,
            hooks=[lambda state, facts: seen.append(facts.step)],
        )
    assert found.value.step == broken
    assert found.value.keys == tuple(f"{broken - 1}/{row}" for row in range(tiny.ROWS))
    assert state.step == broken - 1
    assert seen == [1, 2, 3, 4]
    expected, content = _stopped(config, broken - 1), _content(state)
    for key, value in content.items():
        if key in expected:
            assert torch.equal(value, expected[key]), key
        else:  # moments made at a first step that was held
            assert not value.any(), key


@pytest.mark.parametrize("way", ["save", "stop"])
def test_saving_and_stopping_notice_it_too(tmp_path: Path, way: str) -> None:
    config = replace(tiny.CLASSIFY, epochs=1, log_every_steps=100)
    objective = tiny.objective_of(config)
    objective.model.image.register_forward_hook(lambda module, given, out: out * math.nan if state.step == 1 else out)
    state = new_state(objective, config)
    with pytest.raises(NonFiniteError, match="step 2"):
        train(
            state,
            objective,
            tiny.Noise(10, objective.prepare),
            config,
            hooks=[lambda state, facts: state.save(tmp_path) if way == "save" and facts.step == 4 else None],
            should_stop=lambda: way == "stop" and state.step == 4,
        )
    assert state.step == 1
    assert not list(tmp_path.rglob("*.pt"))
