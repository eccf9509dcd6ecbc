"""Which parameters are decayed."""

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two optimiser groups: matrices, position and token tables decayed; biases, norms and the temperature not.

    Parameters that need no gradient (a locked tower) are in neither. The rule is open_clip's: a tensor of fewer than
    two axes is not decayed. (Its rule by name, "bn", "ln" or "bias" in it, catches no matrix of these models.)
    """
    decayed, plain = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
