"""What a module's hash tells apart."""

from functools import partial

import torch.nn.functional as F
from torch import nn

from eyesmith.models.identity import module_hash


class Leaky(nn.Module):
    def __init__(self, slope: float) -> None:
        super().__init__()
        self.activation = partial(F.leaky_relu, negative_slope=slope)


def test_settings_inside_of_a_partial_function_count() -> None:
    assert module_hash(Leaky(0.1)) == module_hash(Leaky(0.1))
    assert module_hash(Leaky(0.1)) != module_hash(Leaky(0.9))
