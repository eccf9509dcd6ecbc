"""Maps in text space out of an encoder that was trained on whole pictures: three ways through its last block.

The last block's attention mixes all places for the sake of one pooled feature. Without it, or with one that looks
around itself, a cell tells of its own place, and also where the encoder pools by a class token, whose patches otherwise
no text was ever compared with. B batch, T tokens, C channels, D embedding.
"""

import warnings
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.errors import ConfigError
from eyesmith.eval.features.identity import facts_hash
from eyesmith.models.encoder import Encoder
from eyesmith.models.last_block import OpenBlock, open_block

Path = Literal["projection", "value", "neighbour"]

NEIGHBOUR_SIGMA = 5.0  # cells; NACLIP's
_TOLERANCE = 1e-3  # of a block that was taken apart against itself, relative to its largest number


class PatchSpaceWarning(UserWarning):
    """Dense features that no text was ever compared with."""


class LastBlockEncoder(FrozenEncoder):
    """A frozen encoder whose last block works otherwise, behind the same contract.

    `value`: the block without attention, each token by the path of its values, beside the shortcut and through the MLP.
    Source: CLIPSelf's dense EVA-CLIP; the first of the kind is MaskCLIP (arXiv 2112.01071).
    `neighbour`: tokens attend to tokens with similar keys and, by a Gaussian of `sigma` cells that is added to the
    scores of patches, to those nearby; no shortcut, no MLP. Source: NACLIP (arXiv 2404.08181).
    `dense`, the last tap and `tokens(layer=-1)` change; `forward` and all before the last block stay.
    """

    def __init__(self, encoder: Encoder, path: Path, *, sigma: float = NEIGHBOUR_SIGMA) -> None:
        """Raises ConfigError for an encoder whose last block is no known transformer block."""
        super().__init__(encoder)
        if path not in ("value", "neighbour"):
            raise ConfigError(f"path: expected value or neighbour, got {path!r}")
        if not sigma > 0:
            raise ConfigError(f"sigma: expected a positive number of cells, got {sigma}")
        self.path: Path = path
        self.sigma = sigma
        self._whole = (FrozenEncoder(encoder),)  # for the pooled feature, in a tuple as it is no sub-module
        self.is_mean_pooled = False  # the pooled feature is not of this map
        self._try_out()
        self.inner.blocks()[-1].register_forward_hook(self._replace, with_kwargs=True)  # of our view alone

    def forward(self, pixels: Tensor) -> Tensor:
        return self._whole[0](pixels)

    def at_size(self, height: int, width: int) -> Self:
        return type(self)(self._whole[0].inner.at_size(height, width), self.path, sigma=self.sigma)

    def identity(self) -> str:
        return facts_hash([self._whole[0].identity(), self.path, self.sigma])

    def _open(self, block: nn.Module, args: Any, kwargs: Any) -> OpenBlock | None:
        x = args[0] if args else next(iter(kwargs.values()))
        places = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else None
        return open_block(block, x, places) if x.ndim == 3 else None

    def _replace(self, block: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
        """The hook behind the last block: its result, computed anew."""
        opened = self._open(block, args, kwargs)
        assert opened is not None  # _try_out went through
        if self.path == "value":
            found = opened.finish(opened.join(opened.values))
        else:
            found = opened.join(self._near(opened) @ opened.values)
        return (found, *result[1:]) if isinstance(result, tuple) else found

    def _near(self, opened: OpenBlock) -> Tensor:
        """What each token looks at: [B, heads, T, T], rows of sum 1."""
        keys = opened.keys
        scores = keys @ keys.mT * keys.shape[-1] ** -0.5
        rows, columns = (side // self.stride for side in self.inner.image_size)
        before = scores.shape[-1] - rows * columns  # class token and registers, which are near nothing
        scores[..., before:, before:] += gaussian_of_distance(rows, columns, self.sigma).to(scores)
        return scores.softmax(dim=-1)

    @torch.no_grad()
    def _try_out(self) -> None:
        """Raise ConfigError unless the last block, taken apart and put together, gives what it gives."""
        fits: list[bool] = []

        def compare(block: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            opened = self._open(block, args, kwargs)
            if opened is not None:
                own = result[0] if isinstance(result, tuple) else result
                difference = float((opened.plain() - own).abs().max() / own.abs().max().clamp_min(1e-6))
                fits.append(difference <= (_TOLERANCE if own.dtype in (torch.float32, torch.float64) else 0.05))

        block, (height, width) = self.inner.blocks()[-1], self.inner.image_size
        handle = block.register_forward_hook(compare, with_kwargs=True)
        try:
            noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
            self.inner.dense(noise.to(self.device))  # forward may ask the last block for one token alone
        finally:
            handle.remove()
        if fits != [True]:
            raise ConfigError(
                f"path: the last block of this encoder ({type(block).__name__}) is none that {self.path!r} knows; "
                "take projection, or classify crops"
            )


def gaussian_of_distance(rows: int, columns: int, sigma: float) -> Tensor:
    """exp(-d^2 / (2 sigma^2)) of the distance d between each two cells of a grid, in cells: [N, N], row by row."""
    ys, xs = (torch.arange(side, dtype=torch.float32) for side in (rows, columns))
    near_y, near_x = ((-((axis[:, None] - axis[None]) ** 2) / (2 * sigma**2)).exp() for axis in (ys, xs))
    return torch.kron(near_y, near_x)


def dense_encoder(encoder: Encoder, path: Path | Literal["auto"] = "auto") -> FrozenEncoder:
    """The encoder with a map in text space, frozen: `project` of the cells of `dense` compares with texts.

    path: `projection` is the encoder's own map, each cell through the pooling's norm and head, right where the feature
    is the plain mean of the map (ViTamin, ConvNeXt); value, neighbour: see LastBlockEncoder. `auto`: projection for
    mean-pooled encoders, neighbour for others where it is known, else projection. Warns (PatchSpaceWarning) where a
    projection is not in text space.
    """
    if path not in (*get_args(Path), "auto"):
        raise ConfigError(f"path: expected one of auto, {', '.join(get_args(Path))}, got {path!r}")
    if path == "auto":
        if not encoder.is_mean_pooled:
            try:
                return LastBlockEncoder(encoder, "neighbour")
            except ConfigError:
                pass
        path = "projection"
    if path == "projection":
        warn_of_patches(encoder)
        return FrozenEncoder(encoder)
    return LastBlockEncoder(encoder, path)


def warn_of_patches(encoder: Encoder) -> None:
    """Say that projected patches are not in text space, where they are not; heads that project cells call it too."""
    if not encoder.is_mean_pooled and not isinstance(encoder, LastBlockEncoder):
        warnings.warn(
            "this encoder does not pool the mean of its map, so its projected cells were never compared with texts and "
            "dense scores are near chance; take the path value or neighbour, classify crops, or another encoder",
            PatchSpaceWarning,
            stacklevel=3,
        )


def unit_map(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Unit vectors in text space for each cell: pixels [B, 3, H, W] -> fp32 [B, H/stride, W/stride, D]."""
    cells = encoder.dense(pixels).permute(0, 2, 3, 1)
    return F.normalize(encoder.project(cells).float(), dim=-1)
