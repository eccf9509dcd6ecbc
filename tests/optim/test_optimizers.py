"""Each optimiser beside its rule, number by number."""

import math
from typing import Any

import pytest
import torch
from tests.train.tiny import CLIP
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.optim.config import OptimConfig, OptimizerName
from eyesmith.optim.groups import parameter_groups
from eyesmith.optim.optimizers import Lamb, Lion, fresh_moments, make_optimizer, orthogonal

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


def slow_muon(
    start: torch.Tensor, grads: torch.Tensor, *, lr: float, decay: float, momentum: float, count: int = 5
) -> torch.Tensor:
    """The rule for one matrix by singular values: the iteration acts on each of them by itself."""
    weight, mean = start.double(), torch.zeros_like(start, dtype=torch.float64)
    for grad in grads.double():
        mean = momentum * mean + (1 - momentum) * grad
        left, values, right = torch.linalg.svd((1 - momentum) * grad + momentum * mean, full_matrices=False)
        values = values / values.square().sum().sqrt()
        for _ in range(count):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        step = 0.2 * max(start.shape) ** 0.5 * left @ values.diag() @ right
        weight = weight * (1 - lr * decay) - lr * step
    return weight


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_muons_matrices_step_by_the_rule(shape: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(1)
    start, grads = torch.randn(*shape, generator=draws), torch.randn(4, *shape, generator=draws)
    weight = nn.Parameter(start.clone())
    groups = [{"params": [weight], "weight_decay": 0.1, "is_matrix": True}]
    optimizer = make_optimizer(OptimConfig(name="muon", peak_lr=0.05), groups)
    for grad in grads:
        weight.grad = grad.clone()
        optimizer.step()
    slow = slow_muon(start, grads, lr=0.05, decay=0.1, momentum=0.95)
    torch.testing.assert_close(weight.detach().double(), slow, atol=1e-5, rtol=1e-5)
    kept = fresh_moments(optimizer, weight)
    assert kept.keys() == optimizer.state[weight].keys() == {"momentum_buffer"}


def test_a_kernel_steps_as_the_matrix_it_is_and_many_as_one() -> None:
    draws = torch.Generator().manual_seed(2)
    starts = [
        torch.randn(6, 4, generator=draws),
        torch.randn(6, 4, generator=draws),
        torch.randn(3, 5, generator=draws),
    ]
    grads = [torch.randn(one.shape, generator=draws) for one in starts]

    def stepped(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
        weights = [nn.Parameter(one.reshape(shape).clone()) for one, shape in zip(starts, shapes, strict=False)]
        optimizer = make_optimizer(
            OptimConfig(name="muon", peak_lr=0.05), [{"params": weights, "weight_decay": 0.1, "is_matrix": True}]
        )
        for weight, grad in zip(weights, grads, strict=False):
            weight.grad = grad.reshape(weight.shape)
        optimizer.step()
        return [weight.detach().flatten(1) for weight in weights]

    kernels = stepped([(6, 4, 1, 1), (6, 2, 2, 1), (3, 5, 1, 1)])
    assert all(torch.equal(one, other) for one, other in zip(kernels, stepped([(6, 4), (6, 4), (3, 5)]), strict=True))
    torch.testing.assert_close(kernels[0], stepped([(6, 4)])[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_singular_values_come_near_1(products: torch.dtype) -> None:
    matrices = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(2))
    found = orthogonal(matrices, products=products)
    assert found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25
    assert torch.equal(orthogonal(torch.zeros(2, 3, 2), products=products), torch.zeros(2, 3, 2))


def test_the_rest_of_muons_parameters_step_as_adamw_does() -> None:
    found, rest = (_steps(name, decay=0.5, betas=(0.9, 0.99))[0] for name in ("muon", "adamw"))
    assert torch.equal(found, rest)


def test_muon_takes_matrices_and_kernels_and_no_tables() -> None:
    torch.manual_seed(0)
    model = CLIP.model.build()
    groups = parameter_groups(model, OptimConfig(name="muon"))
    names = {id(value): name for name, value in model.named_parameters()}
    turned = [names[id(one)] for group in groups if group.get("is_matrix") for one in group["params"]]
    sizes = {name: value.shape for name, value in model.named_parameters()}
    assert turned
    assert all(min(sizes[name][0], sizes[name].numel() // sizes[name][0]) >= 16 for name in turned)
    assert not {"text.token_embedding.weight", "text.positional_embedding", "logit_scale"} & set(turned)
    assert {"text.text_projection", *(name for name in sizes if name.endswith("qkv.weight"))} <= set(turned)
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert not any(group.get("is_matrix") for group in parameter_groups(model, OptimConfig()))


def test_muon_takes_a_heads_matrices_where_no_tower_trains() -> None:
    model = nn.Module()
    model.image = CLIP.model.image.build()
    model.head = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Linear(16, 20), nn.Linear(20, 4))

    def turned() -> set[str]:
        names = {id(value): name for name, value in model.named_parameters()}
        groups = parameter_groups(model, OptimConfig(name="muon"))
        return {names[id(one)] for group in groups if group.get("is_matrix") for one in group["params"]}

    assert turned()
    assert not {"head.0.weight", "head.1.weight"} & turned()
    model.image.requires_grad_(False)
    assert turned() == {"head.0.weight", "head.1.weight"}
