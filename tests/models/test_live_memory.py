"""Counted by hand: what is alive at once."""

import torch

from eyesmith.models.live_memory import peak_bytes


def test_the_peak_is_what_is_alive_at_the_same_time() -> None:
    def compute() -> torch.Tensor:
        first = torch.zeros(1000)
        second = first + 1  # 2 x 4000 bytes
        del first
        third = second.view(10, 100) * 2  # again two: the view shares its memory
        return third.add_(1)

    assert peak_bytes(compute) == 8000


def test_inputs_and_weights_are_not_counted() -> None:
    layer, rows = torch.nn.Linear(100, 50), torch.zeros(8, 100)
    assert peak_bytes(lambda: layer(rows)) == 8 * 50 * 4
