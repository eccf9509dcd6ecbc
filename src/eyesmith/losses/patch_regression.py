"""How far predicted patches are from what was behind the mask, one value each: a teacher's features, or pixels."""

import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError


def masked_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Negative cosine of each row with its target: [M], fp32, -1 to 1.

    predicted, target: [M, D] of any length. Source: EVA-02 (arXiv 2303.11331), section 3; eps 1e-8 as in the release.
    """
    _check(predicted, target)
    return -F.cosine_similarity(predicted.float(), target.float(), dim=-1, eps=1e-8)


def masked_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each row from its target: [M], fp32.

    predicted, target: [M, P] normalised pixels of a patch. Source: SimMIM (arXiv 2111.09886).
    """
    _check(predicted, target)
    return (predicted.float() - target.float()).abs().mean(dim=-1)


def patch_pixels(pixels: Tensor, patch_px: int) -> Tensor:
    """Patches as rows of their pixels: [B, 3, H, W] -> [B, N, 3 * patch_px^2], patches in row-major order."""
    batch, channels, height, width = pixels.shape
    if height % patch_px or width % patch_px:
        raise ShapeError(f"pixels: {height} x {width} does not divide into patches of {patch_px}")
    cells = pixels.reshape(batch, channels, height // patch_px, patch_px, width // patch_px, patch_px)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _check(predicted: Tensor, target: Tensor) -> None:
    if predicted.shape != target.shape or predicted.ndim != 2:
        raise ShapeError(
            f"masked loss: expected two tensors [M, D], got {list(predicted.shape)} and {list(target.shape)}"
        )
