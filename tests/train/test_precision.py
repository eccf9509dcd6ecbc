import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from eyesmith.tasks import contrastive
from eyesmith.train import TrainState, new_state, train
from eyesmith.train import precision as module
from eyesmith.train.config import ParallelConfig
from eyesmith.train.precision import LossScale, autocast, choose_precision, set_switches
from eyesmith.train.replay import NonFiniteError


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision("auto", torch.device("cpu")) == expected


def test_a_wish_is_followed() -> None:
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_products_inside_the_context_are_in_the_chosen_format() -> None:
    a = torch.ones(2, 2)
    with autocast("bf16", torch.device("cpu")):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("fp16", torch.device("cpu")):
        assert (a @ a).dtype == torch.float16
    with autocast("fp32", torch.device("cpu")):
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("is_on", [False, True])
def test_the_switches_of_a_gpu_are_those_of_the_config(is_on: bool) -> None:
    before = (
        ParallelConfig(tf32=torch.backends.cuda.matmul.allow_tf32, cudnn_benchmark=torch.backends.cudnn.benchmark),
        torch.backends.cudnn.allow_tf32,
    )
    try:
        set_switches(ParallelConfig(tf32=is_on, cudnn_benchmark=is_on))
        assert torch.backends.cuda.matmul.allow_tf32 == is_on
        assert torch.backends.cudnn.allow_tf32 == is_on
        assert torch.backends.cudnn.benchmark == is_on
    finally:
        set_switches(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_the_loss_scale_follows_as_torchs_scaler_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWTH_STEPS", 3)
    ours, draws = LossScale(torch.device("cpu")), torch.Generator().manual_seed(0)
    theirs, good, none = torch.tensor(module.FIRST_SCALE), torch.zeros((), dtype=torch.int32), torch.zeros(())
    for is_left_out in (torch.rand(60, generator=draws) < 0.2).tolist():
        ours.follow(torch.tensor(is_left_out), none)
        torch._amp_update_scale_(theirs, good, torch.tensor(float(is_left_out)), 2.0, 0.5, 3)
        assert (ours.value, ours.good_steps) == (theirs, good)
    kept = ours.value.clone(), ours.good_steps.clone()
    ours.follow(torch.tensor(True), torch.ones(()))  # a gate that is shut
    assert (ours.value, ours.good_steps) == kept


CONFIGS = {
    name: replace(config, epochs=1, precision="fp16", log_every_steps=4)
    for name, config in tiny.CONFIGS.items()
    if name in ("contrastive", "contrastive, parts", "masked, parts", "classify")
}


def _trained(config: Any, *, until: int = 10, state_in: Path | None = None, save_in: Path | None = None) -> TrainState:
    objective = tiny.objective_of(config)
    state = new_state(objective, config)
    if state_in is not None:
        state.load(state_in)
    train(state, objective, tiny.Noise(10, objective.prepare), config, should_stop=lambda: state.step == until)
    if save_in is not None:
        state.save(save_in)
    return state


def _content(state: TrainState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state._tensors().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_whose_gradient_overflows_are_left_out_and_a_stopped_run_goes_on_as_one_that_was_not(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = CONFIGS[name]
    monkeypatch.setattr(module, "FIRST_SCALE", 2.0**60)  # what no gradient fits into
    monkeypatch.setattr(module, "GROWTH_STEPS", 2)
    monkeypatch.setattr(LossScale, "follow", _fast(LossScale.follow))
    begun, first = _trained(config, until=0), _trained(config, until=1, save_in=tmp_path)
    for key, value in _content(begun).items():
        now = _content(first)[key]
        assert (now < value) if key == "loss_scale/value" else torch.equal(now, value), key
    whole, resumed = _trained(config), _trained(config, state_in=tmp_path)
    ours, theirs = _content(resumed), _content(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert any(not torch.equal(theirs[key], value) for key, value in _content(begun).items() if key[:6] == "model/")


def _fast(follow: Any) -> Any:
    """Falls by 2**10 in place of 2, so that a few steps do."""

    def fall(self: LossScale, is_left_out: Tensor, held: Tensor) -> None:
        for _ in range(10 if is_left_out else 1):
            follow(self, is_left_out, held)

    return fall


def test_steps_in_fp16_go_where_those_in_fp32_go_and_need_their_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """By stochastic gradient descent, whose way is the sum of gradients; of a loss made so small that fp16 has none."""
    base = CONFIGS["contrastive"]
    config = replace(base, optim=replace(base.optim, name="sgd", peak_lr=1e7, weight_decay=0.0, clip_norm=0.0))
    monkeypatch.setattr(
        contrastive, "contrast", lambda *given, f=contrastive.contrast, **more: f(*given, **more) * 1e-7
    )

    def way(precision: Any, scale: float) -> Tensor:
        monkeypatch.setattr(module, "FIRST_SCALE", scale)
        ends = [_trained(replace(config, precision=precision), until=steps).trained() for steps in (0, 2)]
        return torch.cat([(ends[1][name] - value).detach().flatten() for name, value in ends[0].items()])

    whole = way("fp32", 1.0)
    assert (way("fp16", 2.0**20) - whole).norm() < 0.05 * whole.norm()
    assert (way("fp16", 1.0) - whole).norm() > 0.2 * whole.norm()


def test_an_overflow_at_a_scale_of_one_and_a_loss_that_is_not_finite_stop_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = tiny.objective_of(CONFIGS["classify"])
    state = new_state(objective, CONFIGS["classify"])
    objective.model.image.register_forward_hook(lambda module, given, out: out * math.nan if state.step == 2 else out)
    with pytest.raises(NonFiniteError, match="step 3: loss nan"):
        train(state, objective, tiny.Noise(10, objective.prepare), CONFIGS["classify"])
    assert state.step == 2
    monkeypatch.setattr(module, "FIRST_SCALE", 1.0)
    monkeypatch.setattr(LossScale, "unscale", lambda self, grads: [one.fill_(math.inf) for one in grads])
    with pytest.raises(NonFiniteError, match=r"step 1: loss \d.*gradient norm inf"):
        _trained(CONFIGS["classify"])
