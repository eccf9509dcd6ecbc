"""Softmax contrastive loss of CLIP, with pairs that are not negatives of each other."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric softmax loss over all image-text pairs of the batch.

    image, text: [B, D], unit L2 rows, row i of both is one sample. scale: [] fp32, 1/temperature.
    same: [B, B] bool, True where image i and text j mean the same although they are different samples (the same concept
    twice in a batch); such a pair is left out of both softmaxes. The diagonal is always kept.
    Returns [] fp32 (fp64 for such features), nats per sample, half from each direction. Raises ShapeError when the
    shapes do not agree.
    Source: CLIP (arXiv 2103.00020), fig. 3. Departs: `same`; the caller bounds `scale`, not this function.
    """
    if image.ndim != 2 or image.shape != text.shape:
        raise ShapeError(
            f"image and text: expected equal shapes [B, D], got {list(image.shape)} and {list(text.shape)}"
        )
    dtype = torch.promote_types(image.dtype, torch.float32)
    logits = scale * image.to(dtype) @ text.to(dtype).mT  # [B, B]
    if same is not None:
        if same.shape != logits.shape:
            raise ShapeError(f"same: expected {list(logits.shape)}, got {list(same.shape)}")
        others = same & ~torch.eye(len(logits), dtype=torch.bool, device=same.device)
        logits = logits.masked_fill(others, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
