"""Which patches of an image are hidden, or left out: functions of the seed, the step and the row of the batch."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import ConfigError

ATTEMPTS = 10  # to place one block
_MASK, _DROP = 1, 2  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which patches a masked-image step hides. The defaults are EVA-02's: 105 of 16 x 16, in blocks of 16 to 105."""

    kind: Literal["block", "random"] = "block"
    """block: rectangles until enough is hidden (BEiT); random: single cells of cell_patches (SimMIM)."""
    frac: float = 105 / 256
    """Share of the patches to hide. Blocks often end a patch or two short of it, random cells never."""
    min_block_frac: float = 16 / 256
    """Share of the patches that a block has at least."""
    aspect: float = 0.3
    """Flattest block, height over width; the tallest is its inverse."""
    cell_patches: int = 1
    """Side of a random cell, patches."""

    def __post_init__(self) -> None:
        if self.kind not in ("block", "random"):
            raise ConfigError(f"mask.kind: expected block or random, got {self.kind!r}")
        if not 0 < self.frac < 1 or not 0 <= self.min_block_frac <= self.frac:
            raise ConfigError(
                f"mask: expected 0 < frac < 1 and min_block_frac up to frac, got {self.frac} and {self.min_block_frac}"
            )
        if not 0 < self.aspect <= 1 or self.cell_patches < 1:
            raise ConfigError(f"mask: expected aspect in 0..1 and cell_patches of 1 or more, got {self}")

    def counts(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Patches to hide, and of the smallest block, of a grid: the shares, rounded, at least one each."""
        patches = grid[0] * grid[1]
        target = max(1, round(self.frac * patches))
        return target, min(target, max(1, round(self.min_block_frac * patches)))


def block_mask(grid: tuple[int, int], config: MaskConfig, rng: np.random.Generator) -> np.ndarray:
    """Hidden patches of one image, bool [H, W]: rectangles added until `config.counts` is reached.

    With r still to hide, up to ten rectangles are tried: an area uniform between the smallest block and r (between r
    and the smallest block where r is less), height over width log-uniform between aspect and 1/aspect, sides rounded
    to whole patches and both below the grid's, anywhere inside. The first that hides 1 to r new patches is taken; when
    none does, the mask stays as it is, so that the count varies. Source: BEiT's generator, as EVA-02 uses it.
    """
    height, width = grid
    target, smallest = config.counts(grid)
    mask = np.zeros(grid, dtype=bool)
    low, high = math.log(config.aspect), -math.log(config.aspect)
    count = 0
    while count < target:
        room = target - count
        for draws in rng.random((ATTEMPTS, 4)).tolist():
            area = smallest + (room - smallest) * draws[0]
            aspect = math.exp(low + (high - low) * draws[1])
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if rows >= height or columns >= width:
                continue
            top, left = int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1))
            block = mask[top : top + rows, left : left + columns]
            new = rows * columns - int(block.sum())
            if 0 < new <= room:
                block[...] = True
                count += new
                break
        else:
            break
    return mask


def random_mask(grid: tuple[int, int], config: MaskConfig, rng: np.random.Generator) -> np.ndarray:
    """Hidden patches of one image, bool [H, W]: the share `frac` of all cells, rounded up, without pattern.

    A grid that cells do not fill has smaller ones at its end. Source: SimMIM (arXiv 2111.09886).
    """
    cells = tuple(-(-side // config.cell_patches) for side in grid)
    chosen = np.zeros(cells[0] * cells[1], dtype=bool)
    chosen[rng.permutation(len(chosen))[: math.ceil(config.frac * len(chosen))]] = True
    mask = chosen.reshape(cells).repeat(config.cell_patches, axis=0).repeat(config.cell_patches, axis=1)
    return mask[: grid[0], : grid[1]]


def masks_for(rows: Tensor, grid: tuple[int, int], config: MaskConfig, *, seed: int, step: int) -> Tensor:
    """Hidden patches of rows of a step's global batch, bool [b, H*W] on the CPU; every image has one or more.

    rows: int64 [b], places in the global batch; a row's mask depends on nothing but seed, step and place.
    """
    make = block_mask if config.kind == "block" else random_mask
    masks = np.empty((len(rows), grid[0] * grid[1]), dtype=bool)
    for place, row in enumerate(rows.tolist()):
        rng = np.random.default_rng([seed, step, row, _MASK])
        found = make(grid, config, rng)
        while not found.any():  # on tiny grids no block may fit
            found = make(grid, config, rng) if config.kind == "random" else random_mask(grid, config, rng)
        masks[place] = found.ravel()
    return torch.from_numpy(masks)


def hidden_places(masks: Tensor) -> Tensor:
    """Where a mask [b, N] on the CPU, read row by row, is True: int64 [M]; found here, as a GPU would make us wait."""
    return torch.from_numpy(np.flatnonzero(masks.numpy()))


def alternating_mask(rows: int, grid: tuple[int, int]) -> Tensor:
    """The fixed mask of validation, bool [rows, H*W]: every even patch in row-major order is hidden."""
    hidden = torch.arange(grid[0] * grid[1]) % 2 == 0
    return hidden.expand(rows, -1)


def kept_patches(rows: Tensor, grid: tuple[int, int], drop_prob: float, *, seed: int, step: int) -> Tensor:
    """Patches that stay when a share is left out: int64 [b, K] ascending, K = max(1, int(N (1 - drop_prob))).

    rows: int64 [b], as for `masks_for`. Source: FLIP (arXiv 2212.00794), open_clip's patch dropout.
    """
    patches = grid[0] * grid[1]
    kept = max(1, int(patches * (1 - drop_prob)))
    chosen = [
        np.sort(np.random.default_rng([seed, step, row, _DROP]).permutation(patches)[:kept]) for row in rows.tolist()
    ]
    return torch.from_numpy(np.stack(chosen) if chosen else np.zeros((0, kept), dtype=np.int64))
