"""Which class a mask has: by a trained classifier in text space, by the frozen encoder, and by both together.

Source: FC-CLIP (arXiv 2308.02487) and its reference code. B batch, Q queries, C channels, D embedding, K classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.fusion import Fusion, fuse_logits
from eyesmith.dense.segment.decoder import MaskMaps
from eyesmith.dense.segment.losses import Prediction
from eyesmith.dense.segment.pmt import mlp
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ShapeError

MAX_SCALE = 100.0  # of cosines, the trained one's and CLIP's alike
_INITIAL_SCALE = 1 / 0.07
_LEAST_AREA = 1e-8


def mask_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of the cells inside each mask, [B, Q, C]; of a mask without a cell, 0.

    features: [B, C, h, w]. masks: logits [B, Q, h, w], inside where above 0; they get no gradient.
    """
    if features.shape[0] != masks.shape[0] or features.shape[2:] != masks.shape[2:]:
        raise ShapeError(
            f"masks: expected [{features.shape[0]}, Q, {features.shape[2]}, {features.shape[3]}], as the features "
            f"have it, got {list(masks.shape)}"
        )
    inside = (masks.detach() > 0).to(features.dtype).flatten(2)  # [B, Q, N]
    return inside @ features.flatten(2).mT / (inside.sum(2, keepdim=True) + _LEAST_AREA)


class TextSpaceClassifier(nn.Module):
    """The in-vocabulary classifier: mask and query to a vector of text space, beside the classes and a learned void."""

    def __init__(self, width: int, embed_dim: int) -> None:
        """width: of the decoder's queries and features. embed_dim: of the text vectors."""
        super().__init__()
        self.pooled_norm = nn.LayerNorm(width)
        self.pooled = nn.Linear(width, width)
        self.embed = mlp(width, width, embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_INITIAL_SCALE)))
        self.void = nn.Parameter(torch.randn(1, embed_dim))

    def vectors(self, queries: Tensor, masks: Tensor, features: Tensor) -> Tensor:
        """Unit vectors [B, Q, D], fp32. queries: [B, Q, C]. masks: logits [B, Q, h, w]. features: [B, C, h, w]."""
        pooled = self.pooled(self.pooled_norm(mask_pool(features, masks)))
        return F.normalize(self.embed(pooled + queries).float(), dim=-1)

    def forward(self, vectors: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits [B, Q, K + 1], the last for void. vectors: [B, Q, D], as `vectors` gives them."""
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        void = vectors @ F.normalize(self.void, dim=-1).mT
        return scale * torch.cat([vocabulary.scores(vectors), void.to(vectors.dtype)], -1)

    def predictions(self, found: MaskMaps, vocabulary: Vocabulary) -> list[Prediction]:
        """What each layer of a decoder predicts."""
        return [
            Prediction(self(self.vectors(queries, masks, features), vocabulary), masks)
            for queries, masks, features in zip(*found, strict=True)
        ]


@torch.no_grad()
def frozen_logits(
    dense: Tensor,
    masks: Tensor,
    project: Callable[[Tensor], Tensor],
    vocabulary: Vocabulary,
    scale: float,
    *,
    is_projected_first: bool = False,
) -> Tensor:
    """The out-of-vocabulary classifier: what the frozen encoder says of each mask, logits [B, Q, K], fp32.

    dense: the last map before pooling, [B, C, h, w]. masks: logits [B, Q, H, W]; they are brought to the map's size,
    bilinear, and cut at 0. project: the encoder's norm and head, [..., C] -> [..., D]. scale: of its training, at most
    MAX_SCALE. is_projected_first: project each cell, then pool, as F-ViT does; FC-CLIP pools first.
    """
    if masks.shape[2:] != dense.shape[2:]:
        masks = F.interpolate(masks.float(), size=dense.shape[2:], mode="bilinear", align_corners=False)
    if is_projected_first:
        cells = F.normalize(project(dense.permute(0, 2, 3, 1)).float(), dim=-1).permute(0, 3, 1, 2)
        vectors = mask_pool(cells, masks)
    else:
        vectors = project(mask_pool(dense, masks))
    return min(scale, MAX_SCALE) * vocabulary.scores(F.normalize(vectors.float(), dim=-1))


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Probabilities of masks. classes: [B, Q, K], without void, which has what is left of 1. void: [B, Q]."""

    classes: Tensor
    void: Tensor


def fused(
    inside: Tensor, outside: Tensor | None, seen: Tensor, fusion: Fusion, *, has_cells: Tensor | None = None
) -> Fused:
    """Both classifiers' word as one. inside: logits [B, Q, K + 1], void last. outside: logits [B, Q, K], or None.

    seen: bool [K], the classes of training. has_cells: bool [B, Q]; masks without a cell in the frozen map keep the
    trained classifier's word (an option of FC-CLIP that attention pooling needs). The fused probabilities are
    renormalised whatever `fusion` says, as void has the rest.
    """
    inside = inside.float()
    alone = inside.softmax(-1)
    if outside is None:
        return Fused(classes=alone[..., :-1], void=alone[..., -1])
    both = fuse_logits(inside, outside.float(), seen, fusion.alpha, fusion.beta, is_renormalised=True)
    if has_cells is not None:
        both = torch.where(has_cells[..., None], both, alone[..., :-1])
    return Fused(classes=both, void=alone[..., -1])
