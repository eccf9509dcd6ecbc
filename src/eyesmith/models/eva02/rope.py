"""2D rotary positions: q and k turned by angles that tell the row and the column of their patch."""

import torch
from torch import Tensor

THETA = 10000.0
REFERENCE_GRID = 16  # patches a side that positions are stretched to: 224 px / 14, for every patch and image size


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
