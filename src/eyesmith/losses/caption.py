"""How surprised a decoder is by the captions of its pictures: the loss of captioning."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ShapeError


def caption_loss(states: Tensor, words: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Mean cross-entropy of each caption's next tokens: [b], fp32, nats a token.

    states: [b, L - 1, W] of a decoder after each token but the last; words: [V, W], the table that tells what follows;
    ids: int64 [b, L], start token first; lengths: int64 [b], tokens of each caption with start and end token. What
    stands behind the end is not counted. Source: CoCa (arXiv 2205.01917), section 3.2, the mean over a caption's tokens
    first. Raises ShapeError when shapes differ.
    """
    if states.ndim != 3 or states.shape[:2] != (len(ids), ids.shape[1] - 1) or states.shape[2] != words.shape[1]:
        raise ShapeError(
            f"caption_loss: expected states [{len(ids)}, {ids.shape[1] - 1}, {words.shape[1]}] for ids "
            f"{list(ids.shape)} and words {list(words.shape)}, got {list(states.shape)}"
        )
    is_counted = torch.arange(1, ids.shape[1], device=ids.device) < lengths[:, None]  # [b, L - 1]
    if ids.device.type == "cpu":  # a caption of 8 tokens beside one of 30 costs 8; elsewhere counting would wait
        told = _told(states[is_counted], words, ids[:, 1:][is_counted])  # [R]
        told = torch.zeros_like(is_counted, dtype=told.dtype).masked_scatter(is_counted, told)
    else:
        told = _told(states, words, ids[:, 1:]) * is_counted
    return told.sum(1) / is_counted.sum(1).clamp(min=1)


def _told(states: Tensor, words: Tensor, ids: Tensor) -> Tensor:
    """The cross-entropy of ids [...] by states [..., W]: fp32 [...]."""
    logits = F.linear(states, words).float()
    return F.cross_entropy(logits.flatten(0, -2), ids.flatten(), reduction="none").view(ids.shape)
