import math

import pytest
import torch

from eyesmith.optim.build import fresh_moments, make_optimizer
from eyesmith.optim.lamb import Lamb


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


def test_a_fresh_state_has_the_tensors_of_a_used_one() -> None:
    for name in ("adamw", "lamb"):
        parameter = torch.nn.Parameter(torch.ones(2, 3))
        groups = [{"params": [parameter], "weight_decay": 0.1, "lr_scale": 1.0}]
        optimizer = make_optimizer(name, groups, lr=0.1, betas=(0.9, 0.98), eps=1e-6)
        fresh = fresh_moments(optimizer, parameter)
        parameter.grad = torch.ones(2, 3)
        optimizer.step()
        used = optimizer.state[parameter]
        assert {key: value.shape for key, value in used.items()} == {key: value.shape for key, value in fresh.items()}
