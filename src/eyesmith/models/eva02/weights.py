"""TrV weights from and to the files of the release, of timm and of open_clip, bit for bit; which TrV tensors are.

All names are brought to the release's classification names first ("plain" here): `blocks.i.attn.q_proj.weight`,
`.q_bias`, `mlp.w1`, and `norm` or `fc_norm`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from eyesmith.data.evaluation.imagenet import published_classes
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.classifier import ClassifierConfig, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.model import EVA02, Eva02Config, Pooling, Resize
from eyesmith.models.keymap import (
    LEAVES,
    Asked,
    Theirs,
    check_fit,
    count_blocks,
    inner,
    meta_state,
    table_size,
    to_ours,
    to_theirs,
    with_leaves,
)
from eyesmith.models.position import fit_position_table, resize_position_table, resize_relative_table
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import encoder_config, image_config, list_encoders, list_models, pairs_of
from eyesmith.models.text import weights as text_weights

Layout = Literal["reference", "timm", "open_clip"]

TRUNK = "visual.trunk."  # open_clip's prefix of timm's names
VISUAL = "visual."  # of the release's CLIP files
WANTED = "this EVA-02"
_MARKS = ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.proj.weight")
_ATTENTION = ("blocks.0.attn.q_proj.weight", "blocks.0.attn.q_bias")
_PRETRAINING = ("mask_token", "lm_head.weight", "lm_head.bias")
_NOT_WEIGHTS = re.compile(r"(^|\.)rope\.|relative_position_index$|\.k_bias$")  # tables that are computed
_OLD_SCALE = "text.logit_scale"  # where early files of EVA-CLIP have it
_BIASES = ((".attn.q_proj.bias", ".attn.q_bias"), (".attn.v_proj.bias", ".attn.v_bias"))
_TO_PLAIN = (
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

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of a pre-training file is not the encoder, in words."""
        words = ["the mask token"] if "mask_token" in self.extras else []
        if (head := self.extras.get("lm_head.weight")) is not None:
            words.append(f"the pre-training's head of {head.shape[0]} targets")
        return tuple(words)


def recognises(state: Mapping[str, Tensor]) -> bool:
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
    tower = {name: value for name, value in inner(state, prefix).items() if not _NOT_WEIGHTS.search(name)}
    has_mlp = "blocks.0.mlp.fc1.weight" in tower
    is_gated = has_mlp and tower["blocks.0.mlp.fc1.weight"].shape[0] == 2 * tower["blocks.0.mlp.fc2.weight"].shape[1]
    is_timm = is_gated or (has_mlp and "blocks.0.mlp.norm.weight" in tower)
    is_timm |= any(".mlp.fc1_g." in name or ".q_proj.bias" in name for name in tower)
    plain: dict[str, Tensor] = {}
    for name, value in tower.items():
        for theirs, own in _BIASES + _TO_PLAIN + (_SWIGLU_TO_PLAIN if is_gated or not has_mlp else ()):
            name = name.replace(theirs, own)
        plain[name] = value
    layout: Layout = "open_clip" if prefix == TRUNK else "timm" if is_timm else "reference"
    extras = {name: plain.pop(name) for name in _PRETRAINING if name in plain}
    return Found(plain, layout, bool(prefix) or "logit_scale" in state, extras)


def _prefix(state: Mapping[str, Tensor]) -> str | None:
    for prefix in (TRUNK, VISUAL, ""):
        if all(prefix + name in state for name in _MARKS) and any(prefix + name in state for name in _ATTENTION):
            return prefix
    return None


def _plain_map(config: Eva02Config) -> dict[str, Theirs]:
    """Where a file in plain names has each of our tensors, packed or apart; first as config says."""

    def packed(whole: str, *parts: str) -> Theirs:
        return Theirs((whole,), (parts,)) if config.is_packed else Theirs(parts, ((whole,),))

    is_gated = config.ffn == "swiglu"
    modules = {"norm1": "norm1", "attention.out": "attn.proj", "norm2": "norm2"}
    modules["mlp.out"] = "mlp.w3" if is_gated else "mlp.fc2"
    if not is_gated:
        modules["mlp.enter"] = "mlp.fc1"
    if config.has_inner_norm:
        modules["attention.norm"] = "attn.inner_attn_ln"
    if config.norm == "sub":
        modules["mlp.norm"] = "mlp.ffn_ln"
    keymap = {"class_token": Theirs(("cls_token",))}
    if config.has_position:
        keymap["position"] = Theirs(("pos_embed",))
    keymap |= with_leaves({"patch": "patch_embed.proj"} | ({"head": "head"} if config.embed_dim else {}))
    for i in range(config.depth):
        own, their = f"layers.{i}.", f"blocks.{i}."
        keymap |= with_leaves({own + name: their + other for name, other in modules.items()})
        qkv = [f"{their}attn.{letter}_proj.weight" for letter in "qkv"]
        keymap[f"{own}attention.qkv.weight"] = packed(f"{their}attn.qkv.weight", *qkv)
        keymap |= {f"{own}attention.{name}": Theirs((f"{their}attn.{name}",)) for name in ("q_bias", "v_bias")}
        if config.relation == "bias":
            keymap[f"{own}attention.relative"] = Theirs((f"{their}attn.relative_position_bias_table",))
        for leaf in LEAVES if is_gated else ():
            halves = [f"{their}mlp.{name}.{leaf}" for name in ("w1", "w2")]
            keymap[f"{own}mlp.enter.{leaf}"] = packed(f"{their}mlp.w12.{leaf}", *halves)
    last, other = ("fc_norm", "norm") if config.pooling == "mean" else ("norm", "fc_norm")
    return keymap | {f"norm.{leaf}": Theirs((f"{last}.{leaf}",), ((f"{other}.{leaf}",),)) for leaf in LEAVES}


def from_published(state: Mapping[str, Tensor] | Found, config: Eva02Config) -> dict[str, Tensor]:
    """The state dict of our encoder out of anybody's file: the release's, timm's, open_clip's image tower.

    Packed and separate matrices are both read. The mask token and the head of a pre-training file are left out, and
    with embed_dim 0 the head; a file without last norm (a detector's) gives one that changes nothing. A table or a
    kernel of another size is resampled as config.resize says. Tensors keep their dtype. Raises CheckpointError naming
    tensors that are missing, left over or of another shape.
    """
    found = state if isinstance(state, Found) else find_tower(state)
    plain = {name: value for name, value in found.tensors.items() if config.embed_dim or not name.startswith("head.")}
    if not {"norm.weight", "fc_norm.weight"} & plain.keys():  # a detector's or segmenter's backbone has none
        like, last = plain.get("cls_token", torch.zeros(1)), "fc_norm" if config.pooling == "mean" else "norm"
        plain |= {f"{last}.weight": like.new_ones(config.width), f"{last}.bias": like.new_zeros(config.width)}
    if config.has_position and (table := plain.get("pos_embed")) is not None:
        plain["pos_embed"] = fit_position_table(
            table, config.grid, config.width, num_prefix=1, antialias=config.resize == "timm"
        )
    kernel = plain.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[-1] != config.patch_px:
        plain["patch_embed.proj.weight"] = resize_patch_kernel(kernel, config.patch_px, rule=config.resize)
    return to_ours(plain, _plain_map(config), meta_state(config), wanted=WANTED)


def to_published(state: Mapping[str, Tensor], config: Eva02Config, *, layout: Layout) -> dict[str, Tensor]:
    """The tensors of our encoder in the release's classification names, in timm's, or in open_clip's image tower's.

    Separate matrices where config says so, as the published models have them. The last norm is called `fc_norm` where
    it stands after the mean, else `norm`; timm knows no mean of normed tokens, so there too it becomes `fc_norm`.
    """
    plain = to_theirs(state, _plain_map(config))
    if layout == "reference":
        return plain
    if config.relation == "bias":
        raise ConfigError("layout: timm's Eva has no relative bias; write the release's names")
    renames = [*_TO_PLAIN, *(_SWIGLU_TO_PLAIN if config.ffn == "swiglu" else ())]
    renames += () if config.is_packed else _BIASES
    theirs: dict[str, Tensor] = {}
    for name, value in plain.items():
        for other, own in renames:
            name = name.replace(own, other)
        if name.startswith("norm.") and config.pooling == "normed_mean":
            name = "fc_" + name
        theirs[(TRUNK if layout == "open_clip" else "") + name] = value
    return theirs


def from_clip(state: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The state dict of our Clip out of EVA-CLIP's own file or open_clip's, text under `text.` or at the root.

    Raises CheckpointError as from_published does, and for a text tower that does not fit.
    """
    image, text = text_weights.towers(config, Eva02Config, "an EVA-02")
    numbers = {"logit_scale": state.get("logit_scale", state.get(_OLD_SCALE))}
    if text_weights.BIAS in state:
        numbers[text_weights.BIAS] = state[text_weights.BIAS]
    for name, number in numbers.items():
        if number is None or number.numel() != 1:
            raise CheckpointError(f"expected one number called {name!r}, as every CLIP file of its kind has")
    ours = {"image." + name: value for name, value in from_published(state, image).items()}
    found = text_weights.from_open_clip(state)
    check_fit(found, meta_state(text), wanted=WANTED)
    return (
        ours
        | {"text." + name: value for name, value in found.items()}
        | {name: number.reshape(()) for name, number in numbers.items() if number is not None}
    )


def to_clip(state: Mapping[str, Tensor], config: ClipConfig, *, layout: Layout = "open_clip") -> dict[str, Tensor]:
    """Our Clip's tensors in open_clip's names, or in those of EVA-CLIP's own files (`reference`)."""
    image, _ = text_weights.towers(config, Eva02Config, "an EVA-02")
    prefix = "" if layout == "open_clip" else VISUAL
    tower = to_published(inner(state, "image."), image, layout=layout)
    theirs = {prefix + name: value for name, value in tower.items()}
    numbers = {name: state[name] for name in ("logit_scale", text_weights.BIAS) if name in state}
    return theirs | text_weights.to_open_clip(inner(state, "text.")) | numbers


def write(state: Mapping[str, Tensor], config: ClipConfig | Eva02Config, layout: str) -> dict[str, Tensor]:
    """Our tensors in another program's names: `open_clip` for a pair, `timm` for an encoder."""
    if isinstance(config, Eva02Config):
        return to_published(state, config, layout="timm")
    if layout == "open_clip_root":
        raise ConfigError("to: open_clip keeps the text tower of an EVA-02 under `text.`; take --to open_clip")
    return to_clip(state, config)


def read(
    tensors: Mapping[str, Tensor], asked: Asked
) -> tuple[ClipConfig | ClassifierConfig | Eva02Config, dict[str, Tensor], tuple[str, ...]]:
    """Config and tensors in our names, and what was left out in words.

    A fine-tuned file is a classifier: mean, norm, and a head of classes, named as `published_classes` names them. With
    the name of an image-text model its encoder alone is taken. Of a name image and patch size are taken, tables and the
    kernel resampled by the rule of the file's source. Raises CheckpointError for tensors that do not fit, ConfigError
    for a name of something else.
    """
    found, name = find_tower(tensors), asked.name
    named = None if name is None else image_config(name)
    is_pair_name = name is None or name in list_models()
    if found.is_clip and is_pair_name and text_weights.from_open_clip(tensors):
        pair = pair_config(found, tensors, sizes=asked.sizes, name=name)
        assert isinstance(pair.image, Eva02Config)
        image = _as_named(pair.image, named, asked.image_size)
        preprocess = replace(pair.preprocess, image_size=image.image_size)
        pair = replace(pair, image=image, preprocess=preprocess)
        return pair, from_clip(tensors, pair), ()
    config = replace(tower_config(found, sizes=asked.sizes), pooling=_pooling(found, asked.pooling))
    count = config.embed_dim if config.pooling == "mean" else 0
    if config.pooling == "mean":
        config = replace(config, embed_dim=0)
    if name is not None:
        _check_name(config, named, name)
    config = _as_named(config, named, asked.image_size)
    ours = from_published(found, config)
    if count < 2 or (name is not None and is_pair_name):
        classes = (f"a classifier of {count} classes",) if count else ()
        return config, ours, found.left_out + classes
    made = classifier_config(name or _known_name(config), config, published_classes(count))
    return made, {"image." + key: value for key, value in ours.items()} | _head(found, config, count), found.left_out


def own_config(tensors: Mapping[str, Tensor], asked: Asked) -> None:
    """None: the tensors of a TrV in our names do not tell which it is; it needs its model's name."""


def wanted_size(config: Eva02Config, asked: Asked) -> tuple[int, int] | None:
    """The image size to run at, None for the stored one; that of a name is part of what was read."""
    return asked.image_size


def resize_state(state: Mapping[str, Tensor], old: Eva02Config, new: Eva02Config) -> dict[str, Tensor]:
    """Our encoder's tensors at another image size: tables resampled as new.resize says."""
    antialias = new.resize == "timm"
    resized = dict(state)
    if (table := resized.get("position")) is not None:
        resized["position"] = resize_position_table(table, old.grid, new.grid, num_prefix=1, antialias=antialias)
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


def tower_config(found: Found, *, sizes: tuple[tuple[int, int], ...] = ()) -> Eva02Config:
    """The config of an image tower, with the head its tensors have (0 without one), at the size of its table.

    sizes: heights and widths in pixels to prefer where the table could be for several; otherwise it is square. What
    tensors do not tell comes from the known encoder of that width: heads (64 channels each in TrV), post-norm. Resizing
    follows the source: timm's rule for timm's and open_clip's files, the release's own for its own. Pooling is what
    is likely: the class token in CLIP, the mean of normed tokens in a pre-training file, else by the last norm's name.
    Raises CheckpointError when the table is for no square image, or tensors are missing that tell a size.
    """
    plain = found.tensors
    is_gated = "blocks.0.mlp.w3.weight" in plain
    try:
        width, _, patch_px, _ = plain["patch_embed.proj.weight"].shape
        hidden = plain["blocks.0.mlp.w3.weight" if is_gated else "blocks.0.mlp.fc2.weight"].shape[1]
    except KeyError as error:
        raise CheckpointError(f"{error.args[0]!r} is missing, by which an EVA-02 tells its sizes") from None
    known = next((known for known in EVA02.values() if known.width == width), None)
    head = plain.get("head.weight")
    table = plain.get("pos_embed")
    norm = "sub" if "blocks.0.mlp.ffn_ln.weight" in plain else "pre"
    if not is_gated and known is not None:
        norm = known.norm if norm == "pre" else norm
    has_bias = "blocks.0.attn.relative_position_bias_table" in plain
    if table is None or table.ndim != 3:
        image_size = sizes[0] if sizes else (16 * patch_px, 16 * patch_px)
    else:
        image_size = table_size(table.shape[1] - 1, patch_px, sizes)
    return Eva02Config(
        image_size=image_size,
        patch_px=patch_px,
        width=width,
        depth=count_blocks(plain, "blocks."),
        num_heads=known.num_heads if known is not None else max(1, width // 64),
        hidden_dim=hidden,
        embed_dim=0 if head is None else head.shape[0],
        norm=norm,
        has_inner_norm="blocks.0.attn.inner_attn_ln.weight" in plain,
        ffn="swiglu" if is_gated else "mlp",
        has_position=table is not None,
        relation="bias" if has_bias else "rope" if is_gated else "none",
        pooling=_pooling(found, "any"),
        is_packed="blocks.0.attn.qkv.weight" in plain,
        initial="beit" if found.is_clip or not found.extras else "jax",
        resize="reference" if found.layout == "reference" else "timm",
    )


def pair_config(
    found: Found, state: Mapping[str, Tensor], *, sizes: tuple[tuple[int, int], ...] = (), name: str | None = None
) -> ClipConfig:
    """The image-text model of these tensors: a registered one where the sizes fit, else one made of the sizes.

    name: which registered one it must be; its image size is the table's all the same. Raises CheckpointError without
    text tower, or where its sizes cannot be told.
    """
    image = tower_config(found, sizes=sizes)
    text = text_weights.text_config(text_weights.from_open_clip(state))
    if text is None:
        raise CheckpointError("an EVA-02-CLIP without a whole text tower: its sizes cannot be told")
    if name is not None:
        known = model_config(name)
        if not isinstance(known.image, Eva02Config):
            raise ConfigError(f"name: {name} is no EVA-02, and the tensors are in the names of one")
    else:
        like = [pair for pair, own, tower in pairs_of(Eva02Config) if same_shape(own, image) and tower == text]
        known = min(like, key=lambda pair: (pair.image.image_size != image.image_size, pair.name), default=None)
    preprocess = PreprocessConfig(image_size=image.image_size)
    if known is None:
        return ClipConfig(name="EVA02", image=image, text=text, preprocess=preprocess)
    assert isinstance(known.image, Eva02Config)
    image = replace(image, initial=known.image.initial, drop_path_prob=known.image.drop_path_prob)
    return replace(known, image=image, preprocess=preprocess)


def same_shape(left: Eva02Config, right: Eva02Config) -> bool:
    """Whether two towers differ in nothing but image size, pooling, rates, ways of drawing and of resizing."""
    if left.patch_px != right.patch_px:  # then the other's image size may be off the grid
        return False
    loose = ("image_size", "pooling", "initial", "resize", "drop_path_prob")
    return replace(left, **{field: getattr(right, field) for field in loose}) == right


def _pooling(found: Found, said: str | None) -> Pooling:
    """As the tensors tell, else as is said, by our names or timm's. Raises CheckpointError where nobody tells."""
    if found.is_clip:
        return "token"
    known: dict[str, Pooling] = {"avg": "mean", "any": "token", **{name: name for name in get_args(Pooling)}}
    if said is not None and said not in known:
        raise CheckpointError(
            f"this model pools by {said!r}, which is not offered here; expected {', '.join(get_args(Pooling))}"
        )
    has_norm = "norm.weight" in found.tensors
    if said is None and found.layout == "timm" and has_norm and not found.extras:
        raise CheckpointError(
            "its last norm stands before the pooling, as in timm's models with global_pool token, max, avgmax or none, "
            "and nothing here tells which: say pooling='token' (or 'normed_mean'; once for all by `eyesmith convert "
            "FILE RUN --to eyesmith --pooling token`), or put timm's config.json beside the file"
        )
    if said not in (None, "any") and has_norm:
        return known[said]
    if "fc_norm.weight" in found.tensors:
        if said not in (None, "avg", "mean", "any"):
            raise CheckpointError(
                f"its norm stands after the mean of its tokens (fc_norm), and not with pooling {said}"
            )
        return "mean"
    return "normed_mean" if "mask_token" in found.extras else "token"


def _head(found: Found, config: Eva02Config, count: int) -> dict[str, Tensor]:
    """The head of a fine-tuned file in a classifier's names. Raises CheckpointError for a damaged one."""
    with torch.device("meta"):
        like = nn.Linear(config.width, count).state_dict(prefix="head.")
    head = {name: found.tensors[name] for name in like if name in found.tensors}
    check_fit(head, like, wanted=f"a classifier of {count} classes")
    return head


def _known_name(config: Eva02Config) -> str:
    """timm's name of an encoder like this at this size, for tables; EVA-02 where there is none."""
    known = ((name, encoder_config(name)) for name in list_encoders())
    like = [name for name, one in known if isinstance(one, Eva02Config) and same_shape(one, config)]
    at_size = [name for name in like if encoder_config(name).image_size == config.image_size]
    return min(at_size or like, default="EVA-02")


def _as_named(config: Eva02Config, named: object, image_size: tuple[int, int] | None) -> Eva02Config:
    """The config at the size asked for, else at the named model's, else as it is."""
    if isinstance(named, Eva02Config):
        config = replace(config, patch_px=named.patch_px, image_size=named.image_size)
    return config if image_size is None else replace(config, image_size=image_size)


def _check_name(config: Eva02Config, named: object, name: str) -> None:
    if not isinstance(named, Eva02Config):
        raise ConfigError(f"name: {name} is no EVA-02, and the tensors are in the names of one")
    at_patch = replace(named, patch_px=config.patch_px, image_size=config.image_size, embed_dim=config.embed_dim)
    # a classifier or a pre-trained encoder may become the start of a CLIP tower, which has norms that it lacks
    if not same_shape(at_patch, config) and not same_shape(replace(at_patch, has_inner_norm=False), config):
        raise ConfigError(
            f"name: {name} has {named.depth} blocks of width {named.width}, the file {config.depth} of {config.width}"
        )
