"""What ViTamin's two kinds of block replaced, so that each choice can be measured: no released model has these."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.depthwise import DepthwiseConv
from eyesmith.models.linear import Linear

BATCH_NORM_EPS = 1e-5


class MBConvBnSe(nn.Module):
    """CoAtNet's MBConv on [B, H, W, C] maps: BatchNorm in four places, and squeeze-excitation before the reduction.

    Norm, expand 4x (of the channels out), norm, GELU, depthwise 3x3, norm, GELU, squeeze-excitation, reduce. The
    shortcut is that of MBConv-LN. Numbers are those of timm's MbConvBlock with pool_type="avg". While training, a
    sample's result depends on the others of its batch.
    """

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * dim_out
        self.stride = stride
        self.norm = nn.BatchNorm2d(dim_in, eps=BATCH_NORM_EPS)
        self.expand = nn.Conv2d(dim_in, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS)
        self.depthwise = DepthwiseConv(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS)
        self.excite = SqueezeExcite(hidden, dim_out // 4)
        self.reduce = nn.Conv2d(hidden, dim_out, 1)
        self.shortcut = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)  # [B, C, H, W], channels last in memory
        kept = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False) if self.stride == 2 else x
        if self.shortcut is not None:
            kept = self.shortcut(kept)
        x = F.gelu(self.expand_norm(self.expand(self.norm(x))))
        x = F.gelu(self.depthwise_norm(self.depthwise(x)))
        return (kept + self.reduce(self.excite(x))).permute(0, 2, 3, 1)

    @torch.no_grad()
    def initialise(self) -> None:
        """As the convolutions of MBConv-LN: normal, variance 2 / fan-out, biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] ** 2 // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class SqueezeExcite(nn.Module):
    """Each channel times a number in 0..1 that a small network finds from all channels' means. x: [B, C, H, W]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(dim, hidden, 1)
        self.excite = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class Mlp(nn.Module):
    """In the place of GeGLU with as many products: LayerNorm, 3C channels, GELU, back to C."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.expand = Linear(width, 3 * width)
        self.out = Linear(3 * width, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        return self.out(self.expand(self.norm(x), gelu=True), plus=plus)
