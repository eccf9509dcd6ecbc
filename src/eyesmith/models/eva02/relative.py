"""BEiT's learned relative positions: one number a head for each distance between two patches. A step of table 2."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_SPECIAL = 3  # class token to patch, patch to class token, class token to itself


def table_rows(grid: tuple[int, int]) -> int:
    """Rows of a table: distances within the grid of H x W patches, and those of the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + NUM_SPECIAL


@lru_cache(maxsize=8)
def relative_index(grid: tuple[int, int]) -> Tensor:
    """Row of the table for query i and key j: int64 [1 + H*W, 1 + H*W], on the CPU; token 0 is the class token."""
    height, width = grid
    with torch.inference_mode(False):
        places = torch.cartesian_prod(torch.arange(height, device="cpu"), torch.arange(width, device="cpu"))
        distances = places[:, None] - places[None]  # [N, N, 2]
        inner = (distances[..., 0] + height - 1) * (2 * width - 1) + distances[..., 1] + width - 1
        rows = table_rows(grid)
        index = inner.new_empty(len(places) + 1, len(places) + 1)
        index[1:, 1:] = inner
        index[0, 1:], index[1:, 0], index[0, 0] = rows - 3, rows - 2, rows - 1
        return index


def resize_relative_table(table: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool) -> Tensor:
    """A table [rows, heads] of one grid for another: distances resampled (bicubic), those of the class token kept.

    Departs from BEiT, which resamples with finer steps near zero by an interpolation that SciPy no longer has.
    """
    if old == new:
        return table
    heads = table.shape[1]
    inner = table[:-NUM_SPECIAL].float().mT.reshape(1, heads, 2 * old[0] - 1, 2 * old[1] - 1)
    size = (2 * new[0] - 1, 2 * new[1] - 1)
    inner = F.interpolate(inner, size=size, mode="bicubic", antialias=antialias, align_corners=False)
    return torch.cat((inner.reshape(heads, -1).mT.to(table.dtype), table[-NUM_SPECIAL:]))
