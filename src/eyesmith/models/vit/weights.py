"""Plain ViTs from and to the files of OpenAI, OpenCLIP, timm and Hugging Face, bit for bit; which model tensors are.

Tensors tell the sizes. Heads, activation, pooling and preprocessing come from the config beside them; without one from
the registered model of these sizes, by OpenCLIP's name; and where there is none from the rule by which OpenAI's and
OpenCLIP's own code build a model from tensors: heads of 64 channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from eyesmith.config import from_dict
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.activation import Activation
from eyesmith.models.clip import ClipConfig
from eyesmith.models.keymap import (
    Asked,
    UnknownLayoutError,
    count_blocks,
    inner,
    meta_state,
    table_size,
    to_ours,
    to_theirs,
)
from eyesmith.models.position import resize_position_table
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import image_config, list_models, pairs_of
from eyesmith.models.text import weights as text_weights
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.configs import HUGGING_FACE_TYPES, from_hugging_face, from_open_clip
from eyesmith.models.vit.keymaps import Layout, image_map, text_map
from eyesmith.models.vit.model import VitConfig, same_shape

BIAS = text_weights.BIAS
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""Beside the tensors of OpenAI's own archives, and of no other program's: such a file computes QuickGELU."""
QUICK_HINTS = ("quickgelu", "openai", "dfn2b", "dfn5b", "metaclip")
"""In the name of a file, of its folder, or of a repository: weights that OpenCLIP runs with QuickGELU."""
ASSUMED = "taken for GELU: tensors do not tell it from QuickGELU, which OpenAI's, DFN's and MetaCLIP's weights need; "
ASSUMED += "pass name=...-quickgelu for one of those"
NAFLEX = "NaFlex's sizes at will: here pictures are squashed to one size"

# of each layout: the prefix of the image tower, a tensor of its patches and one of its blocks
_MARKS: tuple[tuple[Layout, str, str, str], ...] = (
    ("open_clip", "visual.", "conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"),
    ("timm", "visual.trunk.", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    ("timm", "", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    ("hugging_face", "vision_model.", "embeddings.patch_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight"),
    ("hugging_face", "", "embeddings.patch_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight"),
)
_TABLES = {"open_clip": "positional_embedding", "timm": "pos_embed"}
_TABLES |= {"hugging_face": "embeddings.position_embedding.weight"}
_HIDDEN = {"open_clip": "transformer.resblocks.0.mlp.c_fc.weight", "timm": "blocks.0.mlp.fc1.weight"}
_HIDDEN |= {"hugging_face": "encoder.layers.0.mlp.fc1.weight"}
_BLOCKS = {"open_clip": "transformer.resblocks.", "timm": "blocks.", "hugging_face": "encoder.layers."}
WANTED = "this ViT"


@dataclass(frozen=True)
class Found:
    """A file's tensors. tower: of the image tower, without its prefix; text: in open_clip's names where it has them."""

    layout: Layout
    prefix: str
    tensors: dict[str, Tensor]

    @property
    def tower(self) -> dict[str, Tensor]:
        return inner(self.tensors, self.prefix)

    @property
    def text_prefix(self) -> str:
        """Before the names of the text tower."""
        if self.layout == "hugging_face":
            return "text_model."
        return "text." if any(name.startswith("text.") for name in self.tensors) else ""

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower, whole or not."""
        own = ("token_embedding.weight", "embeddings.token_embedding.weight", "positional_embedding")
        own += ("embeddings.position_embedding.weight", "ln_final.weight", "final_layer_norm.weight")
        return any(self.text_prefix + name in self.tensors for name in own[2 if self.layout == "timm" else 0 :])

    @property
    def has_pool(self) -> bool:
        """Whether the image tower has SigLIP's pooling."""
        return bool({"attn_pool.latent", "head.probe"} & self.tower.keys())

    @property
    def is_naflex(self) -> bool:
        """Whether patches are rows of a matrix."""
        return self.layout == "hugging_face" and self.tower["embeddings.patch_embedding.weight"].ndim == 2


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a CLIP's or SigLIP's plain ViT in anybody's names but ours."""
    return _find(state) is not None


def _find(state: Mapping[str, Tensor]) -> Found | None:
    for layout, prefix, patch, block in _MARKS:
        if not any(prefix + name in state for name in (patch, block)):
            continue
        tower = inner(state, prefix)
        if layout == "timm" and not ({"norm_pre.weight", "attn_pool.latent"} & tower.keys()):
            continue  # a ViT of ImageNet, or of another family
        if layout == "timm" and any(".attn.q_norm" in name or ".ls1." in name for name in tower):
            continue
        plain = {name: value for name, value in state.items() if not name.endswith(("attn_mask", "position_ids"))}
        return Found(layout, prefix, {name: value for name, value in plain.items() if name not in OPENAI_NUMBERS})
    return None


def read(
    tensors: Mapping[str, Tensor], asked: Asked
) -> tuple[ClipConfig | VitConfig, dict[str, Tensor], tuple[str, ...]]:
    """Config and tensors in our names, and what was left out or taken for granted, in words.

    A file without text tower, or the name of an encoder, gives the image tower alone. Raises CheckpointError for
    tensors that do not fit, ConfigError for a name of something else.
    """
    found = _find(tensors)
    assert found is not None
    is_openai = all(name in tensors for name in OPENAI_NUMBERS)
    wants_pair = found.has_text and (asked.name is None or asked.name in list_models())
    config, notes = _config(found, asked, is_openai=is_openai, wants_pair=wants_pair)
    image = config.image if isinstance(config, ClipConfig) else config
    assert isinstance(image, VitConfig)
    notes = (*notes, NAFLEX) if found.is_naflex else notes
    size = _table_pixels(found, image, asked)
    at_table = replace(image, image_size=size)
    if isinstance(config, ClipConfig):
        overhang = config.preprocess.overhang_px if size == image.image_size else 0
        preprocess = replace(config.preprocess, image_size=size, overhang_px=overhang)
        config = replace(config, image=at_table, preprocess=preprocess)
        ours = _to_ours(found, at_table, config.text)
    else:
        config = at_table
        ours = _to_ours(found, at_table, None)
        if found.has_text:
            notes = (*notes, "the text tower")
    return config, ours, notes


def _to_ours(found: Found, image: VitConfig, text: Any) -> dict[str, Tensor]:
    theirs = _without_zero_bias(found)
    text_weights.flatten_numbers(theirs)
    like = meta_state(image) if text is None else text_weights.pair_state(image, text, theirs)
    own = like if text is None else inner(like, "image.")
    keymap = image_map(found.layout, found.prefix, own, is_naflex=found.is_naflex)
    if text is None:
        keep = (found.prefix, "visual_projection.") if found.prefix else ("",)
        theirs = {name: value for name, value in theirs.items() if name.startswith(keep)}
    else:
        tower = text_map(found.layout, found.text_prefix, inner(like, "text."))
        keymap = text_weights.pair_map(keymap, tower, like)
    return to_ours(theirs, keymap, like, wanted=WANTED)


def _without_zero_bias(found: Found) -> dict[str, Tensor]:
    """timm's projection has a bias, which is 0 in a CLIP's."""
    theirs, name = dict(found.tensors), found.prefix + "head.bias"
    if found.layout == "timm" and (bias := theirs.pop(name, None)) is not None and bool(bias.count_nonzero()):
        raise CheckpointError(f"'{name}' is not 0: a classifier's head, and a CLIP's projection has no bias")
    return theirs


def _config(
    found: Found, asked: Asked, *, is_openai: bool, wants_pair: bool
) -> tuple[ClipConfig | VitConfig, tuple[str, ...]]:
    """The config as it is named, as the config beside the file says, or as the tensors tell; and what was assumed."""
    beside = asked.beside
    if asked.name is not None:
        return _named(asked.name, found, wants_pair=wants_pair), ()
    if beside is not None and beside.kind == "eyesmith":
        kind = ClipConfig if "image" in beside.content else VitConfig
        made = from_dict(kind, beside.content)
        return (made if wants_pair or isinstance(made, VitConfig) else made.image), ()  # pyright: ignore[reportReturnType]
    if beside is not None:
        parts, kind = None, beside.content.get("model_type")
        if beside.kind == "hugging_face" and kind is not None and kind not in HUGGING_FACE_TYPES:
            raise UnknownLayoutError(f"{beside.where}: a model of type {kind!r}, which is not built here")
        if beside.kind == "hugging_face" and kind is not None:
            parts = from_hugging_face(beside.content, beside.pixels, beside.where)
        elif beside.kind == "open_clip":
            parts = from_open_clip(beside.content, beside.where)
        if parts is not None:
            image, text, preprocess = parts
            _check_sizes(found, image, beside.where)
            if not wants_pair:
                return image, ()
            if text is None:
                raise CheckpointError(f"{beside.where}: is an image tower's config, and a text tower lies beside it")
            return ClipConfig(name=_name(image, text), image=image, text=text, preprocess=preprocess), ()
    return _guessed(found, asked, is_openai=is_openai, wants_pair=wants_pair)


def _named(name: str, found: Found, *, wants_pair: bool) -> ClipConfig | VitConfig:
    image = image_config(name)
    if not isinstance(image, VitConfig):
        raise ConfigError(f"name: {name} is no plain ViT, and the tensors are in the names of one")
    _check_sizes(found, image, f"name: {name}")
    if found.layout == "timm" and found.prefix == "" and image.pooling != "map":
        head = found.tower.get("head.weight")
        image = replace(image, embed_dim=0 if head is None else head.shape[0])
    return model_config(name) if wants_pair else image


def _quick_hint(hint: str) -> str:
    """Which of QUICK_HINTS a path, or a hub's id, has; "" for none. Folders further up say nothing of a file."""
    *above, folder, name = ("", "", *PurePath(hint).parts)
    words = [*(part for part in above if part.startswith("models--")), folder, name]  # those of a cache of the hub
    plain = " ".join(words).lower().replace("-", "").replace("_", "")
    return next((one for one in QUICK_HINTS if one in plain), "")


def _guessed(
    found: Found, asked: Asked, *, is_openai: bool, wants_pair: bool
) -> tuple[ClipConfig | VitConfig, tuple[str, ...]]:
    """The registered model of these sizes, else one by the rule of heads of 64."""
    rough = _rough_image(found)
    text = _rough_text(found) if wants_pair else None
    if wants_pair and text is None:
        raise CheckpointError("a CLIP whose text tower is not whole: its sizes cannot be told")
    said = "" if is_openai else _quick_hint(asked.hint)
    quick = is_openai or bool(said)
    wanted: Activation = "quick_gelu" if quick else "gelu"
    assumed = f"taken for QuickGELU, as {said!r} in its name says; pass name=... for one of GELU" if said else ASSUMED
    notes = () if is_openai or found.has_pool else (assumed,)
    fitting = [
        known
        for known in pairs_of(VitConfig)
        if same_shape(known[1], rough) and (text is None or text_weights.same_sizes(known[2], text))
    ]

    def distance(known: tuple[ClipConfig, VitConfig, ClipTextConfig]) -> tuple[bool, bool, bool, int]:
        pair, image, _ = known
        is_other_gelu = (image.activation == "quick_gelu") != quick
        is_other_size = image.image_size != rough.image_size
        return is_other_gelu, pair.name.lower() not in asked.hint.lower(), is_other_size, len(pair.name)

    if fitting:
        pair, image, tower = min(fitting, key=distance)
        if not found.has_pool:
            image, tower = replace(image, activation=wanted), replace(tower, activation=wanted)
        elif found.layout == "hugging_face":  # whose SigLIP has GELU by tanh in every size, and cleans in its own way
            cleaning = "siglip2" if tower.tokenizer == "siglip2" else "siglip"
            image = replace(image, activation="gelu_tanh")
            tower = replace(tower, activation="gelu_tanh", cleaning=cleaning)
        return (replace(pair, image=image, text=tower) if wants_pair else image), notes
    if found.has_pool or not rough.has_pre_norm:
        kind = "SigLIP" if found.has_pool else "ViT without a norm before its blocks"
        raise CheckpointError(
            f"a {kind} of width {rough.width} and {rough.depth} blocks, which is none that is known: its heads and its "
            "text tower cannot be told from tensors; load the folder with its config, or pass name=..."
        )
    if rough.width % 64 or (text is not None and text.width % 64):
        raise CheckpointError(
            f"a ViT of width {rough.width}, which is none that is known, and no multiple of 64, by which OpenAI's and "
            "OpenCLIP's code count heads; load the folder with its config, or pass name=..."
        )
    image = replace(rough, activation=wanted)
    if text is None:
        return image, notes
    tower = replace(text, activation=wanted)
    preprocess = PreprocessConfig(image_size=image.image_size)
    return ClipConfig(name="ViT", image=image, text=tower, preprocess=preprocess), notes


def _rough_image(found: Found) -> VitConfig:
    """What tensors tell; heads of 64 channels."""
    tower = found.tower
    try:
        kernel = tower[next(patch for layout, _, patch, _ in _MARKS if layout == found.layout)]
        hidden = tower[_HIDDEN[found.layout]].shape[0]
        width = kernel.shape[0]
        patch_px = round((kernel.shape[1] / 3) ** 0.5) if kernel.ndim == 2 else kernel.shape[-1]
    except KeyError as error:
        raise CheckpointError(f"{error.args[0]!r} is missing, by which a ViT tells its sizes") from None
    except IndexError:
        raise CheckpointError("its first layers have no shape by which a ViT tells its sizes") from None
    has_class = bool({"class_embedding", "cls_token", "embeddings.class_embedding"} & tower.keys())
    has_pre = bool({"ln_pre.weight", "norm_pre.weight", "pre_layrnorm.weight"} & tower.keys())
    heads = {"open_clip": ("proj", 1), "timm": ("head.weight", 0), "hugging_face": ("", 0)}
    name, axis = heads[found.layout]
    head = found.tensors.get("visual_projection.weight") if found.layout == "hugging_face" else tower.get(name)
    rough = VitConfig(
        image_size=(patch_px, patch_px),
        patch_px=patch_px,
        width=width,
        depth=count_blocks(tower, _BLOCKS[found.layout]),
        num_heads=max(1, width // 64) if width % max(1, width // 64) == 0 else 1,
        hidden_dim=hidden,
        embed_dim=width if found.has_pool else 0 if head is None or head.ndim != 2 else head.shape[axis],
        pooling="map" if found.has_pool else "token" if has_pre else "mean",
        has_class_token=has_class,
        has_pre_norm=has_pre,
        has_patch_bias=bool({"patch_embed.proj.bias", "embeddings.patch_embedding.bias"} & tower.keys()),
        layer_scale=1e-4 if any(name.endswith(("ls_1.gamma", "ls1.gamma")) for name in tower) else 0.0,
        norm_eps=1e-6 if found.has_pool else 1e-5,
    )
    try:
        return replace(rough, image_size=_table_pixels(found, rough, Asked()))
    except CheckpointError:  # none, or no square one: said where the size is asked for, with what is known of it
        return rough


def _rough_text(found: Found) -> ClipTextConfig | None:
    if found.layout != "hugging_face":
        return text_weights.text_config(inner(found.tensors, found.text_prefix))
    theirs = inner(found.tensors, found.text_prefix)
    head = found.tensors.get("text_projection.weight", theirs.get("head.weight"))
    try:
        return text_weights.sized(
            theirs["embeddings.token_embedding.weight"],
            theirs["embeddings.position_embedding.weight"],
            count_blocks(theirs, "encoder.layers."),
            theirs["encoder.layers.0.mlp.fc1.weight"],
            None if head is None else head.shape[0],
            is_biased="head.weight" in theirs,
        )
    except (KeyError, ValueError, IndexError, ConfigError):
        return None


def _check_sizes(found: Found, image: VitConfig, where: str) -> None:
    """Raise unless the tensors are those of this tower, in words that say what they are of."""
    rough = _rough_image(found)
    told = (image.width, image.depth, image.patch_px, image.hidden_dim)
    there = (rough.width, rough.depth, rough.patch_px, rough.hidden_dim)
    if told != there:
        words = "width {}, {} blocks, patches of {} px, {} hidden channels"
        raise CheckpointError(f"{where}: a ViT of {words.format(*told)}; the tensors are of {words.format(*there)}")


def _table_pixels(found: Found, image: VitConfig, asked: Asked) -> tuple[int, int]:
    """The image size that the position table is for."""
    table = found.tower.get(_TABLES[found.layout])
    if table is None or table.ndim < 2:
        raise CheckpointError(f"'{found.prefix}{_TABLES[found.layout]}' is missing, the position table of a ViT")
    cells = table.shape[-2] - image.num_prefix
    return table_size(cells, image.patch_px, (image.image_size, *asked.sizes))


def _name(image: VitConfig, text: ClipTextConfig) -> str:
    """OpenCLIP's name of a model like this, the one of its size where there is one; ViT where there is none."""
    like = [
        (known.image_size != image.image_size, len(pair.name), pair.name)
        for pair, known, tower in pairs_of(VitConfig)
        if same_shape(known, image)
        and text_weights.same_sizes(tower, text)
        and (known.activation == "quick_gelu") == (image.activation == "quick_gelu")
        and known.num_heads == image.num_heads
    ]
    return min(like)[-1] if like else "ViT"


def own_config(tensors: Mapping[str, Tensor], asked: Asked) -> ClipConfig | VitConfig | None:
    """The config of tensors in our names, where it lies beside them or a name says it; None for others'."""
    names = {name.removeprefix("image.") for name in tensors}
    if not {"patch.weight", "layers.0.attention.qkv.bias", "position"} <= names:
        return None
    if asked.beside is not None and asked.beside.kind == "eyesmith":
        kind = ClipConfig if "image" in asked.beside.content else VitConfig
        return from_dict(kind, asked.beside.content)
    if asked.name is None:
        raise CheckpointError(
            "a plain ViT in our names, whose tensors do not tell its heads and activation; pass the model's name"
        )
    return None


def write(state: Mapping[str, Tensor], config: ClipConfig | VitConfig, layout: str) -> dict[str, Tensor]:
    """Our tensors in another program's names: `open_clip`, `openai` or `hf` for a pair, `timm` for an encoder."""
    if isinstance(config, VitConfig):
        if config.pooling in ("mean", "normed_mean"):
            raise ConfigError("to: timm has no plain ViT of CLIPA's parts; take --to open_clip with its text tower")
        theirs = to_theirs(state, image_map("timm", "", state))
        if (head := theirs.get("head.weight")) is not None:  # timm's has a bias
            theirs["head.bias"] = head.new_zeros(len(head))
        return theirs
    image, text = config.image, config.text
    if not isinstance(image, VitConfig) or not isinstance(text, ClipTextConfig):
        raise ConfigError(f"{config.name}: this layout needs a plain ViT and open_clip's text tower")
    is_map = image.pooling == "map"
    names: Layout = "hugging_face" if layout == "hf" else "timm" if is_map else "open_clip"
    prefix = "vision_model." if names == "hugging_face" else "visual.trunk." if is_map else "visual."
    text_prefix = "text_model." if names == "hugging_face" else "text." if is_map else ""
    if layout == "openai":
        _check_openai(image, text)
    if names == "open_clip" and (image.has_patch_bias or not image.has_class_token):
        raise ConfigError("to: open_clip's own ViT has a class token and patches without bias; take --to eyesmith")
    if layout == "open_clip_root" and is_map:
        raise ConfigError("to: open_clip keeps the text tower of a SigLIP under `text.`; take --to open_clip")
    towers = image_map(names, prefix, inner(state, "image.")), text_map(names, text_prefix, inner(state, "text."))
    theirs = to_theirs(state, text_weights.pair_map(*towers, state))
    if names == "hugging_face" and is_map:  # [1] there
        theirs |= {name: theirs[name].reshape(1) for name in ("logit_scale", BIAS) if name in theirs}
        if BIAS not in theirs:
            raise ConfigError("to: transformers' SigLIP has a bias of its products, and this model has none")
    if layout == "openai":
        facts = (image.image_size[0], text.context_len, text.vocab_size)
        theirs |= {name: torch.tensor(fact) for name, fact in zip(OPENAI_NUMBERS, facts, strict=True)}
    return theirs


def _check_openai(image: VitConfig, text: ClipTextConfig) -> None:
    ok = image.pooling == "token" and image.activation == text.activation == "quick_gelu" and image.has_pre_norm
    ok &= not image.layer_scale and text.is_causal and text.pooling == "largest" and text.projection == "plain"
    ok &= image.num_heads * 64 == image.width and text.heads * 64 == text.width
    ok &= image.hidden_dim == 4 * image.width and text.hidden_dim == 4 * text.width
    if not ok:
        raise ConfigError(
            "to: OpenAI's code builds a ViT with QuickGELU, a class token and heads of 64 channels; these weights need "
            "something else, take --to open_clip or hf"
        )


def wanted_size(config: VitConfig, asked: Asked) -> tuple[int, int] | None:
    """The image size to run at, None for the stored one: what is asked for, else what the name says."""
    if asked.image_size is not None or asked.name is None:
        return asked.image_size
    return image_config(asked.name).image_size


def resize_state(state: Mapping[str, Tensor], old: VitConfig, new: VitConfig) -> dict[str, Tensor]:
    """Our encoder's tensors at another image size."""
    table = resize_position_table(state["position"], old.grid, new.grid, num_prefix=old.num_prefix)
    return {**state, "position": table}
