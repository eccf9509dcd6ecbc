from pathlib import Path

import pytest
import torch
from torch import nn

from eyesmith.errors import CheckpointError
from eyesmith.optim.config import OptimConfig
from eyesmith.train.state import TrainState


def _state(width: int = 3, *, average: bool = True) -> TrainState:
    torch.manual_seed(0)
    model = nn.Linear(width, 2)
    model.bias.requires_grad_(False)
    state = TrainState(model=model, optimizer=torch.optim.AdamW([model.weight], lr=0.1), average={})
    if average:
        state.average = {"weight": model.weight.detach().clone()}
    return state


def _step(state: TrainState) -> None:
    state.model(torch.ones(1, 3)).sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.update_average(OptimConfig(ema_decay=0.5))
    state.step += 1


def test_a_loaded_state_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    one = _state()
    _step(one)
    one.save(tmp_path)
    other = _state()
    other.load(tmp_path)
    _step(one)
    _step(other)
    assert other.step == 2
    assert torch.equal(one.model.weight, other.model.weight)
    assert torch.equal(one.average["weight"], other.average["weight"])


def test_running_statistics_are_part_of_the_state(tmp_path: Path) -> None:
    def new() -> TrainState:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        return TrainState(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1), average={})

    one, other = new(), new()
    one.model(torch.randn(5, 3))
    one.save(tmp_path)
    other.load(tmp_path)
    wanted = one.model.state_dict()
    assert set(one.counted()) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(torch.equal(value, wanted[name]) for name, value in other.model.state_dict().items())
    assert wanted["1.num_batches_tracked"] == 1


def test_the_average_follows_the_weights_slowly_and_leaves_them_alone() -> None:
    state = _state()
    start = state.model.weight.detach().clone()
    _step(state)
    now = state.model.weight.detach().clone()
    # the first step's decay is (0 + 1) / (0 + 10)
    torch.testing.assert_close(state.average["weight"], start + 0.9 * (now - start))
    with state.averaged():
        assert torch.equal(state.model.weight, state.average["weight"])
    assert torch.equal(state.model.weight, now)


def test_a_locked_parameter_is_not_saved(tmp_path: Path) -> None:
    state = _state()
    state.save(tmp_path)
    content = torch.load(tmp_path / "state" / "step-00000000.pt", weights_only=True)
    assert [name for name in content if name.startswith("model/")] == ["model/weight"]


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    _state().save(tmp_path)
    other = TrainState(model=nn.Sequential(nn.Linear(3, 2)), optimizer=torch.optim.SGD([torch.zeros(1)]), average={})
    with pytest.raises(CheckpointError, match="another model"):
        other.load(tmp_path)


def test_a_state_of_another_size_is_refused(tmp_path: Path) -> None:
    _state(4).save(tmp_path)
    with pytest.raises(CheckpointError, match="weight.*2, 4.*2, 3"):
        _state(3).load(tmp_path)


def test_a_state_saved_in_the_background_is_that_of_its_moment(tmp_path: Path) -> None:
    state = _state()
    _step(state)
    at_save = state.model.weight.detach().clone()
    state.save(tmp_path, in_background=True)
    _step(state)
    state.finish_saving()
    other = _state()
    other.load(tmp_path)
    assert other.step == 1
    assert torch.equal(other.model.weight, at_save)


def test_an_error_in_the_background_shows(tmp_path: Path) -> None:
    state = _state()
    (tmp_path / "state").write_text("in the way")
    state.save(tmp_path, in_background=True)
    with pytest.raises(OSError, match="state"):
        state.finish_saving()


def test_a_state_without_what_the_run_needs_is_refused(tmp_path: Path) -> None:
    _state(average=False).save(tmp_path)
    with pytest.raises(CheckpointError, match="has no average/weight; it was saved with other settings"):
        _state().load(tmp_path)
