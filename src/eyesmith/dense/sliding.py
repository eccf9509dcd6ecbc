"""An encoder at a size it was not trained for: windows of its own size, all in one batch, overlaps averaged.

ViT and ViTamin do not generalise to higher resolution; their downstream systems slide a window of the pre-training size
instead (Sliding F-ViT, Sliding FC-CLIP). B batch, H W pixels or cells, C channels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.eval.features.identity import facts_hash
from eyesmith.models.encoder import Encoder, Tap

Size = tuple[int, int]


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin on one axis, in pixels; the last one is moved back so that it ends at the border."""
    return [*range(0, side - window, stride), side - window]


class SlidingEncoder(FrozenEncoder):
    """A frozen encoder over a larger picture, behind the same contract: every map is the mean of overlapping windows.

    `forward` is, of a mean-pooled encoder, the projected mean of the whole map, of another the mean of its windows'
    features. With one window it is the encoder itself.
    """

    def __init__(
        self,
        encoder: Encoder,
        image_size: Size,
        *,
        window: Size | None = None,
        stride: int | Size | None = None,
        off_grid: bool = False,
        windows_at_once: int = 32,
    ) -> None:
        """image_size: height and width of the pictures, multiples of the encoder's stride, at least a window.

        window: height and width, the encoder's own size when None. stride: pixels from window to window (of both axes,
        or height and width); half a window when None, rounded down to the encoder's grid. off_grid: allow a stride that
        is no multiple of the encoder's, and paste windows rounded down to whole cells, as the reference does with 168
        at stride 16, half a cell off. windows_at_once: how many go through the encoder together.
        Raises ShapeError for a size that does not fit, ConfigError for a stride off the grid.
        """
        base = encoder.window_encoder if isinstance(encoder, SlidingEncoder) else encoder
        native = (base.image_size[0], base.image_size[1])
        window = native if window is None else window
        super().__init__(base if window == native else base.at_size(*window))
        cell = self.stride
        if stride is None:
            stride = (max(cell, window[0] // 2 // cell * cell), max(cell, window[1] // 2 // cell * cell))
        steps = (stride, stride) if isinstance(stride, int) else stride
        _check(image_size, window, steps, cell, off_grid=off_grid)
        if windows_at_once < 1:
            raise ConfigError(f"windows_at_once: expected 1 or more, got {windows_at_once}")
        self.image_size, self.window, self.window_stride = (image_size[0], image_size[1]), window, steps
        self.off_grid, self.windows_at_once = off_grid, windows_at_once
        rows, columns = (window_starts(*axis) for axis in zip(image_size, window, steps, strict=True))
        self.starts = [(top, left) for top in rows for left in columns]  # in pixels, row by row

    @property
    def num_windows(self) -> int:
        """Of one picture."""
        return len(self.starts)

    @property
    def window_encoder(self) -> Encoder:
        """The encoder of one window."""
        return self.inner

    def identity(self) -> str:
        return facts_hash(
            [super().identity(), list(self.image_size), list(self.window), list(self.window_stride), self.off_grid]
        )

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        if self.is_mean_pooled:
            return self.project(self.dense(pixels).mean((2, 3)))
        features = [self.inner(part) for part in self._windows(pixels)]
        return torch.cat(features).view(self.num_windows, len(pixels), -1).mean(0)

    @torch.no_grad()
    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        return self._slide(
            pixels, lambda part: self.inner.pyramid(part, names), {name: self.taps[name] for name in names}
        )

    @torch.no_grad()
    def dense(self, pixels: Tensor) -> Tensor:
        return self._slide(pixels, lambda part: {"dense": self.inner.dense(part)}, {"dense": self._last()})["dense"]

    @torch.no_grad()
    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        grid = (self.window[0] // self.stride, self.window[1] // self.stride)

        def maps(part: Tensor) -> dict[str, Tensor]:
            return {"tokens": self.inner.tokens(part, layer).mT.unflatten(2, grid)}

        return self._slide(pixels, maps, {"tokens": self._last()})["tokens"].flatten(2).mT

    def at_size(self, height: int, width: int) -> Self:
        """The same windows over pictures of another size."""
        return type(self)(
            self.inner,
            (height, width),
            stride=self.window_stride,
            off_grid=self.off_grid,
            windows_at_once=self.windows_at_once,
        )

    def prepare(self, pixels: Tensor) -> Tensor:
        raise ConfigError("prepare: pixels are prepared window by window; give them to a method of the contract")

    def check_pixels(self, pixels: Tensor) -> None:
        Encoder.check_pixels(self, pixels)

    def _last(self) -> Tap:
        return list(self.taps.values())[-1]

    def _windows(self, pixels: Tensor) -> list[Tensor]:
        """The windows of all pictures in batches: window by window, the pictures of a window one after the other."""
        self.check_pixels(pixels)
        height, width = self.window
        cut = torch.cat([pixels[:, :, y : y + height, x : x + width] for y, x in self.starts])
        return list(cut.split(self.windows_at_once))

    def _slide(
        self, pixels: Tensor, maps_of: Callable[[Tensor], Mapping[str, Tensor]], taps: Mapping[str, Tap]
    ) -> dict[str, Tensor]:
        """Maps of the whole pictures [B, C, H/stride, W/stride] by name, out of the maps of each batch of windows."""
        batch, done = len(pixels), 0
        sums: dict[str, Tensor] = {}
        for part in self._windows(pixels):
            for name, found in maps_of(part).items():
                cell = taps[name].stride
                if name not in sums:
                    sums[name] = found.new_zeros(batch, found.shape[1], *(side // cell for side in self.image_size))
                for row, (first, last) in _runs(done, len(part), batch):
                    y, x = (start // cell for start in self.starts[row])
                    piece = found[first - done : last - done]
                    place = slice(first - row * batch, last - row * batch)
                    sums[name][place, :, y : y + found.shape[2], x : x + found.shape[3]] += piece
            done += len(part)
        return {name: total.div_(self._counts(taps[name].stride).to(total)) for name, total in sums.items()}

    def _counts(self, cell: int) -> Tensor:
        """How many windows each cell lies in: [H/cell, W/cell]; one at least, as they touch even when rounded."""
        counts = torch.zeros(self.image_size[0] // cell, self.image_size[1] // cell)
        for top, left in self.starts:
            y, x = top // cell, left // cell
            counts[y : y + self.window[0] // cell, x : x + self.window[1] // cell] += 1
        return counts


def _runs(done: int, count: int, batch: int) -> list[tuple[int, tuple[int, int]]]:
    """Which window rows done to done + count belong to: (window, (first row, row after its last))."""
    found = []
    row = done
    while row < done + count:
        window = row // batch
        end = min((window + 1) * batch, done + count)
        found.append((window, (row, end)))
        row = end
    return found


def _check(image_size: Size, window: Size, stride: Size, cell: int, *, off_grid: bool) -> None:
    for name, side, own, step in zip(("height", "width"), image_size, window, stride, strict=True):
        if side < own or side % cell:
            raise ShapeError(
                f"image_size: expected a {name} of at least the window's {own} px, in multiples of {cell}, got {side}; "
                "pad smaller pictures (`pad_pixels`), or take a smaller window"
            )
        if not 1 <= step <= own:
            raise ConfigError(f"stride: expected 1 to the window's {own} px, got {step}: windows would leave gaps")
        if step % cell and not off_grid:
            raise ConfigError(
                f"stride: {step} px is no multiple of the encoder's {cell}, so windows would lie between its cells; "
                f"take {max(step // cell, 1) * cell} or {-(-step // cell) * cell}, or off_grid=True for the "
                "reference's rounding"
            )


def pad_pixels(pixels: Tensor, size: Size, mean: Sequence[float]) -> Tensor:
    """Pictures filled up to a size with the mean colour, to the right and below.

    pixels: [..., 3, h, w], uint8, or floats that are normalised (then the mean colour is 0). mean: of the channels, in
    0..1. The valid region is the first h rows and w columns. Raises ShapeError where the picture is larger.
    """
    height, width = pixels.shape[-2:]
    if height > size[0] or width > size[1]:
        raise ShapeError(f"pixels: {height} x {width} do not fit into {size[0]} x {size[1]}; resize them first")
    padded = pixels.new_zeros(*pixels.shape[:-2], *size)
    if pixels.dtype == torch.uint8:
        colour = torch.tensor([int(value * 255) for value in mean], dtype=torch.uint8, device=pixels.device)
        padded += colour[:, None, None]
    padded[..., :height, :width] = pixels
    return padded


def valid_cells(valid: Size, size: Size, stride: int) -> Tensor:
    """Which cells of a map hold pixels of the picture, not padding alone: bool [H/stride, W/stride].

    valid: height and width of the picture inside the padded `size`, pixels.
    """
    rows, columns = (torch.arange(side // stride) * stride < own for side, own in zip(size, valid, strict=True))
    return rows[:, None] & columns[None]


class PositionMaps(nn.Module):
    """What windows lose, given back: a learned map of absolute position for each tap, part of a head.

    Zeros at first, of a low resolution, stretched to whatever map comes. Source: Sliding FC-CLIP's code (not its paper)
    has one full-size parameter a level, 36.1 M in all at 1344 px, which ties a checkpoint to that size.
    """

    def __init__(self, taps: Mapping[str, Tap], grid: Size = (16, 16)) -> None:
        super().__init__()
        self.maps = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, tap.channels, *grid)) for name, tap in taps.items()}
        )

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps [B, C, H, W] with the positions added; those of unknown taps as they are."""
        return {name: self._placed(name, found) if name in self.maps else found for name, found in maps.items()}

    def _placed(self, name: str, found: Tensor) -> Tensor:
        size = tuple(found.shape[-2:])
        return found + F.interpolate(self.maps[name], size=size, mode="bilinear", align_corners=False).to(found.dtype)
