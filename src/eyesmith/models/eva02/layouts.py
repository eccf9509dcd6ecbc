"""The names of TrV's tensors in the files of the release, of timm and of open_clip.

All are brought to the release's classification names first ("plain" here): `blocks.i.attn.q_proj.weight`, `.q_bias`,
`mlp.w1`, and `norm` or `fc_norm`. What ours keeps as one matrix is joined or cut by `weights`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from eyesmith.errors import CheckpointError

Layout = Literal["reference", "timm", "open_clip"]

TRUNK = "visual.trunk."  # open_clip's prefix of timm's names
VISUAL = "visual."  # of the release's CLIP files
_MARKS = ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.proj.weight")
_ATTENTION = ("blocks.0.attn.q_proj.weight", "blocks.0.attn.q_bias")
_PRETRAINING = ("mask_token", "lm_head.weight", "lm_head.bias")
_NOT_WEIGHTS = re.compile(r"(^|\.)rope\.|relative_position_index$|\.k_bias$")  # tables that are computed
_TO_PLAIN = (
    (".attn.q_proj.bias", ".attn.q_bias"),
    (".attn.v_proj.bias", ".attn.v_bias"),
    (".attn.norm.", ".attn.inner_attn_ln."),
    (".mlp.norm.", ".mlp.ffn_ln."),
    (".mlp.fc1_g.", ".mlp.w1."),
    (".mlp.fc1_x.", ".mlp.w2."),
)
_SWIGLU_TO_PLAIN = ((".mlp.fc1.", ".mlp.w12."), (".mlp.fc2.", ".mlp.w3."))


@dataclass(frozen=True)
class Found:
    """An image tower's tensors in plain names.

    layout: whose file it is; is_clip: it lay beside a text tower, or has a CLIP's prefix; extras: what of a
    pre-training file is not the encoder (mask token, the head of the targets), by its names.
    """

    tensors: dict[str, Tensor]
    layout: Layout
    is_clip: bool
    extras: dict[str, Tensor]


def is_eva02(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a TrV's tensors, or those of a plain ViT of the same release, in anybody's names but ours."""
    return _prefix(state) is not None


def find_tower(state: Mapping[str, Tensor]) -> Found:
    """The image tower of a file of the release (pre-training, classification, CLIP), of timm or of open_clip.

    Tables of rotary positions are left out, whatever their shape: they are computed. Raises CheckpointError when these
    are no such tensors.
    """
    prefix = _prefix(state)
    if prefix is None:
        raise CheckpointError(
            "these are no EVA-02 weights: expected names such as 'blocks.0.attn.q_proj.weight', got "
            f"{', '.join(list(state)[:3])} ..."
        )
    inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    inner = {name: value for name, value in inner.items() if not _NOT_WEIGHTS.search(name)}
    is_timm = prefix == TRUNK or any(".mlp.fc1_g." in name or ".q_proj.bias" in name for name in inner)
    has_mlp = "blocks.0.mlp.fc1.weight" in inner
    is_gated = has_mlp and inner["blocks.0.mlp.fc1.weight"].shape[0] == 2 * inner["blocks.0.mlp.fc2.weight"].shape[1]
    is_timm |= is_gated or (has_mlp and "blocks.0.mlp.norm.weight" in inner)
    renames = _TO_PLAIN + (_SWIGLU_TO_PLAIN if is_gated or not has_mlp else ())
    plain: dict[str, Tensor] = {}
    for name, value in inner.items():
        for theirs, own in renames:
            name = name.replace(theirs, own)
        plain[name] = value
    if prefix == TRUNK:
        layout: Layout = "open_clip"
    else:
        layout = "timm" if is_timm else "reference"
    extras = {name: plain.pop(name) for name in _PRETRAINING if name in plain}
    return Found(plain, layout, bool(prefix) or "logit_scale" in state, extras)


def to_timm_name(name: str, *, is_gated: bool) -> str:
    """A plain name as timm has it. is_gated: of a SwiGLU encoder."""
    if re.search(r"\.attn\.[qv]_proj\.bias$", name):
        return name
    for theirs, own in _TO_PLAIN[2:] + (_SWIGLU_TO_PLAIN if is_gated else ()):
        name = name.replace(own, theirs)
    return name


def _prefix(state: Mapping[str, Tensor]) -> str | None:
    for prefix in (TRUNK, VISUAL, ""):
        if all(prefix + name in state for name in _MARKS) and any(prefix + name in state for name in _ATTENTION):
            return prefix
    return None
