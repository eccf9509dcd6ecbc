import torch
from torch import nn

from eyesmith.optim import decay_groups


def test_matrices_are_decayed_and_the_rest_is_not() -> None:
    model = nn.Module()
    model.linear = nn.Linear(3, 4)
    model.norm = nn.LayerNorm(4)
    model.position = nn.Parameter(torch.zeros(1, 9, 4))
    model.logit_scale = nn.Parameter(torch.tensor(1.0))
    decayed, plain = decay_groups(model, 0.2)
    assert decayed["weight_decay"] == 0.2
    assert plain["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model.linear.weight), id(model.position)}
    assert {id(p) for p in plain["params"]} == {
        id(p) for p in (model.linear.bias, model.norm.weight, model.norm.bias, model.logit_scale)
    }


def test_a_locked_parameter_is_in_no_group() -> None:
    model = nn.Linear(3, 4).requires_grad_(False)
    assert all(not group["params"] for group in decay_groups(model, 0.2))
