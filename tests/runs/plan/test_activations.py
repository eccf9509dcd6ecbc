"""Bytes kept for the backward pass, against a count by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.runs.plan.activations import Activations, activations

N, C, H = 5, 8, 24  # tokens, channels, hidden


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)
        self.expand = nn.Linear(C, H)
        self.reduce = nn.Linear(H, C)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.gelu(self.expand(self.norm(x))))


class Tower(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def count(depth: int, *, bf16: bool, freeze: bool = False) -> Activations:
    with torch.device("meta"):
        tower = Tower(depth)
    tower.requires_grad_(not freeze)
    return activations(tower, list(tower.layers), ((N, C), torch.float32), bf16=bf16)


# of one block: the norm's input, its mean and reciprocal deviation, the norm's result (input of the first product),
# what GELU takes, what the second product takes; all in fp32
FP32_BLOCK = 4 * (N * C + 2 * N + N * C + N * H + N * H)
# the norm's input is fp32 in the first block, and after a sum of fp32 and bf16 again; products take and give bf16
BF16_BLOCK = 4 * (N * C + 2 * N) + 2 * (N * C + N * H + N * H)


def test_in_fp32_each_block_keeps_its_own() -> None:
    for depth in (1, 3):
        found = count(depth, bf16=False)
        assert found.fixed == 0
        assert found.per_sample == depth * FP32_BLOCK
        assert found.boundary == depth * 4 * N * C  # the input of each block alone
        assert found.largest_block == FP32_BLOCK


def test_under_autocast_products_keep_half_and_weights_are_cast_once() -> None:
    for depth in (1, 3):
        found = count(depth, bf16=True)
        assert found.fixed == depth * 2 * (C * H + H + H * C + C)  # both products' weights and biases
        assert found.per_sample == depth * BF16_BLOCK


def test_recomputed_blocks_keep_their_inputs_and_one_block_at_a_time() -> None:
    found = count(4, bf16=False)
    assert found.at(10, checkpoint=False) == 10 * 4 * FP32_BLOCK
    assert found.at(10, checkpoint=True) == 10 * (4 * 4 * N * C + FP32_BLOCK)


def test_a_frozen_tower_keeps_nothing() -> None:
    assert count(2, bf16=False, freeze=True).per_sample == 0
