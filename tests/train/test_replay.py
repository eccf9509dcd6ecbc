import math
from pathlib import Path

import pytest
import torch
from torch import nn

from eyesmith.errors import CheckpointError
from eyesmith.train.replay import NonFiniteError, Replay, read_replay, traced

REPLAY = Replay(
    eyesmith_version="0",
    step=12,
    world_size=1,
    precision="fp32",
    loss="nan",
    grad_norm="inf",
    keys=("a", "b"),
    train={"seed": 1},
)


class Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


class Root(nn.Module):
    """Finite for 0, its gradient is not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.detach()).abs().sqrt()


def towers(image: nn.Module) -> nn.Module:
    """`image` as the image tower of a model."""
    whole = nn.Module()
    whole.image = image
    return whole


def test_a_replay_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = REPLAY.write(tmp_path)
    assert read_replay(path) == (tmp_path, REPLAY)
    assert read_replay(tmp_path) == (tmp_path, REPLAY)
    with pytest.raises(CheckpointError, match=r"no replay; a run writes RUN/replay/step-N/replay\.json"):
        read_replay(tmp_path / "none")
    path.write_text('{"step": 1}')
    with pytest.raises(CheckpointError, match="not a replay file"):
        read_replay(path)


def test_the_first_output_that_is_not_finite_and_its_rows() -> None:
    model = towers(nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), Log()), nn.Linear(2, 2)))
    values = torch.tensor([[1.0, 2.0], [3.0, -1.0], [4.0, 9.0]])
    with traced(model) as trace:
        model.image(values)
    assert trace.forward == "image.1.1"
    assert trace.forward_input == 9.0
    assert trace.broken_rows["image"] == [1]
    assert trace.largest["image.0"] == 9.0
    assert trace.backward is None
    assert trace.weights is None


def test_rows_are_counted_over_the_parts_of_a_batch() -> None:
    model = towers(Log())
    with traced(model) as trace:
        model.image(torch.tensor([[1.0], [2.0]]))
        model.image(torch.tensor([[3.0], [-2.0]]))
    assert trace.broken_rows["image"] == [3]


def test_the_first_gradient_that_is_not_finite() -> None:
    model = towers(nn.Sequential(nn.Linear(2, 2), Root(), nn.Identity()))
    with traced(model) as trace:
        model.image(torch.ones(1, 2)).sum().backward()
    assert trace.forward is None
    assert trace.backward == "the output of image.0"


def test_a_weight_that_was_broken_before() -> None:
    model = towers(nn.Linear(2, 2))
    with torch.no_grad():
        model.image.weight[0, 0] = math.inf
    with traced(model) as trace:
        model.image(torch.ones(1, 2))
    assert trace.weights == "image.weight"


def test_looking_changes_nothing_and_ends() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3))
    model, given = towers(layers), torch.randn(5, 4)
    model.image(given).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with traced(model):
        model.image(given).square().sum().backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(plain, model.parameters(), strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_the_error_says_how_to_look_into_the_step() -> None:
    error = NonFiniteError("step 3: loss nan", step=3, keys=["x"], loss=math.nan, grad_norm=1.0)
    told = error.with_replay(Path("runs/a/replay/step-3"))
    assert str(told) == (
        "step 3: loss nan. `eyesmith replay runs/a/replay/step-3` runs this step again and shows where it began"
    )
    assert (told.step, told.keys) == (3, ("x",))
