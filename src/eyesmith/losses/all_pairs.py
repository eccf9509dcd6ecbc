"""The logits of own images against all texts of the batch, one tile of them alive at a time, and gradients by them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses.exchange import Ranks
from eyesmith.losses.positives import Same, codes_agree

WHOLE_BELOW = 1024
"""Rows below which one process computes all logits at once; measured on two cores, see docs/losses.md."""
TILE_ROWS = 2048
"""Rows of a tile where the caller names none: 32 MiB of logits, the fastest on two cores of 512, 1024, 2048, 4096."""


def tile_shape(num_rows: int, num_texts: int, tile_rows: int | None = None) -> tuple[int, int]:
    """Rows and columns of a tile: at most tile_rows, and so many texts that there are 2 tile_rows^2 logits.

    A rank of few rows takes the more texts at a time, so the number of tiles follows from b x B alone.
    """
    limit = tile_rows or TILE_ROWS
    height = max(1, min(num_rows, limit))
    return height, min(num_texts, 2 * limit**2 // height)


@dataclass(frozen=True)
class Tile:
    """logits [R, C] of images `rows` and texts `columns`; `spare` is a second buffer of that shape. Both are reused."""

    rows: slice
    columns: slice
    logits: Tensor
    spare: Tensor


@dataclass(frozen=True, kw_only=True)
class AllPairs:
    """Every pair of this rank's images with the texts of all ranks.

    image: [b, D], text: [G, D] of all ranks (G: see `Ranks`), both in fp32 or fp64, or on CUDA in a half format, which
    is multiplied as it is and summed in fp32. scale, bias: [] of the logits. codes: int64 [G] vectors of all ranks;
    where two rows agree in one, their pair is no negative. tile_rows: rows of a tile, None for the measured default.
    """

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None = None
    codes: Sequence[Tensor] = ()
    ranks: Ranks
    tile_rows: int | None = None

    def own_logits(self) -> Tensor:
        """[b] logits of the own pairs, image i with its text."""
        dtype = compute_dtype(self.image)
        logits = torch.linalg.vecdot(self.image.to(dtype), self.text[self.ranks.own].to(dtype)) * self.scale
        return logits if self.bias is None else logits + self.bias

    def negatives(self) -> Iterator[Tile]:
        """Tiles of logits, row by row of tiles; -inf where a pair is no negative, as own pairs are not.

        The caller may overwrite both buffers of a tile; the next tile does.
        """
        num_rows, num_texts, first = len(self.image), len(self.text), self.ranks.own.start
        height, width = tile_shape(num_rows, num_texts, self.tile_rows)
        dtype, device = compute_dtype(self.image), self.image.device
        buffers = [torch.empty(height * width, dtype=dtype, device=device) for _ in range(2)]
        for row in range(0, num_rows, height):
            rows = slice(row, min(row + height, num_rows))
            own = [code[first + rows.start : first + rows.stop] for code in self.codes]
            for column in range(0, num_texts, width):
                columns = slice(column, min(column + width, num_texts))
                shape = rows.stop - row, columns.stop - column
                logits, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
                _product(self.image[rows], self.text[columns], out=logits).mul_(self.scale)
                if self.bias is not None:
                    logits.add_(self.bias)
                is_none = None if self.ranks.is_padding is None else self.ranks.is_padding[columns]  # [C]
                if own:
                    agree = codes_agree(own, [code[columns] for code in self.codes])
                    is_none = agree if is_none is None else agree.logical_or_(is_none)  # [R, C]
                if is_none is not None:
                    logits.masked_fill_(is_none, -torch.inf)
                logits.diagonal(first + row - column).fill_(-torch.inf)  # own pairs; empty in most tiles
                yield Tile(rows, columns, logits, spare)


class Gradients:
    """Gradients of a sum over pairs, from the weight of each: its derivative by the pair's logit."""

    def __init__(self, pairs: AllPairs, wanted: Sequence[bool]) -> None:
        """wanted: whether image, text and scale need one."""
        self._pairs, self._wanted = pairs, tuple(wanted[:3])
        dtype = compute_dtype(pairs.image)
        # the scale's is read off one of the two
        wants_image = wanted[0] or (wanted[2] and not wanted[1])
        self._image = torch.zeros_like(pairs.image, dtype=dtype) if wants_image else None
        self._text = torch.zeros_like(pairs.text, dtype=dtype) if wanted[1] else None

    def add(self, tile: Tile, weights: Tensor) -> None:
        """weights: [R, C] of the tile's pairs."""
        if self._image is not None:
            _accumulate(self._image[tile.rows], weights, self._pairs.text[tile.columns])
        if self._text is not None:
            _accumulate(self._text[tile.columns], weights.mT, self._pairs.image[tile.rows])

    def finish(self, own_weights: Tensor, factor: Tensor | float) -> list[Tensor | None]:
        """Gradients of (image, text, scale), None for what was not wanted; after all tiles, once.

        own_weights: [b] of the own pairs, with the sign turned; factor: what all weights are to be multiplied by.
        """
        pairs = self._pairs
        text = pairs.text[pairs.ranks.own]
        grads: list[Tensor | None] = [None, None, None]
        sums = self._image, None if self._text is None else pairs.ranks.sum_to_owners(self._text)
        for side, (found, this, other) in enumerate(zip(sums, (pairs.image, text), (text, pairs.image), strict=True)):
            if found is None:
                continue
            found.addcmul_(own_weights[:, None], other.to(found.dtype), value=-1)
            if self._wanted[2] and grads[2] is None:
                grads[2] = (torch.linalg.vecdot(this.to(found.dtype), found).sum() * factor).to(pairs.scale.dtype)
            if self._wanted[side]:
                grads[side] = found.mul_(factor * pairs.scale).to(this.dtype)
        return grads


def check_features(image: Tensor, text: Tensor, same: Same | Tensor | None, tile_rows: int | None) -> None:
    """Raises ShapeError unless image and text are [b, D] of one shape and `same` has b rows (a matrix: also columns).

    Raises ConfigError for tile_rows below 1.
    """
    if image.ndim != 2 or image.shape != text.shape:
        raise ShapeError(
            f"image and text: expected equal shapes [B, D], got {list(image.shape)} and {list(text.shape)}"
        )
    if same is not None and len(same) != len(image):
        raise ShapeError(f"same: expected {len(image)} rows as image and text have, got {len(same)}")
    if isinstance(same, Tensor) and same.shape != (len(image), len(image)):
        raise ShapeError(f"same: expected {[len(image)] * 2}, got {list(same.shape)}")
    if tile_rows is not None and tile_rows < 1:
        raise ConfigError(f"tile_rows: expected 1 or more, or None for the default, got {tile_rows}")


def is_whole(same: Same | Tensor | None, tile_rows: int | None, ranks: Ranks) -> bool:
    """Whether all logits are computed at once: for few rows of one process, unless rows of a tile are asked for.

    A mask in full is as large as the logits, so they are too. Raises ConfigError for one among several processes.
    """
    if not isinstance(same, Tensor):
        return ranks.world_size == 1 and tile_rows is None and ranks.own_rows < WHOLE_BELOW
    if ranks.world_size > 1 or tile_rows is not None:
        raise ConfigError(
            f"same: a [B, B] matrix goes without tiles, in one process, not with tile_rows={tile_rows} on "
            f"{ranks.world_size}; give codes: losses.Same(image_codes, text_codes)"
        )
    return True


def gathered_codes(same: Same | None, ranks: Ranks) -> tuple[Tensor, ...]:
    """The code vectors [G] of all ranks, from those of this one."""
    return () if same is None else ranks.gather(torch.stack(same.distinct(), dim=1)).unbind(1)


def comparable(features: Tensor) -> Tensor:
    """Features in the format that products are taken in: halves as they are on CUDA, elsewhere in fp32."""
    if features.device.type == "cuda" and features.dtype in (torch.bfloat16, torch.float16):
        return features
    return features.to(compute_dtype(features))


def compute_dtype(features: Tensor) -> torch.dtype:
    """fp32, or fp64 for features of that format: what logits, sums and gradients are kept in."""
    return torch.promote_types(features.dtype, torch.float32)


class OnePass(torch.autograd.Function):
    """A function whose forward computes the gradients too, of its first arguments, and hands them to `keep`."""

    @staticmethod
    def keep(ctx: Any, grads: Sequence[Tensor | None]) -> None:
        """Keep gradients for backward, None for what needs none."""
        ctx.is_wanted = [grad is not None for grad in grads]
        ctx.save_for_backward(*(grad for grad in grads if grad is not None))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What forward has kept, times the gradient of the value."""
        saved = iter(ctx.saved_tensors)
        kept = [next(saved) * grads[0] if is_wanted else None for is_wanted in ctx.is_wanted]
        return (*kept, *[None] * (len(ctx.needs_input_grad) - len(kept)))


def _product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """left [R, D] times right [C, D] transposed, into out [R, C]."""
    if left.dtype == out.dtype:
        return torch.mm(left, right.mT, out=out)
    return torch.mm(left, right.mT, out.dtype, out=out)


def _accumulate(total: Tensor, weights: Tensor, features: Tensor) -> None:
    """Add weights [R, C] times features [C, D] to total [R, D], in the features' format, summed in total's."""
    if features.dtype == total.dtype:
        total.addmm_(weights, features)
    else:
        total.add_(torch.mm(weights.to(features.dtype), features, total.dtype))
