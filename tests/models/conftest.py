"""Weights, pixels and texts that need no random generator: the recipe behind fixtures/vitamin_s.json."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

Values = Callable[[int, tuple[int, ...]], Tensor]


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Numbers computed once with open_clip and timm; the file names its source."""
    return json.loads((Path(__file__).parent / "fixtures" / "vitamin_s.json").read_text())


@pytest.fixture(scope="session")
def recipe_values() -> Values:
    """float64 in -1..1 out of an integer hash of each element's place; the index tells tensors apart."""
    return _values


@pytest.fixture(scope="session")
def recipe_weights() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """float64 values for every tensor of a state dict in open_clip's names."""
    return _weights


def _values(index: int, shape: tuple[int, ...]) -> Tensor:
    h = np.arange(math.prod(shape), dtype=np.uint32) + np.uint32(index * 0x9E3779B9 % 2**32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return torch.from_numpy(h.astype(np.float64) / 2**32 * 2 - 1).reshape(shape)


def _weights(like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for index, name in enumerate(sorted(like)):
        shape = tuple(like[name].shape)
        if name == "logit_scale":
            state[name] = torch.tensor(math.log(1 / 0.07), dtype=torch.float64)
        elif name.endswith(("pos_embed", "positional_embedding", "token_embedding.weight")):
            state[name] = 0.05 * _values(index, shape)
        elif len(shape) >= 2:
            state[name] = _values(index, shape) * math.sqrt(3 / math.prod(shape[1:]))
        elif name.endswith("weight"):
            state[name] = 1 + 0.1 * _values(index, shape)
        else:
            state[name] = 0.05 * _values(index, shape)
    return state
