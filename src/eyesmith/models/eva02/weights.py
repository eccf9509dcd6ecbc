"""TrV weights from and to the files of the release, of timm and of open_clip, bit for bit.

Formats of files are hub's business: this page maps named tensors. `layouts` has the names, `recognise` the sizes.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.config import Eva02Config, Resize
from eyesmith.models.eva02.layouts import TRUNK, VISUAL, Found, Layout, find_tower, to_timm_name
from eyesmith.models.eva02.relative import resize_relative_table
from eyesmith.models.position import resize_position_table
from eyesmith.models.text import weights as text_weights
from eyesmith.models.text.config import ClipTextConfig

_OLD_SCALE = "text.logit_scale"  # where early files of EVA-CLIP have it


def from_published(state: Mapping[str, Tensor] | Found, config: Eva02Config) -> dict[str, Tensor]:
    """The state dict of our encoder out of anybody's file: the release's, timm's, open_clip's image tower.

    Packed and separate matrices are both read. The mask token and the head of a pre-training file are left out, and
    with embed_dim 0 the head; a file without last norm (a detector's) gives one that changes nothing. A table or a
    kernel of another size is resampled as config.resize says. Tensors keep their dtype. Raises CheckpointError naming
    tensors that are missing, left over or of another shape.
    """
    found = state if isinstance(state, Found) else find_tower(state)
    plain = _joined(found.tensors, config)
    if not config.embed_dim:
        plain.pop("head.weight", None)
        plain.pop("head.bias", None)
    table = plain.get("pos_embed")
    if table is not None and config.has_position and table.shape[2] == config.width:
        plain["pos_embed"] = _fitted_table(table, config)
    kernel = plain.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[-1] != config.patch_px:
        plain["patch_embed.proj.weight"] = resize_patch_kernel(kernel, config.patch_px, rule=config.resize)
    names = _names(config)
    expected = meta_state(config)
    _compare(plain, {theirs: expected[own] for own, theirs in names.items()})
    return {own: plain[theirs] for own, theirs in names.items()}


def to_published(state: Mapping[str, Tensor], config: Eva02Config, *, layout: Layout) -> dict[str, Tensor]:
    """The tensors of our encoder in the release's classification names, in timm's, or in open_clip's image tower's.

    Separate matrices where config says so, as the published models have them. The last norm is called `fc_norm` where
    it stands after the mean, else `norm`; timm knows no mean of normed tokens, so there too it becomes `fc_norm`.
    """
    plain: dict[str, Tensor] = {}
    for own, theirs in _names(config).items():
        value = state[own]
        if theirs.startswith("norm.") and layout != "reference" and config.pooling == "normed_mean":
            theirs = "fc_" + theirs
        if theirs.endswith(".attn.qkv.weight") and not config.is_packed:
            parts = (theirs.replace("qkv", f"{letter}_proj") for letter in "qkv")
            plain |= dict(zip(parts, _apart(value, 3), strict=True))
        elif ".mlp.w12." in theirs and not config.is_packed:
            parts = (theirs.replace("w12", name) for name in ("w1", "w2"))
            plain |= dict(zip(parts, _apart(value, 2), strict=True))
        elif theirs.endswith((".attn.q_bias", ".attn.v_bias")) and not config.is_packed and layout != "reference":
            plain[theirs.replace("_bias", "_proj.bias")] = value
        else:
            plain[theirs] = value
    if layout == "reference":
        return plain
    if any("relative_position" in name for name in plain):
        raise ConfigError("layout: timm's Eva has no relative bias; write the release's names")
    prefix = TRUNK if layout == "open_clip" else ""
    return {prefix + to_timm_name(name, is_gated=config.ffn == "swiglu"): value for name, value in plain.items()}


def from_clip(state: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The state dict of our Clip out of EVA-CLIP's own file or open_clip's, text under `text.` or at the root.

    Raises CheckpointError as from_published does, and for a text tower that does not fit.
    """
    image, text = _parts(config)
    scale = state.get("logit_scale", state.get(_OLD_SCALE))
    if scale is None or scale.numel() != 1:
        raise CheckpointError("expected one number called 'logit_scale', as every CLIP file has")
    ours = {"image." + name: value for name, value in from_published(state, image).items()}
    found = text_weights.from_open_clip(state)
    with torch.device("meta"):
        expected = dict(text.build().state_dict())
    _compare(found, expected)
    return ours | {"text." + name: value for name, value in found.items()} | {"logit_scale": scale.reshape(())}


def to_clip(state: Mapping[str, Tensor], config: ClipConfig, *, layout: Layout = "open_clip") -> dict[str, Tensor]:
    """Our Clip's tensors in open_clip's names, or in those of EVA-CLIP's own files (`reference`)."""
    image, _ = _parts(config)
    own = {part: _inner(state, part + ".") for part in ("image", "text")}
    prefix = "" if layout == "open_clip" else VISUAL
    theirs = {prefix + name: value for name, value in to_published(own["image"], image, layout=layout).items()}
    return theirs | text_weights.to_open_clip(own["text"]) | {"logit_scale": state["logit_scale"]}


def resize_state(state: Mapping[str, Tensor], old: Eva02Config, new: Eva02Config) -> dict[str, Tensor]:
    """Our encoder's tensors at another image size: tables resampled as new.resize says."""
    antialias = new.resize == "timm"
    resized = dict(state)
    if (table := resized.get("position")) is not None:
        cells = resize_position_table(table[:, 1:], old.grid, new.grid, antialias=antialias)
        resized["position"] = torch.cat((table[:, :1], cells), dim=1)
    for name, value in state.items():
        if name.endswith(".relative"):
            resized[name] = resize_relative_table(value, old.grid, new.grid, antialias=antialias)
    return resized


def resize_patch_kernel(kernel: Tensor, patch_px: int, *, rule: Resize) -> Tensor:
    """The patch embedding [C, 3, p, p] for patches of another side, in its own dtype.

    reference: plain bicubic; a patch of one colour then answers by the change of its area, 1.31 times from 14 to 16.
    timm: the kernel whose answer to a resized patch is the old one's to the patch (the pseudo-inverse of an antialiased
    bicubic; FlexiViT, arXiv 2212.08013).
    """
    old, size = kernel.shape[-1], (patch_px, patch_px)
    if rule == "reference":
        return torch.nn.functional.interpolate(kernel.float(), size=size, mode="bicubic").to(kernel.dtype)
    basis = torch.eye(old * old).view(-1, 1, old, old)
    resized = torch.nn.functional.interpolate(basis, size=size, mode="bicubic", antialias=True)
    inverse = torch.linalg.pinv(resized.flatten(1).mT)  # [old * old, new * new]
    return (kernel.float().flatten(2) @ inverse).view(*kernel.shape[:2], *size).to(kernel.dtype)


def meta_state(config: Eva02Config) -> dict[str, Tensor]:
    """Our names and shapes, without numbers."""
    with torch.device("meta"):
        return dict(config.build().state_dict())


def _names(config: Eva02Config) -> dict[str, str]:
    """Every name of ours to the plain one, with packed matrices throughout."""
    is_gated = config.ffn == "swiglu"
    parts = {
        "norm1": "norm1",
        "attention.out": "attn.proj",
        "norm2": "norm2",
        "mlp.enter": "mlp.w12" if is_gated else "mlp.fc1",
        "mlp.out": "mlp.w3" if is_gated else "mlp.fc2",
    }
    if config.has_inner_norm:
        parts["attention.norm"] = "attn.inner_attn_ln"
    if config.norm == "sub":
        parts["mlp.norm"] = "mlp.ffn_ln"
    names = {"class_token": "cls_token"}
    if config.has_position:
        names["position"] = "pos_embed"
    modules = {"patch": "patch_embed.proj"}
    for i in range(config.depth):
        modules |= {f"layers.{i}.{own}": f"blocks.{i}.{theirs}" for own, theirs in parts.items()}
        names |= {
            f"layers.{i}.attention.{leaf}": f"blocks.{i}.attn.{leaf}" for leaf in ("qkv.weight", "q_bias", "v_bias")
        }
        if config.relation == "bias":
            names[f"layers.{i}.attention.relative"] = f"blocks.{i}.attn.relative_position_bias_table"
    modules["norm"] = "fc_norm" if config.pooling == "mean" else "norm"
    if config.embed_dim:
        modules["head"] = "head"
    return names | {f"{own}.{leaf}": f"{their}.{leaf}" for own, their in modules.items() for leaf in ("weight", "bias")}


def _joined(tensors: Mapping[str, Tensor], config: Eva02Config) -> dict[str, Tensor]:
    """Plain tensors with q, k, v and gate, value as one matrix each, and the last norm under config's name."""
    plain = dict(tensors)
    for i in range(config.depth):
        groups = {f"blocks.{i}.attn.qkv.weight": [f"blocks.{i}.attn.{letter}_proj.weight" for letter in "qkv"]}
        for leaf in ("weight", "bias"):
            groups[f"blocks.{i}.mlp.w12.{leaf}"] = [f"blocks.{i}.mlp.{name}.{leaf}" for name in ("w1", "w2")]
        for whole, parts in groups.items():
            if whole not in plain and all(part in plain for part in parts):
                plain[whole] = torch.cat([plain.pop(part) for part in parts])
    wanted, other = ("fc_norm", "norm") if config.pooling == "mean" else ("norm", "fc_norm")
    for leaf in ("weight", "bias"):
        if f"{wanted}.{leaf}" not in plain and f"{other}.{leaf}" in plain:
            plain[f"{wanted}.{leaf}"] = plain.pop(f"{other}.{leaf}")
    if f"{wanted}.weight" not in plain:  # a detector's or segmenter's backbone has none
        like = plain.get("cls_token", torch.zeros(1))
        plain |= {f"{wanted}.weight": like.new_ones(config.width), f"{wanted}.bias": like.new_zeros(config.width)}
    return plain


def _fitted_table(table: Tensor, config: Eva02Config) -> Tensor:
    """The table resampled where it fills another square grid."""
    side = round((table.shape[1] - 1) ** 0.5)
    if table.shape[1] == 1 + config.grid[0] * config.grid[1] or side * side + 1 != table.shape[1]:
        return table
    old = replace(config, image_size=(side * config.patch_px, side * config.patch_px))
    return resize_state({"position": table}, old, config)["position"]


def _apart(value: Tensor, count: int) -> list[Tensor]:
    # clones: a file that holds two views of one storage would store the whole twice
    return [part.clone() for part in value.chunk(count)]


def _inner(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _parts(config: ClipConfig) -> tuple[Eva02Config, ClipTextConfig]:
    if not isinstance(config.image, Eva02Config) or not isinstance(config.text, ClipTextConfig):
        raise ConfigError(
            f"{config.name}: this layout needs an EVA-02 image tower and open_clip's text tower, got "
            f"{type(config.image).__name__} and {type(config.text).__name__}"
        )
    if not config.image.embed_dim:
        raise ConfigError(f"{config.name}: image.embed_dim is 0; a CLIP has a projection")
    return config.image, config.text


def _compare(theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless names and shapes are the expected ones."""
    bent = [name for name in expected if name in theirs and theirs[name].shape != expected[name].shape]
    missing = [name for name in expected if name not in theirs]
    left_over = [name for name in theirs if name not in expected]
    lines = [f"'{name}' is {list(theirs[name].shape)}, expected {list(expected[name].shape)}" for name in bent[:1]]
    lines += [f"{len(bent) - 1} more of another shape"] if len(bent) > 1 else []
    for names, what in ((missing, "missing"), (left_over, "with no place")):
        if names:
            shown = ", ".join(f"'{name}'" for name in names[:3])
            lines.append(f"{len(names)} {what}: {shown}{' ...' if len(names) > 3 else ''}")
    if lines:
        raise CheckpointError("weights do not fit this EVA-02: " + "; ".join(lines) + "; pass the model's name")
