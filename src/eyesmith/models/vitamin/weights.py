"""ViTamin weights from and to the layouts of open_clip and timm, bit for bit; which ViTamin tensors are.

Ours differs in names, in 1x1 convolutions kept as matrices, and in one matrix for the two input products of a GeGLU
(`gate_value` = rows of w0, then of w1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.models.clip import ClipConfig
from eyesmith.models.keymap import (
    LEAVES,
    Asked,
    Theirs,
    count_blocks,
    inner,
    meta_state,
    table_size,
    to_ours,
    to_theirs,
    with_leaves,
    within,
)
from eyesmith.models.position import fit_position_table, resize_position_table
from eyesmith.models.registry import ENCODERS, image_config, list_models, pairs_of
from eyesmith.models.registry import config as model_config
from eyesmith.models.text import weights as text_weights
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import STRIDE, VITAMIN, ViTaminConfig

TRUNK = "visual.trunk."  # open_clip's prefix of timm's names
HEAD = "visual.head.proj.weight"
POSITION = "pos_embed"
_BACKBONE = "patch_embed.backbone."
_STEM = _BACKBONE + "stem.conv1.weight"


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a ViTamin's tensors in the names of open_clip or timm."""
    return _STEM in state or TRUNK + _STEM in state


def from_open_clip(state: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The state dict of our Clip out of open_clip's, both its layouts (text tensors under `text.` or at the root).

    A position table of another image size is resampled to config's. Tensors keep their dtype; unchanged ones are not
    copied. Raises CheckpointError naming tensors that are missing, left over or of another shape, and the model they
    look like; ConfigError when config is no ViTamin with open_clip's text tower.
    """
    image, text = text_weights.towers(config, ViTaminConfig, "a ViTamin")
    theirs = _text_prefixed(state)
    text_weights.flatten_numbers(theirs)
    _fit_position(theirs, TRUNK + POSITION, image)
    like = text_weights.pair_state(image, text, theirs)
    return to_ours(theirs, _pair_map(image, like), like, wanted=config.name, hint=_hint(theirs, config.name))


def to_open_clip(
    state: Mapping[str, Tensor], config: ClipConfig, *, is_text_prefixed: bool = True
) -> dict[str, Tensor]:
    """open_clip's state dict out of our Clip's: with `text.` names (its CustomTextCLIP), or with text at the root."""
    image, _ = text_weights.towers(config, ViTaminConfig, "a ViTamin")
    return to_theirs(state, _pair_map(image, state, text_weights.PREFIX if is_text_prefixed else ""))


def from_timm(state: Mapping[str, Tensor], config: ViTaminConfig) -> dict[str, Tensor]:
    """The state dict of our image encoder out of timm's, with or without timm's head.

    A head becomes the projection; its bias must be zero, as it is where timm loaded a CLIP model. With embed_dim 0 the
    head is left out. Raises CheckpointError as from_open_clip does.
    """
    theirs = {name: value for name, value in state.items() if config.embed_dim or name != "head.weight"}
    bias = theirs.pop("head.bias", None)
    if config.embed_dim and bias is not None and bool((bias != 0).any()):
        raise CheckpointError(
            "head.bias: expected zeros, a CLIP projection has no bias; this is a classifier: "
            "set embed_dim=0 to take the encoder without it"
        )
    _fit_position(theirs, POSITION, config)
    wanted, hint = "the encoder", _hint(theirs, "the encoder")
    return to_ours(theirs, _trunk_map(config), meta_state(config), wanted=wanted, hint=hint)


def to_timm(state: Mapping[str, Tensor], config: ViTaminConfig) -> dict[str, Tensor]:
    """timm's state dict out of our image encoder's. A projection becomes its classifier, with a bias of zeros."""
    theirs = to_theirs(state, _trunk_map(config))
    return theirs | ({"head.bias": state["head.weight"].new_zeros(config.embed_dim)} if config.embed_dim else {})


def write(state: Mapping[str, Tensor], config: ClipConfig | ViTaminConfig, layout: str) -> dict[str, Tensor]:
    """Our tensors in another program's names: `open_clip` or `open_clip_root` for a pair, `timm` for an encoder."""
    if isinstance(config, ViTaminConfig):
        return to_timm(state, config)
    return to_open_clip(state, config, is_text_prefixed=layout != "open_clip_root")


def read(
    tensors: Mapping[str, Tensor], asked: Asked
) -> tuple[ClipConfig | ViTaminConfig, dict[str, Tensor], tuple[str, ...]]:
    """Config and tensors in our names, at the size of their table, and what was left out in words.

    Raises CheckpointError for tensors that do not fit or fit nothing that is known, ConfigError for a name of something
    else.
    """
    if TRUNK + _STEM in tensors and "logit_scale" in tensors:
        pair = pair_config(tensors, asked)
        if pair is None:
            raise CheckpointError("OpenCLIP's layout, but the sizes of no model that is known; pass its name")
        return pair, from_open_clip(tensors, pair), ()
    if TRUNK + _STEM in tensors:
        heads = {"head.weight": tensors[HEAD]} if HEAD in tensors else {}
        tensors = {key.removeprefix(TRUNK): value for key, value in tensors.items() if key != HEAD} | heads
    config = tower_config(tensors, asked)
    bias, left_out = tensors.get("head.bias"), ()
    if config.embed_dim and bias is not None and bool((bias != 0).any()):
        left_out = (f"a classifier of {config.embed_dim} classes",)
        config = replace(config, embed_dim=0)
    return config, from_timm(tensors, config), left_out


def own_config(tensors: Mapping[str, Tensor], asked: Asked) -> ClipConfig | ViTaminConfig | None:
    """The config of tensors in our names; None when they are no ViTamin, or asked.name is none."""
    if any(key.startswith("text.") for key in tensors):
        named = None if asked.name is None else model_config(asked.name)
        return pair_config(tensors, asked) if named is None or isinstance(named.image, ViTaminConfig) else None
    return tower_config(tensors, asked) if {"stem.conv1.weight", "norm.weight"} <= tensors.keys() else None


def wanted_size(config: ViTaminConfig, asked: Asked) -> tuple[int, int] | None:
    """The image size to run at, None for the stored one: as asked, as named, or, without a table, as hinted."""
    if asked.image_size is not None:
        return asked.image_size
    if asked.name is not None:
        named = model_config(asked.name).image if asked.name in list_models() else ENCODERS.get(asked.name)
        return named.image_size if isinstance(named, ViTaminConfig) else None
    if config.has_position or asked.said is not None:
        return None if config.has_position else asked.said
    known = [*ENCODERS.items(), *((pair.name, image) for pair, image, _ in pairs_of(ViTaminConfig))]
    sizes = {
        name: image.image_size
        for name, image in known
        if isinstance(image, ViTaminConfig) and (image.widths, image.depths) == (config.widths, config.depths)
    }
    found = _named_in(asked.hint, list(sizes))
    return None if found is None else sizes[found]


def resize_state(state: Mapping[str, Tensor], old: ViTaminConfig, new: ViTaminConfig) -> dict[str, Tensor]:
    """Our encoder's tensors at another image size: the table resampled."""
    resized = dict(state)
    if "position" in resized:
        resized["position"] = resize_position_table(resized["position"], old.grid, new.grid)
    return resized


def _trunk_map(config: ViTaminConfig) -> dict[str, Theirs]:
    """Where timm has each of our encoder's tensors."""
    if not config.has_released_parts:
        raise ConfigError(
            f"the layouts of open_clip and timm hold ViTamin's released parts only, this one has convolution="
            f"{config.convolution!r}, ffn={config.ffn!r} and stride {config.stride}; keep it in eyesmith's own format"
        )
    modules = {
        "stem.conv1": _BACKBONE + "stem.conv1",
        "stem.norm": _BACKBONE + "stem.norm1",
        "stem.conv2": _BACKBONE + "stem.conv2",
        "transition.norm": _BACKBONE + "pool.norm",
        "transition.conv": _BACKBONE + "pool.proj",
        "norm": "fc_norm",
    }
    convolution = {"norm": "pre_norm", "expand": "conv1_1x1", "depthwise": "conv2_kxk", "reduce": "conv3_1x1"}
    for stage in (0, 1):
        for i in range(config.depths[stage]):
            own, their = f"stage{stage + 1}.{i}.", f"{_BACKBONE}stages.{stage}.{i}."
            modules |= {own + name: their + other for name, other in convolution.items()}
    if config.widths[0] != config.widths[1]:
        modules["stage2.0.shortcut"] = _BACKBONE + "stages.1.0.shortcut.expand"
    block = {"norm1": "norm1", "attention.qkv": "attn.qkv", "attention.out": "attn.proj", "norm2": "norm2"}
    block |= {"mlp.norm": "mlp.norm", "mlp.out": "mlp.w2"}
    keymap: dict[str, Theirs] = {}
    for i in range(config.depths[2]):
        modules |= {f"stage3.{i}.{name}": f"blocks.{i}.{other}" for name, other in block.items()}
        for leaf in LEAVES:
            halves = (f"blocks.{i}.mlp.w0.{leaf}", f"blocks.{i}.mlp.w1.{leaf}")
            keymap[f"stage3.{i}.mlp.gate_value.{leaf}"] = Theirs(halves)
    keymap |= with_leaves(modules)
    for name in keymap:
        if name.startswith(("stage1.", "stage2.")) and name.endswith(
            ("expand.weight", "reduce.weight", "shortcut.weight")
        ):
            keymap[name] = Theirs(keymap[name].parts, form="pointwise")
    if config.has_position:
        keymap["position"] = Theirs((POSITION,))
    if config.embed_dim:
        keymap["head.weight"] = Theirs(("head.weight",))
    return keymap


def _pair_map(
    image: ViTaminConfig, ours: Mapping[str, Tensor], text_prefix: str = text_weights.PREFIX
) -> dict[str, Theirs]:
    """Where open_clip has each tensor of our Clip; the text tower's names are those of `ours`."""
    keymap = within(_trunk_map(image), "", TRUNK) | {"head.weight": Theirs((HEAD,))}
    text = {name: Theirs((text_prefix + name,)) for name in inner(ours, "text.")}
    return text_weights.pair_map(keymap, text, ours)


@dataclass(frozen=True, slots=True)
class Shapes:
    """The sizes that tensors tell. embed_dim, num_tokens and text are None where there is no such tensor."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    embed_dim: int | None
    num_tokens: int | None
    text: ClipTextConfig | None

    def image_fits(self, config: ViTaminConfig) -> bool:
        """Whether an image tower has these widths, depths and, or not, a position table."""
        same = config.widths == self.widths and config.depths == self.depths
        return same and config.has_position == (self.num_tokens is not None)

    def text_fits(self, config: ClipTextConfig) -> bool:
        """Whether a text tower has these sizes; any has where the tensors hold no text tower."""
        return self.text is None or text_weights.same_sizes(self.text, config)


def read_shapes(state: Mapping[str, Tensor]) -> Shapes | None:
    """The sizes of a ViTamin, with or without text tower, in the names of open_clip, timm or ours; None for others."""
    stages = (_BACKBONE + "stages.0.", _BACKBONE + "stages.1.", "blocks.")
    timm = (_STEM, _BACKBONE + "stages.1.0.conv3_1x1.weight", "fc_norm.weight"), stages, POSITION
    ours = ("stem.conv1.weight", "stage2.0.reduce.weight", "norm.weight"), ("stage1.", "stage2.", "stage3."), "position"
    for prefix, head, (tellers, stages, position) in (
        (TRUNK, HEAD, timm),
        ("", "head.weight", timm),
        ("image.", "image.head.weight", ours),
        ("", "head.weight", ours),
    ):
        if not all(prefix + name in state for name in tellers):
            continue
        table, matrix = state.get(prefix + position), state.get(head)
        return Shapes(
            widths=tuple(state[prefix + name].shape[0] for name in tellers),
            depths=tuple(count_blocks(state, prefix + stage) for stage in stages),
            embed_dim=matrix.shape[0] if matrix is not None and matrix.ndim == 2 else None,
            num_tokens=table.shape[1] if table is not None and table.ndim == 3 else None,
            text=text_weights.text_config(text_weights.from_open_clip(state)),
        )
    return None


def likely_models(state: Mapping[str, Tensor]) -> list[str]:
    """Named image-text models whose tensors these could be; those of the same image size first.

    Empty when no ViTamin fits. The sizes of XL cannot be told apart: it has no table.
    """
    shapes = read_shapes(state)
    if shapes is None:
        return []
    found = sorted(
        (math.prod(image.grid) != shapes.num_tokens, pair.name)
        for pair, image, text in pairs_of(ViTaminConfig)
        if shapes.image_fits(image) and shapes.text_fits(text) and shapes.embed_dim in (None, image.embed_dim)
    )
    return [name for _, name in found]


def nearest_model(state: Mapping[str, Tensor]) -> str | None:
    """The named model that shares the widths of the image tower, for tensors that fit no model whole."""
    shapes = read_shapes(state)
    if shapes is None:
        return None
    near = [
        # the text tower tells S from S-LTT, the table's length the image size
        (
            not shapes.text_fits(text),
            image.embed_dim != shapes.embed_dim,
            math.prod(image.grid) != shapes.num_tokens,
            pair.name,
        )
        for pair, image, text in pairs_of(ViTaminConfig)
        if image.widths == shapes.widths
    ]
    return min(near)[-1] if near else None


def image_tower(state: Mapping[str, Tensor]) -> ViTaminConfig | None:
    """The config of an image tower by its tensors, for a square image; None when no known one has its widths.

    embed_dim is the rows of its head, 0 without one. A tower whose depths or table differ from the known one's gets the
    known config, so that what is missing can be named.
    """
    shapes = read_shapes(state)
    if shapes is None:
        return None
    known = [*VITAMIN.values(), *(image for _, image, _ in pairs_of(ViTaminConfig))]
    fitting = [image for image in known if shapes.image_fits(image)]
    near = fitting or [image for image in known if image.widths == shapes.widths]
    if not near:
        return None
    config = replace(near[0], embed_dim=shapes.embed_dim or 0)
    side = math.isqrt(shapes.num_tokens or 0)
    if side and side * side == shapes.num_tokens and fitting:
        config = replace(config, image_size=(side * STRIDE, side * STRIDE))
    return config


def pair_config(tensors: Mapping[str, Tensor], asked: Asked) -> ClipConfig | None:
    """The image-text model of these tensors at the image size of their position table; None when there is none."""
    if asked.name is not None:
        config = model_config(asked.name)
    else:
        shapes, likely = read_shapes(tensors), likely_models(tensors)
        has_table = shapes is not None and shapes.num_tokens is not None  # it knows the size better than a path
        hinted = None if has_table else _named_in(asked.hint, likely)
        chosen = hinted or next(iter(likely), None) or nearest_model(tensors)
        if chosen is None:
            return None
        config = model_config(chosen)
    if not isinstance(config.image, ViTaminConfig):
        return config
    size = _table_size(tensors, config.image, asked)
    preprocess = replace(config.preprocess, image_size=size)
    return replace(config, image=replace(config.image, image_size=size), preprocess=preprocess)


def tower_config(tensors: Mapping[str, Tensor], asked: Asked) -> ViTaminConfig:
    """The image encoder of these tensors, with the head they have, at the image size of their table.

    Raises CheckpointError when no known one has its widths, ConfigError for a name of something else.
    """
    shapes = read_shapes(tensors)
    if asked.name is not None:
        known = image_config(asked.name)
        if not isinstance(known, ViTaminConfig):
            raise ConfigError(f"name: {asked.name} is no ViTamin, the tensors are in a ViTamin's names")
        config = replace(known, embed_dim=(shapes.embed_dim or 0) if shapes else known.embed_dim)
    else:
        config = image_tower(tensors)
    if config is None:
        widths = "cannot be told" if shapes is None else f"are {shapes.widths}"
        raise CheckpointError(f"a ViTamin's names, but no known one has these widths (they {widths}); pass its name")
    return replace(config, image_size=_table_size(tensors, config, asked))


def _table_size(tensors: Mapping[str, Tensor], config: ViTaminConfig, asked: Asked) -> tuple[int, int]:
    """The image size, in pixels, that the position table is for; the config's own where there is no such table."""
    shapes = read_shapes(tensors)
    if shapes is None or shapes.num_tokens is None or not shapes.image_fits(config):
        return config.image_size
    return table_size(shapes.num_tokens, STRIDE, (config.image_size, *asked.sizes))


def _named_in(hint: str, names: list[str]) -> str | None:
    """The longest of `names` that occurs in a path or hub id."""
    return max((name for name in names if name.lower() in hint.lower()), key=len, default=None)


def _hint(theirs: Mapping[str, Tensor], wanted: str) -> str:
    likely = likely_models(theirs)
    if not likely:
        return "this looks like no ViTamin"
    return "" if wanted in likely else f"this looks like {likely[0]}: pass its name"


def _text_prefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names with all text tensors under `text.`, and without the masks that old checkpoints store."""
    prefix = text_weights.PREFIX
    at_root = {name for name in text_weights.from_open_clip(state) if prefix + name not in state}
    renamed = {prefix + name if name in at_root else name: value for name, value in state.items()}
    return {name: value for name, value in renamed.items() if not name.endswith("attn_mask")}


def _fit_position(theirs: dict[str, Tensor], name: str, config: ViTaminConfig) -> None:
    """Resample the table in place where it fills another square grid of the right width."""
    if config.has_position and (table := theirs.get(name)) is not None:
        theirs[name] = fit_position_table(table, config.grid, config.widths[2])
