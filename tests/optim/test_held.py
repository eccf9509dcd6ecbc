"""Steps that a flag holds back, and updates of all tensors at once beside loops over them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyesmith.optim.config import OptimConfig, OptimizerName
from eyesmith.optim.held import chosen, zero_if
from eyesmith.optim.optimizers import RATIO_BOUNDS, make_optimizer

NAMES: tuple[OptimizerName, ...] = ("adamw", "lamb", "sgd", "lion", "muon")
SHAPES = ((5, 3), (7,), (), (4, 1, 3, 3))


def _weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def _made(name: OptimizerName, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups = [
        {"params": weights[:1], "weight_decay": 0.2, "lr_scale": 1.0, "is_matrix": True},  # for muon
        {"params": weights[1:2], "weight_decay": 0.2, "lr_scale": 1.0},
        {"params": weights[2:], "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    return make_optimizer(OptimConfig(name=name, peak_lr=0.01, betas=(0.9, 0.98), eps=1e-6), groups)


def _give(weights: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step + 1)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def _content(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    kept = [value for weight in weights for value in optimizer.state[weight].values()]
    return [value.detach().clone() for value in (*weights, *kept)]


@pytest.mark.parametrize("name", NAMES)
def test_an_open_flag_changes_no_bit(name: OptimizerName) -> None:
    found = []
    for flag in (None, torch.zeros(())):
        weights = _weights()
        optimizer: Any = _made(name, weights)
        if flag is not None:
            optimizer.found_inf = flag
        for step in range(4):
            _give(weights, step)
            optimizer.step()
        found.append(_content(weights, optimizer))
    for plain, flagged in zip(*found, strict=True):
        assert torch.equal(plain, flagged)


@pytest.mark.parametrize("broken_at", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_shut_flag_holds_weights_and_moments(name: OptimizerName, broken_at: int) -> None:
    """Whatever the gradients are, in this step and later ones; also in the first step, which makes the moments."""
    weights = _weights()
    optimizer: Any = _made(name, weights)
    optimizer.found_inf = torch.zeros(())
    for step in range(broken_at):
        _give(weights, step)
        optimizer.step()
    # before the first step there are no moments
    before = _content(weights, optimizer) if broken_at else [weight.detach().clone() for weight in weights]
    optimizer.found_inf.fill_(1)
    for step in range(3):
        _give(weights, step)
        for weight, value in zip(weights, (math.nan, math.inf, -math.inf, 1.0), strict=True):
            assert weight.grad is not None
            weight.grad.view(-1)[0] = value
        optimizer.step()
    after = _content(weights, optimizer)
    for held, value in zip(before, after, strict=bool(broken_at)):
        assert torch.equal(held, value)
    if not broken_at:
        assert all(not value.any() for value in after[len(weights) :])


def test_sgd_is_torchs_bit_for_bit() -> None:
    ours, theirs = _weights(), _weights()
    own = _made("sgd", ours)
    groups = [{"params": theirs[:2], "weight_decay": 0.2}, {"params": theirs[2:], "weight_decay": 0.0}]
    peer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    for step in range(4):
        for weights, optimizer in ((ours, own), (theirs, peer)):
            _give(weights, step)
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def _slow_lion(weight: Tensor, grad: Tensor, kept: dict[str, Tensor], decay: float) -> None:
    mean = kept.setdefault("mean", torch.zeros_like(weight))
    weight.mul_(1 - 0.01 * decay)
    weight.sub_(0.01 * torch.sign(mean.lerp(grad, 1 - 0.9)))
    mean.lerp_(grad, 1 - 0.98)


def _slow_lamb(weight: Tensor, grad: Tensor, kept: dict[str, Any], decay: float) -> None:
    mean = kept.setdefault("mean", torch.zeros_like(weight))
    square = kept.setdefault("square", torch.zeros_like(weight))
    kept["count"] = count = kept.get("count", torch.zeros((), dtype=torch.float64)) + 1
    mean.lerp_(grad, 1 - 0.9)
    square.mul_(0.98).addcmul_(grad, grad, value=1 - 0.98)
    update = mean / (square.sqrt() + 1e-6)
    if decay:
        update = update + decay * weight
    length, wanted = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(update)
    ratio = torch.where((length > 0) & (wanted > 0), (length / wanted).clamp(*RATIO_BOUNDS), 1.0)
    correction = (1 - 0.98**count).sqrt() / (1 - 0.9**count)
    weight.sub_(update * (0.01 * correction * ratio).to(update.dtype))


@pytest.mark.parametrize(("name", "slow"), [("lion", _slow_lion), ("lamb", _slow_lamb)])
def test_all_tensors_at_once_are_a_loop_over_them_bit_for_bit(name: OptimizerName, slow: Any) -> None:
    weights = _weights()
    optimizer = _made(name, weights)
    expected = [weight.detach().clone() for weight in weights]
    kept: list[dict[str, Tensor]] = [{} for _ in weights]
    for step in range(4):
        _give(weights, step)
        for number, weight in enumerate(weights):
            assert weight.grad is not None
            slow(expected[number], weight.grad, kept[number], 0.2 if number < 2 else 0.0)
        optimizer.step()
    for weight, value in zip(weights, expected, strict=True):
        assert torch.equal(weight, value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_bits_are_chosen(dtype: torch.dtype) -> None:
    new, old = torch.tensor([1, -2, 3]).to(dtype), torch.tensor([0, 5, -6]).to(dtype)
    if dtype.is_floating_point:
        new[1] = math.nan
    for flag, expected in ((0.0, new), (1.0, old)):
        (found,) = chosen(torch.tensor(flag), [new], [old])
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    zero_if(torch.tensor(1.0), [new])
    assert not new.any()
