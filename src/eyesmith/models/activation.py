"""The activations of published image and text towers, by name."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["gelu", "quick_gelu", "gelu_tanh", "silu"]
"""gelu: exact. quick_gelu: x * sigmoid(1.702 x), of OpenAI, DFN, MetaCLIP. gelu_tanh: SigLIP's. silu: SwiGLU's."""

QUICK = 1.702


def activate(x: Tensor, name: Activation) -> Tensor:
    """The activation of every element, in the type of x; x itself may be overwritten where no gradient is wanted."""
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "silu":
        return F.silu(x)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or type(x) is not Tensor:
        return x * torch.sigmoid(QUICK * x)
    return x.mul_(torch.sigmoid(QUICK * x))
