import pytest
import torch
from torch import nn

from eyesmith.data.order import step_seed
from eyesmith.models.drop_path import DropPath
from eyesmith.train.rng import StepDraws, fractions


def _slow(seed: int, layer: int, row: int) -> float:
    """The rule with Python's whole numbers."""
    word = (1 << 64) - 1

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & word
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & word
        return value ^ (value >> 31)

    golden = 0x9E3779B97F4A7C15
    inner = mix((seed + (layer + 1) * golden) & word)
    return (mix((inner + (row + 1) * golden) & word) >> 40) / 2**24


def test_fractions_are_those_of_the_rule() -> None:
    rows = torch.tensor([0, 7, 90_111, 3])
    for seed in (0, 1, step_seed(3, 12), (1 << 63) - 1):
        found = fractions(seed, 3, rows)
        assert found.dtype == torch.float32
        assert found.tolist() == [[_slow(seed, layer, row) for row in rows.tolist()] for layer in range(3)]


def test_fractions_are_spread_and_know_nothing_of_each_other() -> None:
    """By layer, by row and by step: means, and products of neighbours, within five deviations of chance."""
    drawn = torch.stack([fractions(step_seed(0, step), 30, torch.arange(1000)) for step in range(20)])  # [20, 30, 1000]
    count = drawn.numel()
    assert abs(drawn.mean().item() - 0.5) < 5 * (1 / 12) ** 0.5 / count**0.5
    counts = torch.histc(drawn, 16, 0, 1)
    assert ((counts - count / 16) ** 2 / (count / 16)).sum().item() < 15 + 5 * 30**0.5  # chi-square, 15 degrees
    flat = drawn - 0.5
    for dim in range(3):
        beside = (flat.narrow(dim, 0, flat.shape[dim] - 1) * flat.narrow(dim, 1, flat.shape[dim] - 1)).mean().item()
        assert abs(beside) < 5 / 12 / count**0.5
    assert drawn.unique().numel() > 0.98 * count * (1 - count / 2**25)


@pytest.mark.parametrize("prob", [0.1, 0.5])
def test_paths_are_dropped_with_their_probability(prob: float) -> None:
    model = nn.Sequential(DropPath(prob), DropPath(0.0), DropPath(prob)).train()
    branch = torch.ones(4000, 2)
    with StepDraws(model, seed=5, device=torch.device("cpu")) as draws:
        draws.give(torch.arange(4000))
        first, other = model[0](branch), model[2](branch)
        assert torch.equal(model[1](branch), branch)
        draws.give(torch.tensor([17, 3]))
        assert torch.equal(model[0](branch[:2]), first[[17, 3]])
    assert set(first[:, 0].tolist()) == {0.0, torch.tensor(1.0).div(1 - prob).item()}
    assert (first == 0).float().mean().item() == pytest.approx(prob, abs=0.04)
    assert not torch.equal(first, other)
    assert model[0].factors is None
