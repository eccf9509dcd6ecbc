"""SGD and Lion beside AdamW and LAMB, by name."""

from typing import Any

import pytest
import torch
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.optim.build import OptimizerName, fresh_moments, make_optimizer
from eyesmith.optim.lion import Lion
from eyesmith.train.config import OptimConfig

GRADS = ([0.5, -2.0, 0.0], [0.1, 1.0, -3.0], [-4.0, 0.2, 0.3])


def _steps(name: OptimizerName, *, decay: float, betas: tuple[float, float]) -> tuple[torch.Tensor, Any]:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    groups = [{"params": [weight], "weight_decay": decay}]
    optimizer = make_optimizer(name, groups, lr=0.1, betas=betas, eps=1e-8)
    for grad in GRADS:
        weight.grad = torch.tensor(grad)
        optimizer.step()
    return weight.detach(), optimizer


def test_lion_decays_first_and_steps_by_the_sign_of_its_mean() -> None:
    found, _ = _steps("lion", decay=0.5, betas=(0.9, 0.99))
    for place, value in enumerate((1.0, -2.0, 3.0)):
        mean = 0.0
        for grad in (row[place] for row in GRADS):
            value -= 0.1 * 0.5 * value
            direction = 0.9 * mean + 0.1 * grad
            value -= 0.1 * ((direction > 0) - (direction < 0))
            mean = 0.99 * mean + 0.01 * grad
        assert found[place].item() == pytest.approx(value, rel=1e-5)


def test_sgd_has_nesterovs_momentum_and_adds_its_decay_to_the_gradient() -> None:
    found, _ = _steps("sgd", decay=0.5, betas=(0.9, 0.99))
    for place, value in enumerate((1.0, -2.0, 3.0)):
        buffer = None
        for grad in (row[place] for row in GRADS):
            grad += 0.5 * value
            buffer = grad if buffer is None else 0.9 * buffer + grad
            value -= 0.1 * (grad + 0.9 * buffer)
        assert found[place].item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd", "lion"])
def test_what_is_kept_of_a_parameter_is_known_before_its_first_step(name: OptimizerName) -> None:
    weight, optimizer = _steps(name, decay=0.0, betas=(0.9, 0.99))
    kept = next(iter(optimizer.state.values()))
    fresh = fresh_moments(optimizer, weight)
    assert {key: value.shape for key, value in fresh.items()} == {key: value.shape for key, value in kept.items()}


def test_names_and_momentum_are_checked() -> None:
    assert OptimConfig(name="lion").name == "lion"
    with pytest.raises(ConfigError, match=r"optim\.name"):
        OptimConfig(name="adam")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="momentum"):
        OptimConfig(name="sgd", betas=(0.0, 0.9))


def test_lion_skips_what_has_no_gradient() -> None:
    weight = nn.Parameter(torch.ones(2))
    Lion([weight], lr=0.1, weight_decay=1.0).step()
    assert torch.equal(weight.detach(), torch.ones(2))
