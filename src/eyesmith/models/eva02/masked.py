"""The student of masked-image pre-training: a TrV, a mask token, and a linear head on the hidden patches."""

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.eva02.model import STD, Eva02, Eva02Config

PATCH_GRAD_SCALE = 0.1  # of every released command; the paper does not say so


class MaskedEva02(nn.Module):
    """Predicts a vector for every hidden patch from the others.

    `image` is the encoder, without a projection; `mask_token` [1, 1, C] stands in for hidden patches and gets their
    positions; `predict` is the linear head behind the encoder's last norm. The rest of the image is seen through the
    full depth, the hidden patches as tokens.
    """

    def __init__(self, config: Eva02Config, target_dim: int, *, patch_grad_scale: float = PATCH_GRAD_SCALE) -> None:
        """target_dim: width of what is predicted. patch_grad_scale: factor on the gradient of the patch embedding.

        Raises ConfigError for an encoder with a projection, which this would leave untrained.
        """
        super().__init__()
        if config.embed_dim:
            raise ConfigError(
                f"embed_dim: a masked-image run trains no projection, got {config.embed_dim}; set it to 0"
            )
        self.config, self.target_dim, self.patch_grad_scale = config, target_dim, patch_grad_scale
        self.image = Eva02(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.predict = nn.Linear(config.width, target_dim)
        nn.init.trunc_normal_(self.mask_token, std=STD, a=-STD, b=STD)
        nn.init.xavier_normal_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)

    def forward(self, pixels: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
        """Predictions of the hidden patches: [M, target_dim], images in order, patches of an image row-major.

        pixels: [B, 3, H, W], uint8 or normalised floats. mask: bool [B, N], True for hidden patches, M in all. places:
        int64 [M], those of `mask` when it is read row by row; None finds them, which makes the host wait for a GPU.
        """
        patches = self.image.patches(pixels)  # [B, N, C]
        if mask.shape != patches.shape[:2] or mask.dtype != torch.bool:
            raise ShapeError(f"mask: expected bool {list(patches.shape[:2])}, got {mask.dtype} {list(mask.shape)}")
        if self.patch_grad_scale != 1:
            patches = patches.detach() * (1 - self.patch_grad_scale) + patches * self.patch_grad_scale
        patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        tokens = self.image.encode(patches)  # [B, 1 + N, C]
        if places is None:
            places = mask.flatten().nonzero()[:, 0]
        # one norm per token, so those that nobody asks for need none; each image has its class token before its patches
        hidden = tokens.flatten(0, 1)[places + places // mask.shape[1] + 1]
        return self.predict(self.image.norm(hidden))
