"""Products of image and text features, one tile of them alive at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eyesmith.losses.positives import codes_agree

TILE_ROWS = 2048
"""Rows of a tile where the caller names none: 32 MiB of logits, the fastest on two cores of 512, 1024, 2048, 4096."""


@dataclass(frozen=True)
class Tile:
    """logits [R, C] of images `rows` and texts `columns`; `spare` is a second buffer of that shape. Both are reused."""

    rows: slice
    columns: slice
    logits: Tensor
    spare: Tensor


class Tiles:
    """The logits of this rank's images against any block of texts, by tiles of tile_rows x 2 tile_rows.

    image: [b, D] in fp32 or fp64, or on CUDA in a half format, which is multiplied as it is and summed in fp32.
    scale, bias: [] of the logits. codes: int64 [b] vectors; where one agrees, the pair is no negative.
    """

    def __init__(
        self,
        image: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        codes: Sequence[Tensor] = (),
        *,
        tile_rows: int | None = None,
    ) -> None:
        self.image, self.scale, self.bias, self.codes = image, scale, bias, codes
        self.num_rows = tile_rows or TILE_ROWS
        self.num_columns = 2 * self.num_rows
        self._buffers: list[Tensor] = []

    def negatives(self, text: Tensor, codes: Sequence[Tensor], *, is_own: bool) -> Iterator[Tile]:
        """Tiles of logits against one block, text [c, D] with its codes; -inf where a pair is no negative.

        is_own: the block belongs to the same samples as the images, so the diagonal is no negative. The caller may
        overwrite both buffers of a tile; the next tile does.
        """
        for row in range(0, len(self.image), self.num_rows):
            rows = slice(row, min(row + self.num_rows, len(self.image)))
            for column in range(0, len(text), self.num_columns):
                columns = slice(column, min(column + self.num_columns, len(text)))
                logits, spare = self._pair_of_buffers(rows.stop - row, columns.stop - column, len(text))
                product(self.image[rows], text[columns], out=logits).mul_(self.scale)
                if self.bias is not None:
                    logits.add_(self.bias)
                if codes:
                    left, right = [own[rows] for own in self.codes], [code[columns] for code in codes]
                    logits.masked_fill_(codes_agree(left, right), -torch.inf)
                if is_own:
                    _diagonal(logits, row - column).fill_(-torch.inf)
                yield Tile(rows, columns, logits, spare)

    def _pair_of_buffers(self, height: int, width: int, num_texts: int) -> tuple[Tensor, Tensor]:
        size = min(self.num_rows, len(self.image)) * min(self.num_columns, num_texts)
        if not self._buffers or len(self._buffers[0]) < size:
            dtype = compute_dtype(self.image)
            self._buffers = [torch.empty(size, dtype=dtype, device=self.image.device) for _ in range(2)]
        logits, spare = (buffer[: height * width].view(height, width) for buffer in self._buffers)
        return logits, spare


def compute_dtype(features: Tensor) -> torch.dtype:
    """fp32, or fp64 for features of that format: what logits, sums and gradients are kept in."""
    return torch.promote_types(features.dtype, torch.float32)


def product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """left [R, D] times right [C, D] transposed, into out [R, C]."""
    if left.dtype == out.dtype:
        return torch.mm(left, right.mT, out=out)
    return torch.mm(left, right.mT, out.dtype, out=out)


def accumulate(total: Tensor, weights: Tensor, features: Tensor) -> None:
    """Add weights [R, C] times features [C, D] to total [R, D], in the features' format, summed in total's."""
    if features.dtype == total.dtype:
        total.addmm_(weights, features)
    else:
        total.add_(torch.mm(weights.to(features.dtype), features, total.dtype))


def _diagonal(tile: Tensor, offset: int) -> Tensor:
    """The elements of a tile that lie on the diagonal of the whole matrix; offset: its first row less first column."""
    height, width = tile.shape
    if offset >= width or -offset >= height:
        return tile[:0, 0]
    return tile.diagonal(offset)
