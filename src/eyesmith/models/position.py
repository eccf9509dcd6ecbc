"""How a transformer knows places: learned tables and how they are resized, rotary angles, a learned relative bias."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError

THETA = 10000.0
REFERENCE_GRID = 16  # patches a side that rotary positions are stretched to at every size: 224 px / 14
NUM_SPECIAL = 3  # rows of a relative table: class token to patch, patch to class token, class token to itself


def resize_position_table(
    table: Tensor,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    num_prefix: int = 0,
    antialias: bool = True,
) -> Tensor:
    """A learned position table resampled to another grid (bicubic, computed in fp32).

    table: [1, num_prefix + H*W, C], row-major over old_grid = (H, W) cells; the rows before them, of class tokens,
    stay. Returns the same dtype for new_grid; the table itself, uncopied, when the grids are equal. Raises ShapeError
    when it does not fill old_grid. antialias: timm's rule for absolute tables; without it the rule of BEiT and EVA-02,
    whose cubic has another coefficient, so that the two differ also where a table grows. align_corners is off in both.
    """
    num_rows = num_prefix + old_grid[0] * old_grid[1]
    if table.ndim != 3 or table.shape[:2] != (1, num_rows):
        raise ShapeError(
            f"position table: expected [1, {num_rows}, C] for a grid of {old_grid[0]} x {old_grid[1]} cells, got "
            f"{list(table.shape)}"
        )
    if old_grid == new_grid:
        return table
    channels = table.shape[-1]
    cells = table[:, num_prefix:].float().reshape(1, *old_grid, channels).permute(0, 3, 1, 2)  # [1, C, H, W]
    cells = F.interpolate(cells, size=new_grid, mode="bicubic", antialias=antialias, align_corners=False)
    cells = cells.permute(0, 2, 3, 1).reshape(1, new_grid[0] * new_grid[1], channels).to(table.dtype)
    return torch.cat((table[:, :num_prefix], cells), dim=1) if num_prefix else cells


def fit_position_table(
    table: Tensor, grid: tuple[int, int], width: int, *, num_prefix: int = 0, antialias: bool = True
) -> Tensor:
    """A file's table [1, num_prefix + N, width] resampled where its N cells fill another grid, a square one; else as
    it is. The rest is resize_position_table's."""
    if table.ndim != 3 or table.shape[::2] != (1, width):
        return table
    cells = max(table.shape[1] - num_prefix, 0)
    side = math.isqrt(cells)
    if cells == math.prod(grid) or side * side != cells:
        return table
    return resize_position_table(table, (side, side), grid, num_prefix=num_prefix, antialias=antialias)


def rope_table(grid: tuple[int, int], head_dim: int, *, num_prefix: int = 1) -> Tensor:
    """Cosine and sine of every token's angles: fp32 [num_prefix + H*W, head_dim / 2, 2], on the CPU.

    grid: H, W patches, row-major. The first half of the pairs turns by the row, the second by the column. Positions
    run over [0, 16) whatever the grid is: i / H * 16. The first num_prefix tokens (the class token) have angle 0.
    Source: the release's VisionRotaryEmbeddingFast with pt_seq_len 16, in fp32.
    """
    rows, columns = (
        torch.arange(side, dtype=torch.float32, device="cpu") / side * REFERENCE_GRID for side in grid
    )  # [H], [W]
    half = head_dim // 2
    frequencies = 1 / THETA ** (torch.arange(0, half, 2, dtype=torch.float32, device="cpu") / half)  # [head_dim / 4]
    by_row = (rows[:, None] * frequencies)[:, None].expand(-1, grid[1], -1)
    by_column = (columns[:, None] * frequencies)[None].expand(grid[0], -1, -1)
    angles = torch.cat((by_row, by_column), dim=-1).flatten(0, 1)  # [H*W, head_dim / 2]
    angles = torch.cat((angles.new_zeros(num_prefix, half), angles))
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Adjacent channels (2k, 2k + 1) as a point of the plane, turned by the token's k-th angle.

    x: [B, N, ..., heads, C/heads], any float type, turned in fp32 (float64 for float64); table: rope_table's, or
    [B, N, C/heads/2, 2] with rows of its own for each sample. Returns the shape and type of x.
    """
    kind = torch.promote_types(x.dtype, table.dtype)
    pairs = x.to(kind).unflatten(-1, (-1, 2))  # [B, N, ..., heads, P, 2]
    table = table.to(kind)
    if table.ndim == 3:
        table = table[None]
    table = table[:, :, *(None,) * (pairs.ndim - 4)]  # [B, N, 1 ..., P, 2]
    if not torch.compiler.is_compiling() and type(pairs) is Tensor:
        # one pass over the numbers; compilers and exporters know no complex ones
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    else:
        a, b = pairs.unbind(-1)
        cos, sin = table.unbind(-1)
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def relative_rows(grid: tuple[int, int]) -> int:
    """Rows of BEiT's table of relative positions, one number a head for each distance between two patches.

    They are the distances within the grid of H x W patches, then those of the class token.
    """
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + NUM_SPECIAL


@lru_cache(maxsize=8)
def relative_index(grid: tuple[int, int]) -> Tensor:
    """Row of the table for query i and key j: int64 [1 + H*W, 1 + H*W], on the CPU; token 0 is the class token."""
    height, width = grid
    with torch.inference_mode(False):
        places = torch.cartesian_prod(torch.arange(height, device="cpu"), torch.arange(width, device="cpu"))
        distances = places[:, None] - places[None]  # [N, N, 2]
        inner = (distances[..., 0] + height - 1) * (2 * width - 1) + distances[..., 1] + width - 1
        rows = relative_rows(grid)
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
