"""Cross-entropy over classes, with label smoothing and with two labels an image."""

import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError


def class_losses(
    logits: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    partners: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each row against its smoothed label: [B] fp32, nats.

    logits: [B, K]. labels: int64 [B]. smoothing: this much of the target is spread evenly over all K classes, the
    right one included (timm's rule). partners, share: the second label of images that were mixed, int64 [B], and the
    share of the first, fp32 [B]. Raises ShapeError where the rows do not fit.
    Source: Szegedy et al. (arXiv 1512.00567), sec. 7; mixup (arXiv 1710.09412).
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(f"expected logits [B, K] and B labels, got {list(logits.shape)} and {list(labels.shape)}")
    chances = F.log_softmax(logits.float(), dim=-1)  # [B, K]
    right = chances.gather(1, labels[:, None])[:, 0]
    if partners is not None and share is not None:
        right = share * right + (1 - share) * chances.gather(1, partners[:, None])[:, 0]
    return -((1 - smoothing) * right + smoothing * chances.mean(dim=-1))
