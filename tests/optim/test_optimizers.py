"""Each optimiser beside its rule, number by number."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.optim.config import OptimConfig, OptimizerName
from eyesmith.optim.optimizers import Lamb, Lion, Muon, fresh_moments, make_optimizer, orthogonal

GRADS = ([0.5, -2.0, 0.0], [0.1, 1.0, -3.0], [-4.0, 0.2, 0.3])


def _steps(name: OptimizerName, *, decay: float, betas: tuple[float, float]) -> tuple[torch.Tensor, Any]:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    groups = [{"params": [weight], "weight_decay": decay}]
    optimizer = make_optimizer(OptimConfig(name=name, peak_lr=0.1, betas=betas, eps=1e-8), groups)
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


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd", "lion", "muon"])
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


def test_orthogonal_keeps_singular_vectors_and_evens_out_their_values() -> None:
    draws = torch.Generator().manual_seed(0)
    for shape in ((20, 30), (30, 20)):
        u, _, v = torch.linalg.svd(torch.randn(2, *shape, generator=draws), full_matrices=False)
        values = torch.linspace(1.0, 0.05, 20)
        found = orthogonal(u * values @ v)
        inside = u.mT @ found @ v.mT  # the values in the same vectors
        even = inside.diagonal(dim1=1, dim2=2)
        assert ((even > 0.6) & (even < 1.3)).all()
        assert (inside - torch.diag_embed(even)).abs().max() < 0.05  # of bf16, where the machine is faster in it
    assert torch.equal(orthogonal(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def test_muon_steps_matrices_by_the_orthogonal_of_nesterovs_mean_and_the_rest_as_adamw() -> None:
    draws = torch.Generator().manual_seed(1)
    kernel, thin, bias = (
        nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((16, 3, 3, 3), (20, 1, 3, 3), (5,))
    )
    start, others = kernel.detach().clone(), [nn.Parameter(one.detach().clone()) for one in (thin, bias)]
    muon = Muon([kernel, thin, bias], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.3)
    adam = torch.optim.AdamW(others, lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.3)
    wanted, mean = start, torch.zeros_like(start)
    for _ in range(3):
        for one in (kernel, thin, bias):
            one.grad = torch.randn(one.shape, generator=draws)
        for ours, theirs in zip((thin, bias), others, strict=True):
            assert ours.grad is not None
            theirs.grad = ours.grad.clone()
        assert kernel.grad is not None
        mean = 0.9 * mean + 0.1 * kernel.grad
        ahead = 0.9 * mean + 0.1 * kernel.grad
        step = orthogonal(ahead.view(1, 16, 27)).view_as(start) * 0.2 * 27**0.5
        wanted = wanted - 0.1 * (0.3 * wanted + step)
        muon.step()
        adam.step()
    torch.testing.assert_close(kernel.detach(), wanted)
    for ours, theirs in zip((thin, bias), others, strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)


def slow_steps(
    start: list[float], grads: list[list[float]], *, lr: float, b1: float, b2: float, eps: float, decay: float
) -> list[float]:
    """The rule, number by number."""
    p, m, v = list(start), [0.0] * len(start), [0.0] * len(start)
    for t, grad in enumerate(grads, 1):
        m = [b1 * x + (1 - b1) * g for x, g in zip(m, grad, strict=True)]
        v = [b2 * x + (1 - b2) * g * g for x, g in zip(v, grad, strict=True)]
        u = [x / (math.sqrt(y) + eps) + decay * w for x, y, w in zip(m, v, p, strict=True)]
        long_p, long_u = (math.sqrt(sum(x * x for x in row)) for row in (p, u))
        ratio = min(max(long_p / long_u, 0.01), 10.0) if long_p > 0 and long_u > 0 else 1.0
        step = lr * math.sqrt(1 - b2**t) / (1 - b1**t) * ratio
        p = [w - step * x for w, x in zip(p, u, strict=True)]
    return p


@pytest.mark.parametrize("start", [[0.3, -0.2, 0.5], [0.0, 0.0, 0.0], [1e3, 2e3, -1e3], [1e-6, 0.0, 0.0]])
def test_steps_are_those_of_the_rule(start: list[float]) -> None:
    """An ordinary tensor, one of length 0 (ratio 1), and both ends of the clamp."""
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = Lamb([parameter], lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05)
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
    slow = slow_steps(start, grads.tolist(), lr=0.1, b1=0.9, b2=0.98, eps=1e-6, decay=0.05)
    assert parameter.tolist() == pytest.approx(slow, rel=1e-6, abs=1e-12)
