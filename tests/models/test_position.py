"""Resampling a position table; the comparison with timm's numbers is in vitamin/test_golden.py."""

import math

import pytest
import torch

from eyesmith.errors import ShapeError
from eyesmith.models.position import resize_position_table, rope_table, rotate


def test_an_equal_grid_returns_the_table_itself() -> None:
    table = torch.randn(1, 12, 4)
    assert resize_position_table(table, (3, 4), (3, 4)) is table


def test_a_constant_table_stays_constant_and_keeps_its_dtype() -> None:
    table = torch.full((1, 12, 4), 0.5, dtype=torch.bfloat16)
    resized = resize_position_table(table, (3, 4), (6, 2))
    assert resized.shape == (1, 12, 4)
    assert resized.dtype == torch.bfloat16
    torch.testing.assert_close(resized, table)


def test_rows_and_columns_are_not_mixed_up() -> None:
    rows = torch.arange(4.0).repeat_interleave(6).view(1, 24, 1)  # the value is the row
    resized = resize_position_table(rows, (4, 6), (4, 3)).view(4, 3)
    torch.testing.assert_close(resized, torch.arange(4.0).view(4, 1).expand(4, 3))


@pytest.mark.parametrize("shape", [(1, 13, 4), (12, 4), (2, 12, 4)])
def test_a_table_that_does_not_fill_its_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="a grid of 3 x 4 cells"):
        resize_position_table(torch.zeros(shape), (3, 4), (6, 8))


# grid side: sum of cos, sum of sin (each angle stands for two channels), row 1: cos, sin of pair 16, sin of pair 17;
# row `side`: cos, sin of pair 0; last row: cos of pair 0
TABLES = {
    14: (9147.385821, 2097.197321, (0.4149967, 0.9098229, 0.5993395), (0.4149967, 0.9098229), -0.6593663),
    16: (11910.455760, 2756.331314, (0.5403023, 0.8414710, 0.5331684), (0.5403023, 0.8414710), -0.7596879),
    24: (26603.784850, 6284.209228, (0.7858872, 0.6183698, 0.3661741), (0.7858872, 0.6183698), -0.9306430),
    32: (47122.776150, 11238.392548, (0.8775826, 0.4794255, 0.2774805), (0.8775826, 0.4794255), -0.9784535),
    40: (73467.423703, 17618.937030, (0.9210610, 0.3894184, 0.2230445), (0.9210610, 0.3894184), -0.9941776),
    64: (187455.294380, 45318.834055, (0.9689124, 0.2474040, 0.1401227), (0.9689124, 0.2474040), -0.9991166),
    96: (420998.279405, 102221.375767, (0.9861432, 0.1658961, 0.0935864), (0.9861432, 0.1658961), -0.9921515),
}


@pytest.mark.parametrize("side", TABLES)
def test_tables_are_the_releases(side: int) -> None:
    cos_sum, sin_sum, first, below, last = TABLES[side]
    table = rope_table((side, side), 64, num_prefix=0)
    assert table.shape == (side * side, 32, 2)
    assert table.dtype == torch.float32
    cos, sin = table.double().unbind(-1)
    assert float(2 * cos.sum()) == pytest.approx(cos_sum, abs=1e-3)  # fp32 cosines differ by a bit between processors
    assert float(2 * sin.sum()) == pytest.approx(sin_sum, abs=1e-3)
    assert (float(cos[1, 16]), float(sin[1, 16]), float(sin[1, 17])) == pytest.approx(first, abs=2e-6)
    assert (float(cos[side, 0]), float(sin[side, 0])) == pytest.approx(below, abs=2e-6)
    assert float(cos[-1, 0]) == pytest.approx(last, abs=5e-6)
    assert float(cos[1, 0]) == float(cos[side, 16]) == 1


def test_positions_are_stretched_to_16_on_each_side_of_a_grid_that_is_not_square() -> None:
    table = rope_table((8, 32), 64)
    assert table.shape == (1 + 8 * 32, 32, 2)
    assert torch.equal(table[0], torch.tensor([1.0, 0.0]).expand(32, 2))  # the class token stays as it is
    row, column = 5, 7
    angles = table[1 + row * 32 + column]
    for k in range(16):
        frequency = 10000 ** (-2 * k / 32)
        for pair, place in ((k, row / 8 * 16), (16 + k, column / 32 * 16)):
            expected = [math.cos(place * frequency), math.sin(place * frequency)]
            torch.testing.assert_close(angles[pair], torch.tensor(expected), rtol=0, atol=2e-6)


def by_loop(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    for token in range(x.shape[1]):
        for pair in range(x.shape[-1] // 2):
            cos, sin = table[token, pair].double()
            a, b = x[:, token, ..., 2 * pair], x[:, token, ..., 2 * pair + 1]
            y[:, token, ..., 2 * pair], y[:, token, ..., 2 * pair + 1] = a * cos - b * sin, b * cos + a * sin
    return y


def test_adjacent_channels_turn_together() -> None:
    torch.manual_seed(0)
    table = rope_table((2, 3), 8)
    x = torch.randn(2, 7, 2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(rotate(x, table), by_loop(x, table), rtol=0, atol=1e-12)
    for dtype, atol in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        turned = rotate(x.to(dtype), table)
        assert turned.dtype == dtype
        torch.testing.assert_close(turned.double(), by_loop(x, table), rtol=0, atol=atol)


def test_rows_of_each_sample_can_be_given() -> None:
    torch.manual_seed(0)
    table = rope_table((2, 3), 8)
    x = torch.randn(2, 3, 4, 8)
    rows = torch.tensor([[0, 2, 5], [0, 6, 1]])
    expected = torch.stack([rotate(x[i : i + 1], table[rows[i]])[0] for i in range(2)])
    assert torch.equal(rotate(x, table[rows]), expected)


def test_gradients_are_those_of_the_rotation() -> None:
    table = rope_table((1, 2), 8)
    x = torch.randn(1, 3, 1, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: rotate(value, table), (x,))


def test_the_form_for_compilers_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    table = rope_table((3, 3), 16)
    x = torch.randn(2, 10, 2, 16)
    eager = rotate(x, table)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(x, table), eager, rtol=0, atol=1e-6)
