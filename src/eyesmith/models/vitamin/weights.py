"""ViTamin weights from and to the layouts of open_clip and timm, bit for bit.

Ours differs in names, in 1x1 convolutions kept as matrices, and in one matrix for the two input products of a GeGLU
(`gate_value` = rows of w0, then of w1). Formats of files are hub's business: this page maps named tensors.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.models.clip import ClipConfig
from eyesmith.models.position import resize_position_table
from eyesmith.models.text import weights as text_weights
from eyesmith.models.text.config import ClipTextConfig
from eyesmith.models.vitamin.config import ViTaminConfig
from eyesmith.models.vitamin.recognise import likely_models, num_tokens

TRUNK = "visual.trunk."  # open_clip's prefix of timm's names
HEAD = "visual.head.proj.weight"
POSITION = "pos_embed"
_BACKBONE = "patch_embed.backbone."
_POINTWISE = ("conv1_1x1.weight", "conv3_1x1.weight", "shortcut.expand.weight")  # theirs [M, C, 1, 1], ours [M, C]


def is_open_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a whole ViTamin CLIP with open_clip's names."""
    return TRUNK + _BACKBONE + "stem.conv1.weight" in state and "logit_scale" in state


def from_open_clip(state: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The state dict of our Clip out of open_clip's, both its layouts (text tensors under `text.` or at the root).

    A position table of another image size is resampled to config's. Tensors keep their dtype; unchanged ones are not
    copied. Raises CheckpointError naming tensors that are missing, left over or of another shape, and the model they
    look like; ConfigError when config is no ViTamin with open_clip's text tower.
    """
    image, text = _parts(config)
    theirs = _text_prefixed(state)
    if (scale := theirs.get("logit_scale")) is not None and scale.numel() == 1:
        theirs["logit_scale"] = scale.reshape(())
    _fit_position(theirs, TRUNK + POSITION, image)
    _compare(theirs, _expected_pair(image, text), wanted=config.name, looks_like=likely_models(theirs))
    ours = {"image." + name: value for name, value in _trunk_to_ours(theirs, image, TRUNK).items()}
    ours["image.head.weight"] = theirs[HEAD]
    ours |= {"text." + name: value for name, value in text_weights.from_open_clip(theirs).items()}
    return ours | {"logit_scale": theirs["logit_scale"]}


def to_open_clip(
    state: Mapping[str, Tensor], config: ClipConfig, *, is_text_prefixed: bool = True
) -> dict[str, Tensor]:
    """open_clip's state dict out of our Clip's: with `text.` names (its CustomTextCLIP), or with text at the root."""
    image, _ = _parts(config)
    own = {part: _inner(state, part + ".") for part in ("image", "text")}
    theirs = {TRUNK + name: value for name, value in _trunk_to_theirs(own["image"], image).items()}
    theirs[HEAD] = own["image"]["head.weight"]
    theirs |= text_weights.to_open_clip(own["text"], prefix=text_weights.PREFIX if is_text_prefixed else "")
    return theirs | {"logit_scale": state["logit_scale"]}


def from_timm(state: Mapping[str, Tensor], config: ViTaminConfig) -> dict[str, Tensor]:
    """The state dict of our image encoder out of timm's, with or without timm's head.

    A head becomes the projection; its bias must be zero, as it is where timm loaded a CLIP model. With embed_dim 0 the
    head is left out. Raises CheckpointError as from_open_clip does.
    """
    _check_parts(config)
    theirs = dict(state)
    bias = theirs.pop("head.bias", None)
    if not config.embed_dim:
        theirs.pop("head.weight", None)
    elif bias is not None and bool((bias != 0).any()):
        raise CheckpointError(
            "head.bias: expected zeros, a CLIP projection has no bias; this is a classifier: "
            "set embed_dim=0 to take the encoder without it"
        )
    _fit_position(theirs, POSITION, config)
    expected = to_timm(_meta_state(config), config)
    expected.pop("head.bias", None)
    _compare(theirs, expected, wanted="the encoder", looks_like=likely_models(theirs))
    ours = _trunk_to_ours(theirs, config, "")
    if config.embed_dim:
        ours["head.weight"] = theirs["head.weight"]
    return ours


def to_timm(state: Mapping[str, Tensor], config: ViTaminConfig) -> dict[str, Tensor]:
    """timm's state dict out of our image encoder's. A projection becomes its classifier, with a bias of zeros."""
    _check_parts(config)
    theirs = _trunk_to_theirs(state, config)
    if config.embed_dim:
        theirs["head.weight"] = state["head.weight"]
        theirs["head.bias"] = state["head.weight"].new_zeros(config.embed_dim)
    return theirs


def _module_names(config: ViTaminConfig) -> dict[str, str]:
    """Our module name to timm's, of all modules with weight and bias that correspond one to one."""
    names = {
        "stem.conv1": _BACKBONE + "stem.conv1",
        "stem.norm": _BACKBONE + "stem.norm1",
        "stem.conv2": _BACKBONE + "stem.conv2",
        "transition.norm": _BACKBONE + "pool.norm",
        "transition.conv": _BACKBONE + "pool.proj",
        "norm": "fc_norm",
    }
    convolutions = {"norm": "pre_norm", "expand": "conv1_1x1", "depthwise": "conv2_kxk", "reduce": "conv3_1x1"}
    for stage in (0, 1):
        for index in range(config.depths[stage]):
            ours, theirs = f"stage{stage + 1}.{index}.", f"{_BACKBONE}stages.{stage}.{index}."
            names |= {ours + own: theirs + other for own, other in convolutions.items()}
    if config.widths[0] != config.widths[1]:
        names["stage2.0.shortcut"] = _BACKBONE + "stages.1.0.shortcut.expand"
    block = {
        "norm1": "norm1",
        "attention.qkv": "attn.qkv",
        "attention.out": "attn.proj",
        "norm2": "norm2",
        "mlp.norm": "mlp.norm",
        "mlp.out": "mlp.w2",
    }
    for index in range(config.depths[2]):
        names |= {f"stage3.{index}.{own}": f"blocks.{index}.{other}" for own, other in block.items()}
    return names


def _trunk_to_ours(theirs: Mapping[str, Tensor], config: ViTaminConfig, prefix: str) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for own, other in _module_names(config).items():
        for leaf in ("weight", "bias"):
            value = theirs[f"{prefix}{other}.{leaf}"]
            ours[f"{own}.{leaf}"] = value.flatten(1) if f"{other}.{leaf}".endswith(_POINTWISE) else value
    for index in range(config.depths[2]):
        for leaf in ("weight", "bias"):
            gate, value = (theirs[f"{prefix}blocks.{index}.mlp.{name}.{leaf}"] for name in ("w0", "w1"))
            ours[f"stage3.{index}.mlp.gate_value.{leaf}"] = torch.cat((gate, value))
    if config.has_position:
        ours["position"] = theirs[prefix + POSITION]
    return ours


def _trunk_to_theirs(ours: Mapping[str, Tensor], config: ViTaminConfig) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {}
    for own, other in _module_names(config).items():
        for leaf in ("weight", "bias"):
            value = ours[f"{own}.{leaf}"]
            theirs[f"{other}.{leaf}"] = value[..., None, None] if f"{other}.{leaf}".endswith(_POINTWISE) else value
    for index in range(config.depths[2]):
        for leaf in ("weight", "bias"):
            halves = ours[f"stage3.{index}.mlp.gate_value.{leaf}"].chunk(2)
            # clones: a file that holds two views of one storage would store the whole twice
            theirs |= {f"blocks.{index}.mlp.w{half}.{leaf}": halves[half].clone() for half in (0, 1)}
    if config.has_position:
        theirs[POSITION] = ours["position"]
    return theirs


def _parts(config: ClipConfig) -> tuple[ViTaminConfig, ClipTextConfig]:
    if not isinstance(config.image, ViTaminConfig) or not isinstance(config.text, ClipTextConfig):
        raise ConfigError(
            f"{config.name}: open_clip's layout needs a ViTamin image tower and open_clip's text tower, got "
            f"{type(config.image).__name__} and {type(config.text).__name__}"
        )
    _check_parts(config.image)
    if not config.image.embed_dim:
        raise ConfigError(f"{config.name}: image.embed_dim is 0; open_clip's layout has a projection")
    return config.image, config.text


def _check_parts(config: ViTaminConfig) -> None:
    if not config.has_released_parts:
        raise ConfigError(
            f"the layouts of open_clip and timm hold ViTamin's released parts only, this one has convolution="
            f"{config.convolution!r}, ffn={config.ffn!r} and stride {config.stride}; keep it in eyesmith's own format"
        )


def _inner(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _text_prefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names with all text tensors under `text.`, and without the masks that old checkpoints store."""
    prefix = text_weights.PREFIX
    at_root = {name for name in text_weights.from_open_clip(state) if prefix + name not in state}
    renamed = {prefix + name if name in at_root else name: value for name, value in state.items()}
    return {name: value for name, value in renamed.items() if not name.endswith("attn_mask")}


def _fit_position(theirs: dict[str, Tensor], name: str, config: ViTaminConfig) -> None:
    """Resample the table in place where it fills another square grid of the right width."""
    table = theirs.get(name)
    if table is None or not config.has_position or table.ndim != 3 or table.shape[::2] != (1, config.widths[2]):
        return
    side = math.isqrt(table.shape[1])
    if table.shape[1] != num_tokens(config) and side * side == table.shape[1]:
        theirs[name] = resize_position_table(table, (side, side), config.grid)


def _meta_state(config: ViTaminConfig | ClipTextConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(config.build().state_dict())


def _expected_pair(image: ViTaminConfig, text: ClipTextConfig) -> dict[str, Tensor]:
    own = _meta_state(image)
    expected = {TRUNK + name: value for name, value in _trunk_to_theirs(own, image).items()}
    expected[HEAD] = own["head.weight"]
    expected |= text_weights.to_open_clip(_meta_state(text))
    return expected | {"logit_scale": torch.empty((), device="meta")}


def _compare(
    theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, wanted: str, looks_like: list[str]
) -> None:
    """Raise CheckpointError unless names and shapes are the expected ones."""
    bent = [name for name in expected if name in theirs and theirs[name].shape != expected[name].shape]
    missing = [name for name in expected if name not in theirs]
    left_over = [name for name in theirs if name not in expected]
    if not (bent or missing or left_over):
        return
    lines = []
    if bent:
        name = bent[0]
        lines.append(f"'{name}' is {list(theirs[name].shape)}, {wanted} needs {list(expected[name].shape)}")
        lines += [f"{len(bent) - 1} more of another shape"] if len(bent) > 1 else []
    for names, what in ((missing, "missing"), (left_over, "with no place")):
        if names:
            shown = ", ".join(f"'{name}'" for name in names[:3])
            lines.append(f"{len(names)} {what}: {shown}{' ...' if len(names) > 3 else ''}")
    if looks_like and wanted not in looks_like:
        lines.append(f"this looks like {looks_like[0]}: pass its name")
    elif not looks_like:
        lines.append("this looks like no ViTamin")
    raise CheckpointError(f"weights do not fit {wanted}: " + "; ".join(lines))
