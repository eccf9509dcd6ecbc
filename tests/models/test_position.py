"""Resampling a position table; the comparison with timm's numbers is in vitamin/test_golden.py."""

import pytest
import torch

from eyesmith.errors import ShapeError
from eyesmith.models.position import resize_position_table


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
