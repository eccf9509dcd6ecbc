"""How a TrV's weights are drawn at first: the two schemes of the release, as its code executes them."""

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from eyesmith.models.eva02.model import Block, Eva02

STD = 0.02
HEAD_SCALE = 0.001  # of the head in fine-tuning and CLIP


@torch.no_grad()
def initialise(encoder: "Eva02") -> None:
    """Draw every weight anew by `encoder.config.initial`; LayerNorms are 1 and 0, biases 0 but for the patches'.

    jax, the scheme of pre-training: matrices normal with deviation sqrt(2 / (fan in + fan out)), packed ones with their
    whole fan out; patches uniform by the same rule; tables normal with deviation 0.02 cut at +-0.02, which leaves
    0.0108. With sub-LN, and only then, the feed-forward matrices, the output projections and v (where stored apart)
    are multiplied by sqrt(ln(2 depth)).
    beit, the scheme of fine-tuning and CLIP: all matrices and tables normal with deviation 0.02; both output matrices
    of block i (from 1) divided by sqrt(2 i); the head multiplied by 0.001.
    """
    nn.Conv2d.reset_parameters(encoder.patch)  # leaves the bias uniform in +-1/sqrt(fan in), in both schemes
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias") and parameter.ndim == 1 and name != "patch.bias" and "norm" not in name:
            nn.init.zeros_(parameter)
        if name.endswith("relative"):
            nn.init.zeros_(parameter)
    if encoder.config.initial == "jax":
        _jax(encoder)
    else:
        _beit(encoder)


def _jax(encoder: "Eva02") -> None:
    config = encoder.config
    gain = math.sqrt(math.log(2 * config.depth)) if config.norm == "sub" else 1.0
    for table in (encoder.class_token, encoder.position):
        if table is not None:
            nn.init.trunc_normal_(table, std=STD, a=-STD, b=STD)
    flat = encoder.patch.weight.view(config.width, -1)
    nn.init.xavier_uniform_(flat)
    parts = 1 if config.is_packed else 3
    for block in _blocks(encoder):
        attention, ffn = block.attention, block.mlp
        for index, part in enumerate(attention.qkv.weight.chunk(parts)):
            _xavier(part, gain if index == 2 else 1.0)
        _xavier(attention.out.weight, gain)
        for part in ffn.enter.weight.chunk(1 if config.is_packed or config.ffn == "mlp" else 2):
            _xavier(part, gain)
        _xavier(ffn.out.weight, gain)
    if isinstance(encoder.head, nn.Linear):
        _xavier(encoder.head.weight, 1.0)


def _blocks(encoder: "Eva02") -> "list[Block]":
    return cast("list[Block]", list(encoder.layers))


def _xavier(weight: Tensor, gain: float) -> None:
    nn.init.xavier_normal_(weight, gain=gain)


def _beit(encoder: "Eva02") -> None:
    for table in (encoder.class_token, encoder.position):
        if table is not None:
            nn.init.trunc_normal_(table, std=STD)
    for number, block in enumerate(_blocks(encoder), 1):
        for linear in (block.attention.qkv, block.attention.out, block.mlp.enter, block.mlp.out):
            nn.init.trunc_normal_(linear.weight, std=STD)
        for linear in (block.attention.out, block.mlp.out):
            linear.weight.div_(math.sqrt(2 * number))
    if isinstance(encoder.head, nn.Linear):
        nn.init.trunc_normal_(encoder.head.weight, std=STD)
        encoder.head.weight.mul_(HEAD_SCALE)
