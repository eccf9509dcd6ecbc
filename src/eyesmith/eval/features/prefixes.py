"""Texts through a causal text tower, every distinct beginning once.

No token of a causal tower sees a later one, so "a photo of a cat." and "a photo of a dog." have equal states up to
"a". Sorted texts form a tree of such beginnings; products, norms and MLPs run on its nodes, and attention alone on
whole texts. Of 100 classes in CLIP's 80 sentences 4 tokens of 11 a text are left, and no padding.
"""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.models.text.model import Block, ClipText, attend_causal

NUM_NODES = 4096  # of a batch


def text_batches(ids: Tensor, ends: Tensor) -> list[Tensor]:
    """Rows of ids [T, L] in batches for `shared_features`, texts with a common beginning together.

    ids: zeros after each row's end token; ends: [T] the number of tokens of each.
    """
    rows = ids.numpy()
    order = np.lexsort(rows.T[::-1])  # by the first token, then the second ...
    owned = np.maximum(ends.numpy()[order] - _num_shared(rows[order]), 0)  # 0: the same tokens as the text before
    batch = (owned.cumsum() - owned) // NUM_NODES
    cuts = np.flatnonzero(np.diff(batch)) + 1
    return [torch.from_numpy(part) for part in np.split(order, cuts)]


def shared_features(tower: ClipText, ids: Tensor, ends: Tensor) -> Tensor:
    """The tower's features [T, D], un-normalised, of texts in the order of `text_batches`; equal within rounding.

    ids: int64 [T, L] on the tower's device; ends: [T] on the CPU.
    """
    nodes, is_new = _tree(ids.cpu().numpy(), ends.numpy())
    device = ids.device
    places = torch.from_numpy(is_new.ravel().nonzero()[0]).to(device)  # [n], of each node in T * L
    paths = torch.from_numpy(nodes).to(device)  # [T, L], a node for each token
    last = torch.from_numpy(np.arange(len(nodes)) * nodes.shape[1] + ends.numpy() - 1).to(device)  # [T]
    tokens, positions = ids.flatten()[places], places % ids.shape[1]
    x = tower.token_embedding(tokens) + tower.positional_embedding[positions]  # [n, C]
    blocks = [cast(Block, block) for block in tower.transformer.resblocks]
    for block in blocks[:-1]:
        x = _block(block, x, paths, places)
    if blocks:  # of the last one only the end tokens are looked at
        x = _block(blocks[-1], x, paths, last, x[paths.flatten()[last]])
    else:
        x = x[paths.flatten()[last]]
    return tower.project(x)  # [T, D]


def _block(block: Block, x: Tensor, paths: Tensor, wanted: Tensor, kept: Tensor | None = None) -> Tensor:
    """One block on nodes x [n, C]; wanted: the places in T * L whose states come out, kept: what they were."""
    kept = x if kept is None else kept
    attention, (num_texts, length) = block.attn, paths.shape
    packed = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)  # [n, 3C]
    width = packed.shape[-1] // 3
    q, k, v = (
        packed[paths.flatten()]
        .view(num_texts, length, 3, attention.heads, width // attention.heads)
        .permute(2, 0, 3, 1, 4)
    )  # 3 x [T, heads, L, C/heads]
    mixed = attend_causal(q, k, v).transpose(1, 2).reshape(num_texts * length, width)[wanted]
    kept = attention.out_proj(mixed, plus=kept)
    return block.mlp(block.ln_2(kept), plus=kept)


def _tree(rows: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of sorted rows [T, L]: the node of each token, int64 (0 for padding), and whether it is the first of its node."""
    place = np.arange(rows.shape[1])[None]
    is_token = place < ends[:, None]
    is_new = is_token & (place >= _num_shared(rows)[:, None])
    numbers = (is_new.ravel().cumsum() - 1).reshape(is_new.shape)
    # a token that is not new has the node of the row above, which took it from above, and so on to a new one
    nodes = np.maximum.accumulate(np.where(is_new, numbers, 0), axis=0)
    return np.where(is_token, nodes, 0), is_new


def _num_shared(rows: np.ndarray) -> np.ndarray:
    """How many first tokens each row has in common with the row above, [T]; 0 for the first."""
    differs = rows[1:] != rows[:-1]
    counts = np.where(differs.any(1), differs.argmax(1), rows.shape[1])
    return np.concatenate([[0], counts])
