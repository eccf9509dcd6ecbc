"""How surprised a decoder is by the captions of its pictures: the loss of captioning."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError


def caption_loss(logits: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Mean cross-entropy of each caption's next tokens: [b], fp32, nats a token.

    logits: [b, L - 1, V] of what follows each token but the last; ids: int64 [b, L], start token first; lengths: int64
    [b], tokens of each caption with start and end token. What stands behind the end is not counted.
    Source: CoCa (arXiv 2205.01917), section 3.2, the mean over a caption's tokens first. Raises ShapeError when shapes
    differ.
    """
    if logits.ndim != 3 or logits.shape[:2] != (len(ids), ids.shape[1] - 1):
        raise ShapeError(
            f"caption_loss: expected logits [{len(ids)}, {ids.shape[1] - 1}, V] for ids {list(ids.shape)}, got "
            f"{list(logits.shape)}"
        )
    told = F.cross_entropy(logits.float().mT, ids[:, 1:], reduction="none")  # [b, L - 1]
    is_counted = torch.arange(1, ids.shape[1], device=ids.device) < lengths[:, None]  # [b, L - 1]
    return (told * is_counted).sum(1) / is_counted.sum(1).clamp(min=1)
