"""Position tables: how ViTamin, EVA-02 and plain ViTs resize them."""

from torch import Tensor
from torch.nn import functional

from eyesmith.errors import ShapeError


def resize_position_table(
    table: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], *, antialias: bool = True
) -> Tensor:
    """A learned position table resampled to another grid (bicubic, computed in fp32).

    table: [1, H*W, C], row-major over old_grid = (H, W) cells, without class token. Returns the same dtype for
    new_grid; the table itself, uncopied, when the grids are equal. Raises ShapeError when it does not fill old_grid.
    antialias: timm's rule for absolute tables; without it the rule of BEiT and EVA-02, whose cubic has another
    coefficient, so that the two differ also where a table grows. align_corners is off in both.
    """
    if table.ndim != 3 or table.shape[:2] != (1, old_grid[0] * old_grid[1]):
        raise ShapeError(
            f"position table: expected [1, {old_grid[0] * old_grid[1]}, C] for a grid of "
            f"{old_grid[0]} x {old_grid[1]} cells, got {list(table.shape)}"
        )
    if old_grid == new_grid:
        return table
    channels = table.shape[-1]
    cells = table.float().reshape(1, *old_grid, channels).permute(0, 3, 1, 2)  # [1, C, H, W]
    cells = functional.interpolate(cells, size=new_grid, mode="bicubic", antialias=antialias, align_corners=False)
    cells = cells.permute(0, 2, 3, 1).reshape(1, new_grid[0] * new_grid[1], channels)
    return cells.to(table.dtype)
